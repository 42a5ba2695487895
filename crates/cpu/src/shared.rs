//! The part of a processor that other threads may touch: requests for its
//! attention, its inbox of code-map news, and the machine's bus lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use mem::CodeListener;

/// Reasons to leave the block loop; bits of [`Shared::pending`].
pub mod request {
    /// The local APIC may have an interrupt to deliver.
    pub const INTERRUPT: u32 = 1 << 0;
    /// A non-maskable interrupt.
    pub const NMI: u32 = 1 << 1;
    /// INIT.
    pub const INIT: u32 = 1 << 2;
    /// Start-up interrupt; its vector is in [`super::Shared::sipi_vector`].
    pub const SIPI: u32 = 1 << 3;
    /// Code was written or appeared: see to the inbox.
    pub const CODE: u32 = 1 << 4;
    /// The machine wants the processor back (pause, stop).
    pub const EXIT: u32 = 1 << 5;
    /// An interrupt from the external controller (ExtINT).
    pub const EXT_INT: u32 = 1 << 6;
}

/// The shared part of one processor.
#[derive(Debug)]
pub struct Shared {
    /// Bits of [`request`].
    pub pending: AtomicU32,
    /// Vector of the start-up interrupt: the processor starts at `vector << 12`.
    pub sipi_vector: AtomicU32,
    /// Granules written, by page.
    written: Mutex<Vec<(u64, u32)>>,
    /// True while the processor waits and so executes nothing.
    idle: AtomicBool,
    /// Code-map epoch up to which announcements have been dealt with.
    seen: AtomicU64,
    /// Instructions retired, published now and then.
    pub retired: AtomicU64,
    wake: (Mutex<()>, Condvar),
    bus: Arc<Mutex<()>>,
    peers: OnceLock<Arc<[Arc<Shared>]>>,
}

impl Shared {
    /// The shared part of a processor on a machine whose processors share `bus`.
    pub fn new(bus: Arc<Mutex<()>>) -> Self {
        Self {
            pending: AtomicU32::new(0),
            sipi_vector: AtomicU32::new(0),
            written: Mutex::default(),
            idle: AtomicBool::new(true),
            seen: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            wake: Default::default(),
            bus,
            peers: OnceLock::new(),
        }
    }

    /// Names all processors of the machine, this one included, by number; once.
    pub fn set_peers(&self, peers: Arc<[Arc<Shared>]>) {
        let _ = self.peers.set(peers);
    }

    /// All processors of the machine, by number.
    pub fn peers(&self) -> &[Arc<Shared>] {
        self.peers.get().map_or(&[], |peers| peers)
    }

    /// Asks for attention, waking the processor if it waits.
    pub fn request(&self, bits: u32) {
        if self.pending.fetch_or(bits, Ordering::SeqCst) & bits != bits {
            let _guard = lock(&self.wake.0);
            self.wake.1.notify_all();
        }
    }

    /// Waits until some request in `mask` is pending, or for `timeout`.
    pub fn wait(&self, mask: u32, timeout: Option<Duration>) {
        self.idle.store(true, Ordering::SeqCst);
        let guard = lock(&self.wake.0);
        let idle = |_: &mut ()| self.pending.load(Ordering::SeqCst) & mask == 0;
        match timeout {
            Some(timeout) => drop(self.wake.1.wait_timeout_while(guard, timeout, idle)),
            None => drop(self.wake.1.wait_while(guard, idle)),
        }
        self.idle.store(false, Ordering::SeqCst);
    }

    /// Says whether the processor executes; while it does not, it need not
    /// answer announcements.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    /// True once announcements up to `epoch` cannot be missed any more.
    pub(crate) fn has_seen(&self, epoch: u64) -> bool {
        self.seen.load(Ordering::SeqCst) >= epoch || self.idle.load(Ordering::SeqCst)
    }

    pub(crate) fn set_seen(&self, epoch: u64) {
        self.seen.fetch_max(epoch, Ordering::SeqCst);
    }

    pub(crate) fn take_written(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *lock(&self.written))
    }

    /// Holds the machine's bus lock, for locked accesses that no single host
    /// instruction performs.
    pub(crate) fn bus_lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.bus)
    }
}

impl CodeListener for Shared {
    fn code_written(&self, page: u64, granules: u32) {
        lock(&self.written).push((page, granules));
        self.request(request::CODE);
    }
    fn code_appeared(&self, _page: u64) {
        self.request(request::CODE);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these plain values usable.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
