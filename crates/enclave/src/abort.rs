//! The end of an enclave.

use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use enclave_abi::call::Outcome;

use crate::{entry, report, thread};

/// Set once, for good.
static DEAD: AtomicBool = AtomicBool::new(false);

/// True after a panic or an unhandled exception, on whatever thread.
pub(crate) fn is_dead() -> bool {
    DEAD.load(Ordering::Acquire)
}

/// Ends the enclave: no thread is served any more.
pub(crate) fn die() {
    DEAD.store(true, Ordering::Release);
}

/// Ends this thread, and the enclave with it.
pub(crate) fn end() -> ! {
    die();
    if let Some(window) = thread::window() {
        window.say(Outcome::Aborted);
    }
    // SAFETY: the enclave is dead; nothing relies on this thread any more.
    unsafe { entry::enclave_end() }
}

/// What the program's panic handler calls. Only a debug enclave says why.
pub fn panicked(info: &PanicInfo<'_>) -> ! {
    if DEAD.swap(true, Ordering::AcqRel) || !report::is_debug() {
        end();
    }
    let mut text = Text::new();
    // the text may be cut
    let _ = write!(text, "{info}");
    if let Some(window) = thread::window() {
        let _ = window.put(Outcome::Aborted, 0, text.bytes());
    }
    // SAFETY: as in `end`.
    unsafe { entry::enclave_end() }
}

/// A line of text on the stack: what panics must not use the heap.
pub(crate) struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Text {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; 512], len: 0 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
