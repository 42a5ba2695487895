//! Calls into the enclave, and out of it.

use core::sync::atomic::{AtomicBool, Ordering};

use alloc::vec::Vec;

use enclave_abi::call::{Configuration, FAILED, Outcome, function};
use enclave_interface::DispatchError;
use zerocopy::FromBytes;

use crate::boundary::{Message, TakeError, Window};
use crate::host::HostError;
use crate::{abort, entry, heap, mailbox, test, thread};

unsafe extern "Rust" {
    /// The program's interface; see [`crate::serve`].
    safe fn enclave_dispatch(function: u32, arguments: &[u8]) -> Result<Vec<u8>, DispatchError>;
}

/// Whether the enclave was configured.
static CONFIGURED: AtomicBool = AtomicBool::new(false);

/// What the entry code calls for [`enclave_abi::call::Command::Call`].
pub(crate) extern "C" fn called(exchange: u64, capacity: u64) {
    let window = Window::new(exchange, capacity);
    thread::set_window(window);
    // without a window there is nobody to answer
    let Some(window) = window else { return };
    if abort::is_dead() {
        return window.say(Outcome::Aborted);
    }
    let exchange = window.exchange();
    let result = window.message(&exchange).map_err(Outcome::from);
    let result = result.and_then(|message| dispatch(exchange.function, message.bytes()));
    // the host may have returned from a call with another window
    let Some(window) = thread::window() else { return };
    if abort::is_dead() {
        return window.say(Outcome::Aborted);
    }
    match result {
        Ok(result) => {
            if window.put(Outcome::Done, exchange.function, &result).is_err() {
                window.say(Outcome::TooLarge);
            }
        }
        Err(outcome) => window.say(outcome),
    }
}

impl From<TakeError> for Outcome {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::TooLarge => Self::TooLarge,
            TakeError::NoMemory => Self::NoMemory,
        }
    }
}

fn dispatch(number: u32, arguments: &[u8]) -> Result<Vec<u8>, Outcome> {
    match number {
        function::CONFIGURE => configure(arguments),
        // who is here was let in by the loader, or has none
        function::UNLOCK | function::ACCEPT => Err(Outcome::AlreadyUnlocked),
        function::TESTS.. => test::dispatch(number, arguments),
        _ => enclave_dispatch(number, arguments).map_err(|error| match error {
            DispatchError::NoFunction => Outcome::NoFunction,
            DispatchError::Arguments => Outcome::BadArguments,
            // nothing that a program can go on with
            DispatchError::Result => panic!("a result cannot be encoded"),
        }),
    }
}

/// Takes the host's word for what there is: of a false one it has nothing but an exception.
fn configure(arguments: &[u8]) -> Result<Vec<u8>, Outcome> {
    let told = Configuration::read_from_bytes(arguments).map_err(|_| Outcome::BadArguments)?;
    if CONFIGURED.swap(true, Ordering::AcqRel) {
        return Err(Outcome::NoFunction);
    }
    if told.sgx2 == 1 {
        heap::allow_growth();
    }
    mailbox::configure(&told);
    Ok(Vec::new())
}

/// Calls a function of the host's.
pub(crate) fn call_host(function: u32, arguments: &[u8]) -> Result<Message, HostError> {
    assert!(!thread::handling(), "a handler of exceptions calls the host");
    if abort::is_dead() {
        abort::end();
    }
    let Some(window) = thread::window() else { abort::end() };
    window.put(Outcome::Ocall, function, arguments).map_err(|_| HostError::TooLarge)?;
    // SAFETY: not in the handler, and the entry code keeps this thread's stack.
    let passed = unsafe { entry::enclave_leave() };
    let window = Window::new(passed.exchange, passed.capacity);
    thread::set_window(window);
    if abort::is_dead() {
        abort::end();
    }
    // no place for results, now or later: the thread cannot go on
    let Some(window) = window else { abort::end() };
    result(window)
}

/// The result that the host has put into a window.
pub(crate) fn result(window: Window) -> Result<Message, HostError> {
    let exchange = window.exchange();
    match exchange.code {
        0 => window.message(&exchange).map_err(|error| match error {
            TakeError::TooLarge => HostError::Invalid,
            TakeError::NoMemory => HostError::NoMemory,
        }),
        FAILED => Err(HostError::Failed),
        _ => Err(HostError::Invalid),
    }
}
