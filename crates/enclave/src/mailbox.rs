//! Calls to the host without leaving: see [`enclave_abi::call::mailbox`].
//!
//! Which mailbox is in use is decided here; what the host writes into a state makes a call
//! come back late, or never, and its result is checked as that of any other call.

use core::sync::atomic::{AtomicU64, Ordering};

use enclave_abi::call::mailbox::{DONE, FREE, MAX, REQUESTED, STATE_SIZE};
use enclave_abi::call::{Configuration, EXCHANGE_SIZE, Outcome};

use crate::boundary::{Message, Window};
use crate::host::HostError;
use crate::{abort, call, thread};

/// Looks at the state until the request is taken back.
const PATIENCE: usize = 2000;

/// Address of the first mailbox, their size, and their number, which is set last.
static FIRST: AtomicU64 = AtomicU64::new(0);
static SIZE: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Mailboxes in use, by bits.
static USED: AtomicU64 = AtomicU64::new(0);

/// Takes over what the host has told, once.
pub(crate) fn configure(told: &Configuration) {
    let fits = told.mailbox_count <= MAX && told.mailbox_size >= STATE_SIZE + EXCHANGE_SIZE;
    if told.mailbox_count == 0 || !fits {
        return;
    }
    FIRST.store(told.mailboxes, Ordering::Relaxed);
    SIZE.store(told.mailbox_size, Ordering::Relaxed);
    COUNT.store(told.mailbox_count, Ordering::Release);
}

/// Calls a function of the host's; `None` if that has to be done by leaving.
pub(crate) fn call(function: u32, arguments: &[u8]) -> Option<Result<Message, HostError>> {
    assert!(!thread::handling(), "a handler of exceptions calls the host");
    let count = COUNT.load(Ordering::Acquire);
    let mailbox = (0..count).find_map(Mailbox::take)?;
    if arguments.len() as u64 > mailbox.window.capacity() {
        return None;
    }
    // it fits
    mailbox.window.put(Outcome::Ocall, function, arguments).ok()?;
    let state = mailbox.state();
    state.store(REQUESTED, Ordering::Release);
    for _ in 0..PATIENCE {
        if state.load(Ordering::Acquire) != REQUESTED {
            break;
        }
        core::hint::spin_loop();
    }
    if state.compare_exchange(REQUESTED, FREE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        return None;
    }
    while state.load(Ordering::Acquire) != DONE {
        if abort::is_dead() {
            abort::end();
        }
        core::hint::spin_loop();
    }
    let result = call::result(mailbox.window);
    state.store(FREE, Ordering::Release);
    Some(result)
}

/// A mailbox that is this thread's until it is dropped.
struct Mailbox {
    number: u64,
    state: u64,
    window: Window,
}

impl Mailbox {
    /// The mailbox of this number, if it is nobody's and lies outside the enclave.
    fn take(number: u64) -> Option<Self> {
        let bit = 1 << number;
        if USED.fetch_or(bit, Ordering::Acquire) & bit != 0 {
            return None;
        }
        let size = SIZE.load(Ordering::Relaxed);
        let state = number.checked_mul(size).and_then(|at| at.checked_add(FIRST.load(Ordering::Relaxed)));
        let mailbox = state.and_then(|state| {
            let exchange = state.checked_add(STATE_SIZE)?;
            let window = Window::new(exchange, size - STATE_SIZE - EXCHANGE_SIZE)?;
            // the state is right before it: outside too, but for an enclave that ends there
            Window::new(state, 0)?;
            Some(Self { number, state, window })
        });
        if mailbox.is_none() {
            USED.fetch_and(!bit, Ordering::Release);
        }
        mailbox
    }

    fn state(&self) -> &AtomicU64 {
        // SAFETY: 8 aligned bytes of the host's, as `take` has checked, which both sides
        // use as an atomic; nothing is derived from their value but when to go on.
        unsafe { &*(self.state as *const AtomicU64) }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        USED.fetch_and(!(1 << self.number), Ordering::Release);
    }
}
