//! What parties, host and enclave of a study agree on: all three are built from this.
//!
//! * [`study`]: what is studied, by whom, and how it is told from others
//! * [`record`]: a line of the parties' records
//! * [`Payroll`]: what the enclave does; [`Office`]: what its host offers to the parties
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod record;
pub mod study;

use alloc::string::String;
use alloc::vec::Vec;

use enclave_channel::Sealed;
use enclave_interface::{Deserialize, Serialize, interface};
use record::BadRecord;
use study::{BadStudy, Description, Study};

/// What the enclave does for its host.
#[interface]
pub trait Payroll {
    /// Makes a key for a study; the sealed state, which the host keeps.
    fn create(&self, study: Study) -> Result<Vec<u8>, Refusal>;

    /// Begins with that state.
    fn open(&self, sealed: &[u8]) -> Result<Description, Refusal>;

    /// A report (REPORT) of what the study's key is bound to, for the enclave on this
    /// processor that `target` describes (TARGETINFO): a quoting enclave, say.
    fn report(&self, target: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// Takes a chunk of a party's records; whether the party has delivered with it.
    fn records(&self, party: u16, chunk: Chunk) -> Result<bool, Refusal>;

    /// The results for a party that is to have them, once all records are there.
    fn results(&self, party: u16) -> Result<Sealed, Refusal>;
}

/// What the host does for the parties.
#[interface]
pub trait Office {
    /// The study.
    fn study(&self) -> Description;

    /// Takes a chunk of a party's records; whether the party has delivered with it.
    fn records(&self, party: u16, chunk: Chunk) -> Result<bool, Refusal>;

    /// The results for a party.
    fn results(&self, party: u16) -> Result<Sealed, Refusal>;
}

/// A piece of a party's records: whole lines, encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Chunk {
    /// The encapsulated key of the upload that it is part of, by which that is known.
    #[serde(with = "serde_bytes")]
    pub upload: Vec<u8>,
    /// Its number, from 0.
    pub number: u32,
    /// Whether it is the last.
    pub last: bool,
    /// The lines' ciphertext.
    #[serde(with = "serde_bytes")]
    pub ciphertext: Vec<u8>,
}

/// Most bytes of lines that a party puts into a chunk.
pub const LINES: usize = 64 << 10;

impl Chunk {
    /// Most bytes of one in a file.
    pub const MOST: usize = LINES + 200;

    /// As it is kept in files.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("bytes and numbers can be encoded")
    }

    /// From a file; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

/// Why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// The study cannot be done so.
    Study(BadStudy),
    /// The state was not sealed by this enclave here, or was changed.
    State,
    /// No study is open.
    Closed,
    /// What is to describe an enclave does not.
    Target,
    /// The study has no such party, or one that does not contribute or receive.
    Party,
    /// This chunk was expected, of that upload.
    Order {
        /// Its number.
        expected: u32,
    },
    /// The chunk was not encrypted by the party for this study, or not as this number.
    Forged,
    /// A line of the chunk is no record; the upload is over.
    Record {
        /// Its number in the chunk, from 1.
        line: u32,
        /// What is wrong with it.
        why: BadRecord,
    },
    /// The party has delivered: a second upload would tell, by the difference of two
    /// results, of those in whom the two differ. A correction is another study.
    Delivered,
    /// There is no room for more people, in uploads that have not come to their end; this
    /// one is over.
    Busy,
    /// Records of these parties are missing.
    Incomplete(Vec<String>),
    /// The host has failed.
    Host,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Study(why) => write!(f, "the study cannot be done: {why}"),
            Self::State => f.write_str("the state is of another enclave or processor, or was changed"),
            Self::Closed => f.write_str("no study is open"),
            Self::Target => f.write_str("this does not describe an enclave: TARGETINFO has 512 bytes"),
            Self::Party => f.write_str("the study has no such party, or not in that role"),
            Self::Order { expected } => write!(f, "chunk {expected} of that upload was expected"),
            Self::Forged => f.write_str("the chunk was not encrypted by that party, in that place"),
            Self::Record { line, why } => write!(f, "line {line} of the chunk: {why}"),
            Self::Delivered => {
                f.write_str("the party has delivered other records before; a correction is another study")
            }
            Self::Busy => {
                f.write_str("no room for more people before other uploads end: send it again later")
            }
            Self::Incomplete(parties) => write!(f, "records are missing of {}", parties.join(", ")),
            Self::Host => f.write_str("the host has failed; its operator knows more"),
        }
    }
}

impl core::error::Error for Refusal {}
