//! A thread's own page, at the base of GS while it is inside; the entry code's and ours.

use core::arch::asm;

use enclave_abi::Layout;
use sgx_abi::PAGE_SIZE;

use crate::boundary::Window;

/// The page's content. It is all zeros at the start (measured).
#[repr(C)]
pub(crate) struct Data {
    /// Its own address, from the first entry on.
    this: u64,
    /// One of [`state`].
    state: u64,
    /// Stack pointer while waiting.
    stack: u64,
    /// Where to leave to.
    exit: u64,
    /// Where to leave to from the handler of exceptions.
    handler_exit: u64,
    /// Whether the handler of exceptions runs: 0 or 1.
    pub(crate) handling: u64,
    /// The host's memory for messages of the last entry, checked; the handler's apart.
    pub(crate) windows: [Option<Window>; 2],
}

/// What a thread does. Entry code alone changes it.
pub(crate) mod state {
    /// Nothing: it waits to be called.
    pub(crate) const RESTING: u64 = 0;
    /// It is inside, or was when an exception or interrupt took it out.
    pub(crate) const RUNNING: u64 = 1;
    /// It waits for the host's return from a call.
    pub(crate) const WAITING: u64 = 2;
}

/// Offsets in [`Data`] for the entry code.
pub(crate) mod at {
    use core::mem::offset_of;

    use super::Data;

    pub(crate) const THIS: usize = offset_of!(Data, this);
    pub(crate) const STATE: usize = offset_of!(Data, state);
    pub(crate) const STACK: usize = offset_of!(Data, stack);
    pub(crate) const EXIT: usize = offset_of!(Data, exit);
    pub(crate) const HANDLER_EXIT: usize = offset_of!(Data, handler_exit);
    pub(crate) const HANDLING: usize = offset_of!(Data, handling);
}

const _: () = assert!(size_of::<Data>() <= PAGE_SIZE);

/// The data of the thread that runs.
pub(crate) fn data() -> *mut Data {
    let data: *mut Data;
    // SAFETY: GS is based at this thread's page, whose first word the entry code has set.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) data, const at::THIS, options(nostack, readonly, preserves_flags))
    };
    data
}

/// True while the handler of exceptions runs on this thread.
pub(crate) fn handling() -> bool {
    // SAFETY: the page is this thread's own, and no reference to it is held anywhere.
    unsafe { (*data()).handling != 0 }
}

/// The host's memory of the last entry.
pub(crate) fn window() -> Option<Window> {
    // SAFETY: as above.
    unsafe { (*data()).windows[usize::from((*data()).handling != 0)] }
}

/// Sets the host's memory at an entry.
pub(crate) fn set_window(window: Option<Window>) {
    // SAFETY: as above.
    unsafe { (*data()).windows[usize::from((*data()).handling != 0)] = window };
}

/// Number of the thread (of its TCS) that runs, from 0. The host chooses which thread
/// runs what.
pub fn thread_number() -> u32 {
    let layout = layout();
    let offset = data() as u64 - base() - layout.threads;
    (offset / layout.thread_stride) as u32
}

/// Where the enclave begins.
pub(crate) fn base() -> u64 {
    unsafe extern "C" {
        /// The ELF header: the first byte of the first page.
        static __ehdr_start: u8;
    }
    &raw const __ehdr_start as u64
}

/// The layout that the tool has filled in.
pub(crate) fn layout() -> Layout {
    // SAFETY: a static of that type. The compiler, which knows only what stands there
    // before the tool, must not look.
    unsafe { (&raw const ENCLAVE_LAYOUT).read_volatile() }
}

/// See [`enclave_abi::build`].
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".enclave.layout")]
static ENCLAVE_LAYOUT: Layout = Layout::BLANK;
