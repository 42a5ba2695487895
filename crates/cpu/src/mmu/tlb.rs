//! The software TLB.
//!
//! A tag is a page's linear address with, in its low twelve bits, the number
//! of a *context* (one for each address space in use) and [`SLOW`]. So a hit is
//! one comparison, changing address spaces changes one number, and flushing an
//! address space gives it a new number. Entries that every access must be
//! looked at — devices, pages with decoded code, watched pages — carry
//! [`SLOW`], which no fast comparison matches.

use arch::paging::PAGE_MASK;

/// Entries for each kind of rights; a power of two.
const SIZE: usize = 1024;
/// Tag bit: valid translation, but not for the fast path.
pub const SLOW: u64 = 1 << 11;
/// For [`Tlb::set_rights`]: a table without entries, so that every access is looked at.
pub const NO_FAST_PATH: u8 = 3;
/// Contexts in use at a time; 0 is never used, so zeroed entries match nothing.
const CONTEXTS: u64 = 1 << 11;
/// Entries of the look-aside of instruction fetches.
const FETCH_SIZE: usize = 256;

/// A data translation.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(32))]
pub struct Entry {
    /// Tag that allows reads.
    pub read: u64,
    /// Tag that allows writes.
    pub write: u64,
    /// Host address minus linear address; meaningless for devices.
    pub addend: u64,
    /// Physical address of the page.
    pub gpa: u64,
}

/// A fetch translation.
#[derive(Clone, Copy, Default, Debug)]
struct Fetch {
    tag: u64,
    gpa: u64,
}

/// Range of linear addresses, by half of the address space, that large pages
/// may have left entries for.
#[derive(Clone, Copy, Debug)]
struct LargeRange {
    first: u64,
    last: u64,
}

const NO_RANGE: LargeRange = LargeRange { first: u64::MAX, last: 0 };

/// The TLB of one logical processor.
pub struct Tlb {
    /// One table for each kind of rights, and one that stays empty.
    entries: Box<[Entry; 4 * SIZE]>,
    fetch: Box<[Fetch; 2 * FETCH_SIZE]>,
    /// Context number of the current address space.
    context: u64,
    /// First entry of the table for the current rights.
    base: usize,
    next_context: u64,
    /// Context of each PCID, 0 if flushed.
    by_pcid: Box<[u16; 4096]>,
    large: [LargeRange; 2],
    /// Context numbers have started afresh: see [`Tlb::take_recycled`].
    recycled: bool,
}

impl Default for Tlb {
    fn default() -> Self {
        let mut tlb = Tlb {
            entries: vec![Entry::default(); 4 * SIZE].into_boxed_slice().try_into().expect("length"),
            fetch: vec![Fetch::default(); 2 * FETCH_SIZE].into_boxed_slice().try_into().expect("length"),
            context: 0,
            base: 0,
            next_context: 1,
            by_pcid: vec![0u16; 4096].into_boxed_slice().try_into().expect("length"),
            large: [NO_RANGE; 2],
            recycled: false,
        };
        tlb.select(0, true);
        tlb
    }
}

impl Tlb {
    /// The tag a fast access to `la` must find.
    #[inline(always)]
    pub fn tag(&self, la: u64) -> u64 {
        la & PAGE_MASK | self.context
    }

    /// The current context's number.
    #[inline(always)]
    pub fn context(&self) -> u64 {
        self.context
    }

    /// Chooses the table for the rights in force (0, 1, 2), or [`NO_FAST_PATH`].
    #[inline(always)]
    pub fn set_rights(&mut self, rights: u8) {
        self.base = (rights as usize).min(3) * SIZE;
    }

    /// The entry for `la` with the rights in force.
    #[inline(always)]
    pub fn entry(&self, la: u64) -> &Entry {
        // `base` is a multiple of SIZE below 4 * SIZE; the mask tells the compiler.
        &self.entries[(self.base | (la >> 12) as usize & (SIZE - 1)) & (4 * SIZE - 1)]
    }

    /// The entry for `la` with given rights.
    pub fn entry_mut(&mut self, la: u64, rights: u8) -> &mut Entry {
        &mut self.entries[(rights as usize).min(2) * SIZE + ((la >> 12) as usize & (SIZE - 1))]
    }

    /// Physical page of a fetch translation.
    #[inline]
    pub fn fetch(&self, la: u64, user: bool) -> Option<u64> {
        let entry = &self.fetch[usize::from(user) * FETCH_SIZE + ((la >> 12) as usize & (FETCH_SIZE - 1))];
        (entry.tag == self.tag(la)).then_some(entry.gpa)
    }

    /// Enters a fetch translation.
    pub fn fill_fetch(&mut self, la: u64, user: bool, gpa: u64) {
        let tag = self.tag(la);
        self.fetch[usize::from(user) * FETCH_SIZE + ((la >> 12) as usize & (FETCH_SIZE - 1))] =
            Fetch { tag, gpa: gpa & PAGE_MASK };
    }

    /// Notes that `la` is mapped by a large page, of which more entries may follow.
    pub fn note_large(&mut self, la: u64) {
        let range = &mut self.large[(la >> 63) as usize];
        // 1 GiB around covers either size of large page.
        range.first = range.first.min(la & !0x3fff_ffff);
        range.last = range.last.max(la | 0x3fff_ffff);
    }

    /// INVLPG: forgets the page of `la` in every address space. True if all
    /// was forgotten, because a large page may be concerned.
    pub fn invalidate_page(&mut self, la: u64) -> bool {
        let range = self.large[(la >> 63) as usize];
        if (range.first..=range.last).contains(&la) {
            self.flush_all();
            return true;
        }
        let slot = (la >> 12) as usize & (SIZE - 1);
        for table in 0..3 {
            let entry = &mut self.entries[table * SIZE + slot];
            if (entry.read ^ la) & PAGE_MASK == 0 || (entry.write ^ la) & PAGE_MASK == 0 {
                *entry = Entry::default();
            }
        }
        let slot = (la >> 12) as usize & (FETCH_SIZE - 1);
        for table in 0..2 {
            let entry = &mut self.fetch[table * FETCH_SIZE + slot];
            if (entry.tag ^ la) & PAGE_MASK == 0 {
                *entry = Fetch::default();
            }
        }
        false
    }

    /// Makes `pcid` the current address space, forgetting its translations if `flush`.
    pub fn select(&mut self, pcid: u16, flush: bool) {
        let pcid = usize::from(pcid & 0xfff);
        if flush || self.by_pcid[pcid] == 0 {
            self.by_pcid[pcid] = self.new_context();
        }
        self.context = u64::from(self.by_pcid[pcid]);
    }

    /// Makes a context without translations the current one, for enclave mode;
    /// [`Tlb::select`] leaves it for good.
    pub fn select_enclave(&mut self) {
        self.context = u64::from(self.new_context());
    }

    /// Forgets the data translations of the current context to host addresses
    /// for which `gone` holds.
    pub fn drop_hosts(&mut self, gone: impl Fn(*const u8) -> bool) {
        let context = self.context;
        for entry in self.entries.iter_mut() {
            let host = entry.addend.wrapping_add(entry.read & PAGE_MASK);
            if entry.addend != 0 && entry.read & !PAGE_MASK & !SLOW == context && gone(host as *const u8) {
                *entry = Entry::default();
            }
        }
    }

    /// Forgets the translations of `pcid`, current or not.
    pub fn flush_pcid(&mut self, pcid: u16, current: u16) {
        self.by_pcid[usize::from(pcid & 0xfff)] = 0;
        self.select(current, false);
    }

    /// Forgets everything; `current` stays the address space.
    pub fn flush_all(&mut self) {
        let current = self.by_pcid.iter().position(|&c| u64::from(c) == self.context).unwrap_or(0);
        self.by_pcid.fill(0);
        self.large = [NO_RANGE; 2];
        self.select(current as u16, true);
    }

    /// True once after numbers of contexts have come into use again: what
    /// others keep by them is void.
    pub fn take_recycled(&mut self) -> bool {
        std::mem::take(&mut self.recycled)
    }

    fn new_context(&mut self) -> u16 {
        if self.next_context == CONTEXTS {
            self.entries.fill(Entry::default());
            self.fetch.fill(Fetch::default());
            self.by_pcid.fill(0);
            self.large = [NO_RANGE; 2];
            self.next_context = 1;
            self.recycled = true;
        }
        let context = self.next_context;
        self.next_context += 1;
        context as u16
    }

    /// Takes away the fast path of writes to pages for which `slow(gpa)` holds.
    pub fn slow_writes(&mut self, slow: impl Fn(u64) -> bool) {
        for entry in self.entries.iter_mut() {
            if entry.write != 0 && entry.write & SLOW == 0 && slow(entry.gpa) {
                entry.write |= SLOW;
            }
        }
    }
}
