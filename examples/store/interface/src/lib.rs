//! What the store does for its host, what it needs of it, and how it talks with its
//! [`counter`].
#![no_std]

extern crate alloc;

pub mod counter;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use enclave_interface::{Deserialize, Serialize, interface};

/// The store's files, by their numbers.
pub const FILES: [&str; 4] = ["head-a", "head-b", "log-a", "log-b"];

/// A store that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Opened {
    /// Commits so far.
    pub commits: u64,
    /// Public key of the counter that it believes.
    pub counter: Vec<u8>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// The counter's public key is none.
    Counter,
    /// The key was sealed by another signer's enclave or on another processor, or was changed.
    Key,
    /// No store is open.
    Closed,
    /// The store's own reason.
    Store(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counter => f.write_str(
                "the counter's key is no point of P-256: take it from the counter's file `public`",
            ),
            Self::Key => f.write_str("the store's key is of another machine or signer, or was changed"),
            Self::Closed => f.write_str("no store is open: open it first"),
            Self::Store(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Refusal {}

/// The enclave's functions.
#[interface]
pub trait Shelf {
    /// Makes a store; `counter` is the public key (SEC1) of the counter that it believes, for
    /// ever. What its host keeps: the store's key and the counter's, sealed.
    fn create(&self, counter: &[u8]) -> Result<Vec<u8>, Refusal>;
    /// Opens it.
    fn open(&self, sealed: &[u8]) -> Result<Opened, Refusal>;
    /// Gives a key a value.
    fn put(&self, key: &str, value: &str) -> Result<(), Refusal>;
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<String>, Refusal>;
    /// Takes a key out.
    fn remove(&self, key: &str) -> Result<(), Refusal>;
    /// All keys, in order.
    fn keys(&self) -> Result<Vec<String>, Refusal>;
}

/// What the enclave needs of its host; `None` and `false` if that failed. Files are numbers
/// of [`FILES`].
#[interface]
pub trait Outside {
    /// Bytes of a file; 0 if there is none.
    fn len(&self, file: u8) -> Option<u64>;
    /// Bytes of a file, from an offset.
    fn read(&self, file: u8, at: u64, len: u32) -> Option<Vec<u8>>;
    /// Writes into a file, and to the medium.
    fn write(&self, file: u8, at: u64, bytes: &[u8]) -> bool;
    /// Cuts a file.
    fn truncate(&self, file: u8, len: u64) -> bool;
    /// Passes a [`counter::Request`] on; the [`counter::Answer`].
    fn count(&self, request: &[u8]) -> Option<Vec<u8>>;
}
