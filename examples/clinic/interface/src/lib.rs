//! What host and enclave of the clinic agree on: both are built from this.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use enclave_interface::{Deserialize, Serialize, interface};

/// What the enclave does for its host.
#[interface]
pub trait Clinic {
    /// Makes a key for TLS, and a report (REPORT) that binds it, for the enclave that
    /// `target` describes (TARGETINFO): the quoting enclave of this machine.
    fn report(&self, target: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// Makes the certificate, with a quote of that report.
    fn certify(&self, quote: &[u8]) -> Result<(), Refusal>;

    /// Begins with a client; one that was there before is forgotten.
    fn accept(&self) -> Result<(), Refusal>;

    /// Bytes of the client's connection in and out. In TLS it sends a key of records
    /// (`clinic_records::gift`), which the enclave keeps and confirms.
    fn exchange(&self, bytes: &[u8]) -> Result<Exchanged, Refusal>;

    /// The key of records, sealed for this enclave on this processor.
    fn seal(&self) -> Result<Vec<u8>, Refusal>;

    /// Takes the key of records out of that again.
    fn unseal(&self, sealed: &[u8]) -> Result<(), Refusal>;

    /// Takes a chunk of records; the first, 0, begins anew.
    fn records(&self, number: u32, last: bool, chunk: &[u8]) -> Result<(), Refusal>;

    /// The table of all records, encrypted under their key.
    fn results(&self) -> Result<Vec<u8>, Refusal>;
}

/// What has become of a client's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Exchanged {
    /// Bytes for the client.
    pub out: Vec<u8>,
    /// Whether there is no more to come or to go.
    pub over: bool,
    /// Whether it has given a key.
    pub kept: bool,
}

/// Why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// What is to describe an enclave does not.
    Target,
    /// There is no key of TLS, no certificate or no client yet.
    Order,
    /// TLS does not go on, the quote is not for its key, or there are no random numbers.
    Failed(String),
    /// There is no key of records: no client has given one.
    NoKey,
    /// What is sealed is of another enclave or processor, or was changed.
    Sealed,
    /// It is of a later version of the enclave, or of the processor.
    Later,
    /// Another chunk was expected.
    Expected(u32),
    /// The chunk was changed, or is another one than it is said to be.
    Forged,
    /// A line is no record.
    Record {
        /// The line in its chunk, from 1.
        line: u32,
        /// What is wrong with it.
        why: String,
    },
    /// Records are missing.
    Incomplete,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Target => f.write_str("this does not describe an enclave: TARGETINFO has 512 bytes"),
            Self::Order => f.write_str("there is no key, certificate or client yet: report, certify, accept"),
            Self::Failed(why) => f.write_str(why),
            Self::NoKey => f.write_str("there is no key of records: no client has given one"),
            Self::Sealed => f.write_str("what is sealed is of another enclave or processor, or was changed"),
            Self::Later => f.write_str("a later version of the enclave or the processor has sealed it"),
            Self::Expected(number) => write!(f, "chunk {number} was expected"),
            Self::Forged => f.write_str("the chunk was changed, or is another one than it is said to be"),
            Self::Record { line, why } => write!(f, "line {line} of the chunk: {why}"),
            Self::Incomplete => f.write_str("records are missing: the last chunk has not come"),
        }
    }
}

impl core::error::Error for Refusal {}
