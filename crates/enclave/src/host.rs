//! Calls to the host. Whatever comes of them is the host's word.

use core::time::Duration;

use alloc::vec::Vec;

use enclave_abi::call::function;
use enclave_interface::Caller;

use crate::{call, mailbox, report};

/// Carries an interface's calls to the host: `MyHostClient(enclave::host::Host)`.
#[derive(Clone, Copy, Debug)]
pub struct Host;

/// The same without leaving the enclave, if the host has threads that watch for it
/// (`enclave_host::Options::switchless`), and one is free; else as [`Host`]. For short
/// calls that are made often: the thread waits at work.
#[derive(Clone, Copy, Debug)]
pub struct Switchless;

/// Why the host gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// It has no such function, could not read the arguments, or its result exceeds its
    /// limit for messages.
    Failed,
    /// The arguments exceed the memory that it has provided for messages.
    TooLarge,
    /// The result exceeds it, or its kind is unknown.
    Invalid,
    /// The enclave has no memory for the result.
    NoMemory,
}

impl core::fmt::Display for HostError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Failed => "the host has no such function, or a result beyond its limit for messages",
            Self::TooLarge => "the arguments exceed the host's limit for messages: raise it there",
            Self::Invalid => "the host's result is invalid",
            Self::NoMemory => "the enclave has no memory for the result: give it more heap",
        })
    }
}

impl core::error::Error for HostError {}

impl Caller for Host {
    type Error = HostError;

    fn call(&self, number: u32, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
        if number >= function::RESERVED {
            return Err(HostError::Failed);
        }
        call::call_host(number, arguments).map(|message| message.bytes().to_vec())
    }
}

impl Caller for Switchless {
    type Error = HostError;

    fn call(&self, number: u32, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
        if number >= function::RESERVED {
            return Err(HostError::Failed);
        }
        match mailbox::call(number, arguments) {
            Some(result) => result.map(|message| message.bytes().to_vec()),
            None => Host.call(number, arguments),
        }
    }
}

/// The time since 1970 by the host's clock, which the host sets as it likes: back, ahead,
/// or at rest. `None` if it does not tell.
pub fn untrusted_time() -> Option<Duration> {
    let message = call::call_host(function::TIME, &[]).ok()?;
    let (seconds, rest) = message.bytes().split_first_chunk()?;
    let nanoseconds = u32::from_le_bytes(rest.try_into().ok()?);
    (nanoseconds < 1_000_000_000).then(|| Duration::new(u64::from_le_bytes(*seconds), nanoseconds))
}

/// Waits until [`wake`] of this thread's number, or until the host feels like it.
pub(crate) fn park(thread: u32) {
    // without the host's help this is a busy wait
    let _ = call::call_host(function::PARK, &u64::from(thread).to_le_bytes());
}

/// Ends the wait of a thread, or its next one.
pub(crate) fn wake(thread: u32) {
    // a host that does not, lets the thread wait for ever: that it can do anyway
    let _ = call::call_host(function::WAKE, &u64::from(thread).to_le_bytes());
}

/// Has the host print text; what [`crate::println`] calls.
#[doc(hidden)]
pub fn print(text: &str) {
    if report::is_debug() {
        // a host that prints nothing is not an error
        let _ = call::call_host(function::PRINT, text.as_bytes());
    }
}

/// Prints a line, of debug enclaves only: in others the text is not even made.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        if $crate::report::is_debug() {
            $crate::host::print(&$crate::format!($($argument)*));
        }
    };
}
