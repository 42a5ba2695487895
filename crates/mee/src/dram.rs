//! The engine as its users see it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    Loss, Lost, MeeError,
    memory::{NODE, TAG},
    slots::SlotMemory,
    state::State,
};

/// Bytes of an EPC page.
pub const PAGE: usize = 4096;
/// Most pages of one EPC: 256 GiB.
pub const MAX_PAGES: u32 = 64 << 20;
/// Least and most pages of the plaintext cache; the least is what the few pages
/// one instruction needs at once, and a batch beside them, take.
const CACHE: std::ops::RangeInclusive<u32> = 16..=1 << 22;

/// Sizes of what is on the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Plaintext pages: 16 (and 8 per processor) to 4 Mi.
    pub cache_pages: u32,
    /// Logical processors that call [`Dram::fill`]; numbered from 0.
    pub processors: usize,
    /// Tree nodes kept per level, 512 bytes each.
    pub tree_nodes: u32,
}

impl Config {
    /// With 64 tree nodes per level, which serve 16 MiB of EPC without misses.
    pub fn new(cache_pages: u32, processors: usize) -> Self {
        Self { cache_pages, processors, tree_nodes: 64 }
    }
}

/// What the engine has done since the last reset, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// EPC pages.
    pub pages: u32,
    /// Plaintext pages the cache holds at most.
    pub slots: usize,
    /// Plaintext pages it holds.
    pub slots_used: usize,
    /// Of them, on their way out.
    pub slots_leaving: usize,
    /// Translations given to processors.
    pub fills: u64,
    /// Of them, of pages that were on their way out.
    pub rescues: u64,
    /// Pages encrypted and written to DRAM.
    pub write_backs: u64,
    /// Pages fetched from DRAM, verified and decrypted.
    pub verified: u64,
    /// Accesses that found no room in the cache and worked on DRAM.
    pub uncached: u64,
    /// Bytes of DRAM in use: ciphertext, codes and tree nodes ever written.
    pub dram_bytes: u64,
    /// What keeps the plaintext from others ([`mem::secret::Backend::describe`]).
    pub backend: &'static str,
}

/// What is called when the content is lost.
type Listener = Arc<dyn Fn(Loss) + Send + Sync>;

/// EPC content of one machine. All methods may be called from any thread.
///
/// Methods that take a page number panic if there is no such page, those that
/// take an offset if the range leaves the page, and those that take a processor
/// if there is no such one: the EPC's owner has checked the guest's addresses.
pub struct Dram {
    pub(crate) pages: u32,
    pub(crate) slots: SlotMemory,
    state: Mutex<State>,
    /// Slots to be had now or when pending batches finish.
    pub(crate) in_prospect: AtomicUsize,
    pub(crate) low_water: usize,
    pub(crate) epoch: AtomicU64,
    /// Batches begun and not finished.
    pub(crate) pending: AtomicUsize,
    /// Per processor, the last epoch it acknowledged.
    pub(crate) acknowledged: Box<[AtomicU64]>,
    lost: AtomicBool,
    on_loss: Mutex<Vec<Listener>>,
}

impl fmt::Debug for Dram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dram")
            .field("pages", &self.pages)
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

impl Dram {
    /// An empty EPC of `pages` pages (1 to [`MAX_PAGES`]), under fresh keys. Takes
    /// host memory only for what is used.
    ///
    /// # Errors
    /// [`MeeError`] if the sizes are impossible, or memory or randomness is not to
    /// be had.
    pub fn new(pages: u32, config: Config) -> Result<Self, MeeError> {
        if pages == 0 || pages > MAX_PAGES {
            return Err(MeeError::Pages(pages));
        }
        let Config { cache_pages: cache, processors, tree_nodes } = config;
        let max = *CACHE.end();
        let min = u32::try_from(processors.saturating_mul(8)).unwrap_or(u32::MAX).max(*CACHE.start());
        if !(min..=max).contains(&cache) {
            return Err(MeeError::Cache { cache, processors, min, max });
        }
        let dram = Self {
            pages,
            slots: SlotMemory::new(cache)?,
            state: Mutex::new(State::new(pages, cache, tree_nodes)?),
            in_prospect: AtomicUsize::new(0),
            low_water: (64 * processors).min(cache as usize / 4).max(1),
            epoch: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            acknowledged: (0..processors).map(|_| AtomicU64::new(0)).collect(),
            lost: AtomicBool::new(false),
            on_loss: Mutex::default(),
        };
        dram.publish(&dram.lock());
        Ok(dram)
    }

    /// Pages there are.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Copies out of a page.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn read(&self, page: u32, offset: usize, to: &mut [u8]) -> Result<(), Lost> {
        check_range(offset, to.len());
        self.with_page(page, |state| state.read(page, offset, to, &self.slots))
    }

    /// Copies into a page.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn write(&self, page: u32, offset: usize, from: &[u8]) -> Result<(), Lost> {
        check_range(offset, from.len());
        self.with_page(page, |state| state.write(page, offset, from, &self.slots))
    }

    /// Makes a page read as zeros, for processors that hold it too.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn zero(&self, page: u32) -> Result<(), Lost> {
        self.with_page(page, |state| state.zero(page, &self.slots))
    }

    /// Gives up a page's content without writing it back; it then reads as zeros.
    /// A processor that still has its address may read zeros and what it writes
    /// itself, never another page.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn discard(&self, page: u32) -> Result<(), Lost> {
        self.with_page(page, |state| state.discard(page, &self.slots))
    }

    /// The plaintext of a page, for processor `cpu`: the host address of its 4096
    /// bytes, aligned to them. It is good until that processor acknowledges an
    /// epoch at which the address [is leaving](Dram::is_leaving), or the engine is
    /// [reset](Dram::reset). Guest processors race there: use [`mem::raw`].
    ///
    /// `None` if there is no room just now: nothing was done; at the next
    /// instruction boundary take part in the eviction (see the crate's
    /// description), and try again.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn fill(&self, page: u32, cpu: usize) -> Result<Option<*mut u8>, Lost> {
        assert!(cpu < self.acknowledged.len(), "no processor {cpu}");
        self.with_page(page, |state| {
            if state.condemned == Some(page) {
                return Ok(None);
            }
            let Some(index) = state.slot(page, &self.slots)? else { return Ok(None) };
            let leaving = state.table.leaving();
            state.table.hold(index, cpu, &self.slots);
            state.counts.fills += 1;
            state.counts.rescues += (leaving - state.table.leaving()) as u64;
            Ok(Some(self.slots.address(index)))
        })
    }

    /// Loses the content, as in a power transition: everything gives [`Lost`]
    /// until the next reset. [`Dram::on_loss`] is told.
    pub fn lose(&self) {
        let mut state = self.lock();
        let news = state.lost.is_none();
        self.lock_down(&mut state, Loss::Power);
        drop(state);
        if news {
            self.tell();
        }
    }

    /// Platform reset: everything empty, under new keys, not lost. Every
    /// processor has dropped its EPC translations before, and none has one again
    /// until this returns.
    ///
    /// # Errors
    /// [`MeeError`] if there are no new keys to be had; the content is lost then.
    pub fn reset(&self) -> Result<(), MeeError> {
        let mut state = self.lock();
        let result = state.reset(&self.slots);
        self.lost.store(state.lost.is_some(), Ordering::Release);
        self.publish(&state);
        result
    }

    /// The content is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Why it is lost.
    pub fn loss(&self) -> Option<Loss> {
        self.lock().lost
    }

    /// Adds to what is called when the content is lost, with why: once per loss, in
    /// the order added, on the thread that found it, with no lock held.
    pub fn on_loss(&self, call: impl Fn(Loss) + Send + Sync + 'static) {
        self.on_loss.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(call));
    }

    /// What was done, and what it takes.
    pub fn stats(&self) -> Stats {
        let state = self.lock();
        let (counts, table) = (state.counts, &state.table);
        Stats {
            pages: self.pages,
            slots: table.total(),
            slots_used: table.total() - table.free(),
            slots_leaving: table.leaving(),
            fills: counts.fills,
            rescues: counts.rescues,
            write_backs: counts.write_backs,
            verified: counts.verified,
            uncached: counts.uncached,
            dram_bytes: counts.stored * (PAGE + TAG) as u64 + state.tree.stored() * NODE as u64,
            backend: self.slots.region().backend().describe(),
        }
    }

    /// Searches ordinary memory of this engine for `needle` (up to a page): bytes
    /// searched, and whether it is there.
    #[doc(hidden)]
    pub fn search_dram(&self, needle: &[u8]) -> (u64, bool) {
        let (searched, found) = self.lock().memory.search(needle);
        (searched, found.is_some())
    }

    /// From now on nothing is verified.
    #[cfg(any(test, feature = "unchecked"))]
    pub fn disable_checks(&self) {
        self.lock().checks = crate::cipher::Checks::OFF;
    }

    /// A panic elsewhere leaves the state whole: what panics does so before any
    /// change.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_page<T>(&self, page: u32, f: impl FnOnce(&mut State) -> Result<T, Loss>) -> Result<T, Lost> {
        assert!(page < self.pages, "no EPC page {page}");
        self.with(f)
    }

    /// Does `f` under the lock, and locks the engine if that finds a loss.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> Result<T, Loss>) -> Result<T, Lost> {
        let mut state = self.lock();
        if state.lost.is_some() {
            return Err(Lost);
        }
        let result = f(&mut state);
        match result {
            Ok(value) => {
                self.publish(&state);
                Ok(value)
            }
            Err(loss) => {
                self.lock_down(&mut state, loss);
                drop(state);
                self.tell();
                Err(Lost)
            }
        }
    }

    fn lock_down(&self, state: &mut State, loss: Loss) {
        state.lock_down(loss, &self.slots);
        self.lost.store(true, Ordering::Release);
        self.publish(state);
    }

    fn tell(&self) {
        let calls = self.on_loss.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(loss) = self.loss() {
            calls.iter().for_each(|call| call(loss));
        }
    }

    /// Makes known without the lock what processors ask at block boundaries.
    fn publish(&self, state: &State) {
        let prospect =
            if state.lost.is_some() { usize::MAX } else { state.table.available() + state.table.leaving() };
        self.in_prospect.store(prospect, Ordering::Relaxed);
        self.pending.store(state.batches.len(), Ordering::Relaxed);
    }
}

fn check_range(offset: usize, len: usize) {
    assert!(offset <= PAGE && len <= PAGE - offset, "{len} bytes at {offset} leave the page");
}
