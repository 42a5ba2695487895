//! A store of keys and values for enclaves, on files that somebody else keeps.
//!
//! ```
//! # use enclave_store::{Change, Key, Limits, NoCounter, Store, testing::Memory};
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! # let (storage, key) = (Memory::new(), || Key::new([7; 32]));
//! let mut store = Store::create(&storage, NoCounter, key(), b"patients", Limits::default())?;
//! store.put(b"ada", b"0 negative")?;
//! store.commit(&[Change::Put(b"bob", b"A positive"), Change::Remove(b"ada")])?;
//!
//! let store = Store::open(&storage, NoCounter, key(), b"patients", Limits::default())?;
//! assert_eq!(store.get(b"bob")?.unwrap().as_slice(), b"A positive");
//! assert_eq!(store.get(b"ada")?, None);
//! # Ok(())
//! # }
//! ```
//!
//! **What the keeper of the files learns**: how many records there are, how long they are
//! and which are read. **What it can do**: lose everything, or keep it back. What it cannot
//! do unnoticed is change anything: bytes, records, their order, their number, records or
//! files of another time or another store.
//!
//! **Except one thing.** All files together as they were at an earlier time are a store as
//! good as the present one; so are two copies that went on from one state, each its own way.
//! To see that takes a number that the keeper cannot turn back, and which state it is of: a
//! [`Counter`]. With [`NoCounter`] a store that is opened may be an old one.
//!
//! # Files
//!
//! ```text
//! log-a, log-b    records, one after the other; one of the two is in use
//! head-a, head-b  twice the same: which log, how many bytes of it, the hash of their tags
//! ```
//!
//! A commit is appended to the log, then stated in the heads, one after the other, then
//! counted. So after a crash there is at least one whole head, of the state before the
//! commit or after it; bytes of the log beyond the head were never committed. When more of
//! the log is dead than alive, what is alive is written to the other one.
//!
//! Every record is sealed by AES-256-GCM with a random nonce, for its place in this log of
//! this store; so are the heads. One key is good for 2³² of both: two heads for each commit.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cipher;
mod error;
mod head;
mod record;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use cipher::Key;
pub use error::{Damage, Error};
pub use store::{Change, Limits, Store};

/// Number of a store, random: what a [`Counter`] knows it by.
pub type StoreId = [u8; 16];

/// A file of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// Which state is the present one.
    HeadA,
    /// The same again.
    HeadB,
    /// Records, of generations with even numbers.
    LogA,
    /// Records, of generations with odd numbers.
    LogB,
}

impl File {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::HeadA, Self::HeadB, Self::LogA, Self::LogB];

    /// Its name in a folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadA => "head-a",
            Self::HeadB => "head-b",
            Self::LogA => "log-a",
            Self::LogB => "log-b",
        }
    }
}

/// Where the files of a store are. Nothing that it says is believed.
pub trait Storage {
    /// Why it did not do its work.
    type Error;

    /// Bytes of a file; 0 if there is none.
    fn len(&self, file: File) -> Result<u64, Self::Error>;
    /// So many bytes of a file, from an offset; fewer are taken as damage.
    fn read(&self, file: File, at: u64, len: usize) -> Result<alloc::vec::Vec<u8>, Self::Error>;
    /// Writes over a file, and beyond its end; there is one afterwards. Returns when it will
    /// outlast a loss of power.
    fn write(&self, file: File, at: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Cuts a file to this many bytes, at most what it has.
    fn truncate(&self, file: File, len: u64) -> Result<(), Self::Error>;
}

/// What a counter has of a store.
///
/// The number alone would not do: of two copies that go on from one state, the one whose
/// commit is not counted has that number on its disk all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Commits.
    pub number: u64,
    /// The state that the last of them has made, by its hash; zeros if there was none.
    pub state: [u8; 32],
}

/// Numbers that the keeper of the files cannot turn back: of a party elsewhere, or of
/// hardware. It is up to the implementation that the answers come from there, and are of
/// now.
pub trait Counter {
    /// Why there is no answer.
    type Error;

    /// What was counted of a store last, the default if nothing was; `None` if nobody counts.
    fn current(&self, store: &StoreId) -> Result<Option<Counted>, Self::Error>;
    /// Counts on to `to`, if the number is one less; otherwise fails: somebody else has
    /// counted, and there are two stores of one past.
    fn advance(&self, store: &StoreId, to: &Counted) -> Result<(), Self::Error>;
}

/// Nobody counts: an old state is taken for the present one.
#[derive(Clone, Copy, Debug)]
pub struct NoCounter;

impl Counter for NoCounter {
    type Error = core::convert::Infallible;

    fn current(&self, _store: &StoreId) -> Result<Option<Counted>, Self::Error> {
        Ok(None)
    }

    fn advance(&self, _store: &StoreId, _to: &Counted) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl<S: Storage + ?Sized> Storage for &S {
    type Error = S::Error;

    fn len(&self, file: File) -> Result<u64, S::Error> {
        (**self).len(file)
    }

    fn read(&self, file: File, at: u64, len: usize) -> Result<alloc::vec::Vec<u8>, S::Error> {
        (**self).read(file, at, len)
    }

    fn write(&self, file: File, at: u64, bytes: &[u8]) -> Result<(), S::Error> {
        (**self).write(file, at, bytes)
    }

    fn truncate(&self, file: File, len: u64) -> Result<(), S::Error> {
        (**self).truncate(file, len)
    }
}

impl<C: Counter + ?Sized> Counter for &C {
    type Error = C::Error;

    fn current(&self, store: &StoreId) -> Result<Option<Counted>, C::Error> {
        (**self).current(store)
    }

    fn advance(&self, store: &StoreId, to: &Counted) -> Result<(), C::Error> {
        (**self).advance(store, to)
    }
}
