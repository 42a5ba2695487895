//! The boundary.
//!
//! The host enters with EENTER and these registers; everything else is ignored and
//! overwritten.
//!
//! | register | |
//! |---|---|
//! | RDI | a [`Command`] |
//! | RSI | address of an [`Exchange`], outside the enclave, aligned to 8 |
//! | RDX | bytes that follow it for messages, a multiple of 8 |
//!
//! The enclave leaves with EEXIT and all registers cleared; what it says is in the
//! exchange. It reads each byte of the exchange once, into its own memory, before it
//! looks at any.
//!
//! A thread (TCS) is at rest, or waits for the return of a call that it made to the
//! host. At rest only [`Command::Call`] is accepted, waiting only [`Command::Return`],
//! and [`Command::Exception`] only while an exception lies in the thread's first SSA
//! frame. Anything else is refused: the enclave leaves at once and writes nothing, so that
//! the code that the host has put into the exchange is still there.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the host wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Command {
    /// That the function of the exchange be called.
    Call = 0,
    /// To return from the call that the enclave made.
    Return = 1,
    /// That the enclave look at the exception with which it left.
    Exception = 2,
}

/// Head of the memory by which host and enclave talk; the message follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Exchange {
    /// What the enclave says: see [`Outcome::from_code`]. The host's: zero, or for a
    /// return whether the function failed ([`FAILED`]).
    pub code: u32,
    /// Function to be called: of the interface, or one of [`function`].
    pub function: u32,
    /// Bytes of the message.
    pub length: u64,
    /// Zero.
    pub reserved: [u64; 6],
}

/// Bytes of an [`Exchange`].
pub const EXCHANGE_SIZE: u64 = size_of::<Exchange>() as u64;

/// [`Exchange::code`] of a return from a function that the host does not have, or whose
/// arguments it could not decode.
pub const FAILED: u32 = 1;

/// How the enclave left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// The function was called; the message is its result.
    Done = 1,
    /// The enclave calls the host's function; the message has the arguments.
    Ocall = 2,
    /// The exception was handled: the host continues with ERESUME.
    Resume = 3,
    /// The exception was not handled; the thread is lost.
    Unhandled = 4,
    /// The enclave has ended for good; in debug enclaves the message says why.
    Aborted = 5,
    /// There is no such function.
    NoFunction = 6,
    /// The arguments are no valid message.
    BadArguments = 7,
    /// The message does not fit the exchange: the result, or the arguments as announced.
    TooLarge = 8,
    /// The enclave has no memory for the message.
    NoMemory = 9,
    /// The enclave is encrypted and waits for its key: [`function::UNLOCK`].
    Locked = 10,
    /// The key is not the one that the enclave was encrypted with; or, sealed, was not sealed
    /// by this enclave on this processor.
    WrongKey = 11,
    /// The key is right and the ciphertext is not: the enclave can never be opened.
    Damaged = 12,
    /// The processor does not say that the host has restricted the pages: they are as
    /// before, and can be restricted and accepted again.
    NotRestricted = 13,
    /// The enclave is not encrypted, or unlocked already.
    AlreadyUnlocked = 14,
}

impl Outcome {
    /// The outcome with this code; `None` if there is none.
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Done,
            2 => Self::Ocall,
            3 => Self::Resume,
            4 => Self::Unhandled,
            5 => Self::Aborted,
            6 => Self::NoFunction,
            7 => Self::BadArguments,
            8 => Self::TooLarge,
            9 => Self::NoMemory,
            10 => Self::Locked,
            11 => Self::WrongKey,
            12 => Self::Damaged,
            13 => Self::NotRestricted,
            14 => Self::AlreadyUnlocked,
            _ => return None,
        })
    }
}

/// What the host tells the enclave of itself. All of it is a hint: an enclave that was
/// told wrongly faults or waits, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Configuration {
    /// 1 if the processor has SGX2, else 0.
    pub sgx2: u64,
    /// Address of the first mailbox, aligned to 8.
    pub mailboxes: u64,
    /// Number of mailboxes, at most [`mailbox::MAX`]; 0 for none.
    pub mailbox_count: u64,
    /// Bytes of a mailbox, a multiple of 8.
    pub mailbox_size: u64,
}

/// Calls to the host without leaving: memory of the host's that its threads watch.
///
/// A mailbox is a state in 8 bytes, then an [`Exchange`] and room for a message, as at a
/// call that leaves. The enclave writes the request and sets [`REQUESTED`](mailbox::REQUESTED);
/// a thread of the host's sets [`TAKEN`](mailbox::TAKEN), does the work, writes the result
/// and sets [`DONE`](mailbox::DONE). As long as nobody has taken it, the enclave may take
/// it back, by setting [`FREE`](mailbox::FREE), and leave instead.
pub mod mailbox {
    /// Most mailboxes.
    pub const MAX: u64 = 64;
    /// Bytes of the state.
    pub const STATE_SIZE: u64 = 8;
    /// Nobody's.
    pub const FREE: u64 = 0;
    /// A request is there.
    pub const REQUESTED: u64 = 1;
    /// The host works on it.
    pub const TAKEN: u64 = 2;
    /// The result is there.
    pub const DONE: u64 = 3;
}

/// Functions that every enclave and host have; those of an interface count from zero.
pub mod function {
    /// First number that no interface uses.
    pub const RESERVED: u32 = 0x8000_0000;
    /// Of the enclave: a [`super::Configuration`]. Optional, once.
    pub const CONFIGURE: u32 = RESERVED;
    /// Of the enclave, built for tests: names of the tests, each ending with a line feed;
    /// those that are to panic have a `!` before.
    pub const TESTS: u32 = RESERVED + 1;
    /// Of the enclave, built for tests: runs the test whose name is the message.
    pub const TEST: u32 = RESERVED + 2;
    /// Of an encrypted enclave: a [`crate::encrypted::Unlock`]; its result is a
    /// [`crate::encrypted::Unlocked`].
    pub const UNLOCK: u32 = RESERVED + 3;
    /// Of an encrypted enclave: accepts that its pages were restricted; no message.
    pub const ACCEPT: u32 = RESERVED + 4;
    /// Of the host: seconds (8 bytes) and nanoseconds (4) since 1970.
    pub const TIME: u32 = RESERVED + 16;
    /// Of the host: waits until thread of the 8 bytes' number is woken, or was before.
    pub const PARK: u32 = RESERVED + 17;
    /// Of the host: wakes the thread of the 8 bytes' number.
    pub const WAKE: u32 = RESERVED + 18;
    /// Of the host: UTF-8 text for its user; only debug enclaves call it.
    pub const PRINT: u32 = RESERVED + 19;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_by_code() {
        for code in 0..64 {
            assert_eq!(Outcome::from_code(code).map(|o| o as u32), (1..=14).contains(&code).then_some(code));
        }
        assert_eq!(EXCHANGE_SIZE, 64);
    }
}
