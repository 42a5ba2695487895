//! What clients, host and enclave of a vault say to one another: all are built from this.
//!
//! * [`Vault`]: what the enclave does for its host
//! * [`Desk`]: what the host does for clients
//! * [`Request`], [`Response`]: what a client and the enclave say, past the host
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use enclave_channel::{KeyPair, PublicKey, Random, Sealed};
use enclave_interface::{Deserialize, Serialize, interface};

/// What the enclave does for its host.
#[interface]
pub trait Vault {
    /// Makes a vault; its sealed state, which the host keeps.
    fn create(&self, owner: PublicKey) -> Result<Vec<u8>, Closed>;

    /// Opens a vault by its state; its key.
    fn open(&self, state: &[u8]) -> Result<PublicKey, Closed>;

    /// A number for one request, which makes that good for once.
    fn challenge(&self) -> Challenge;

    /// Answers a request of a client's.
    fn answer(&self, from: PublicKey, challenge: Challenge, request: Sealed) -> Result<Answer, Closed>;
}

/// What the host does for clients.
#[interface]
pub trait Desk {
    /// As the vault's.
    fn challenge(&self) -> Challenge;

    /// As the vault's, with its state kept.
    fn answer(&self, from: PublicKey, challenge: Challenge, request: Sealed) -> Result<Sealed, Closed>;
}

/// A number that was never there before.
pub type Challenge = [u8; 32];

/// The enclave's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Answer {
    /// For the client.
    pub response: Sealed,
    /// The vault's new state, if it has one: to be kept before the response is given away.
    pub state: Option<Vec<u8>>,
}

/// Why the vault says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Closed {
    /// No vault is open.
    None,
    /// The state was sealed by another signer's enclave, on another processor, or changed.
    State,
    /// A later version of the enclave has sealed it.
    Later,
    /// The challenge was used, or is too old.
    Challenge,
    /// The request was not made by that client for this vault and challenge.
    Request,
    /// The host has failed.
    Host,
}

impl core::fmt::Display for Closed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::None => "no vault is open",
            Self::State => "the state is of another signer's enclave or another processor, or was changed",
            Self::Later => {
                "a later version of the enclave has sealed the state: run that, or a still later one"
            }
            Self::Challenge => "the challenge was used, or is too old: ask again",
            Self::Request => "the request is not that client's, for this vault and challenge",
            Self::Host => "the host has failed; its operator knows more",
        })
    }
}

impl core::error::Error for Closed {}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Request {
    /// Of the owner: that a secret be kept under a name, instead of the one that is.
    Put {
        /// Its name.
        name: String,
        /// The secret.
        #[serde(with = "serde_bytes")]
        secret: Vec<u8>,
        /// Who may have it.
        grants: Vec<Grant>,
    },
    /// Of the owner: that a secret be forgotten.
    Remove {
        /// Its name.
        name: String,
    },
    /// Of the owner: what there is, and how often it was read.
    List,
    /// Of a reader: a secret.
    Get {
        /// Its name.
        name: String,
    },
}

/// Leave to read a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Grant {
    /// Whose.
    pub reader: PublicKey,
    /// How often still; `None` for always.
    pub reads: Option<u32>,
    /// Until when, in seconds since 1970 of the host's clock; `None` for ever.
    pub until: Option<u64>,
}

/// Most secrets in a vault.
pub const MOST_SECRETS: usize = 200;
/// Most bytes of a secret.
pub const MOST_BYTES: usize = 2048;
/// Most readers of a secret.
pub const MOST_GRANTS: usize = 16;
/// Most bytes of a name.
pub const NAME: usize = 100;

/// What the vault says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Response {
    /// How often the vault has changed, up to now. If it was more when a client last asked,
    /// somebody has set the vault back.
    pub changes: u64,
    /// The answer proper.
    pub content: Result<Content, Refusal>,
}

/// An answer to a request that was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Content {
    /// It is done.
    Done,
    /// The secret.
    Secret(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Names, and who may still read what is under them.
    List(Vec<(String, Vec<Grant>)>),
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// Only the owner may.
    NotOwner,
    /// There is no secret of this name for this client; whether there is one for others is
    /// not told.
    NoSecret,
    /// It was read as often as it may.
    Exhausted,
    /// The time is over.
    Expired,
    /// Name, secret or grants are too long, or too many.
    Large,
    /// The vault is full.
    Full,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotOwner => f.write_str("only the vault's owner may do that"),
            Self::NoSecret => f.write_str("there is no such secret for you"),
            Self::Exhausted => f.write_str("you have read it as often as you may"),
            Self::Expired => f.write_str("the time in which you may read it is over"),
            Self::Large => write!(
                f,
                "a name has 1 to {NAME} bytes, a secret up to {MOST_BYTES} and up to {MOST_GRANTS} readers"
            ),
            Self::Full => write!(f, "the vault has {MOST_SECRETS} secrets already"),
        }
    }
}

impl core::error::Error for Refusal {}

/// What a request is encrypted for: to be opened once, in answer to this challenge.
fn requests(challenge: &Challenge) -> Vec<u8> {
    [b"vault: request ", &challenge[..]].concat()
}

/// What its response is encrypted for.
fn responses(challenge: &Challenge) -> Vec<u8> {
    [b"vault: response ", &challenge[..]].concat()
}

/// Says something to one side that the other does not hear: requests and responses.
///
/// The one who makes a request opens its response by the same challenge.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// The one side.
    pub own: &'a KeyPair,
    /// The other.
    pub other: &'a PublicKey,
    /// The request's number.
    pub challenge: &'a Challenge,
}

impl Envelope<'_> {
    /// Seals a request.
    pub fn ask(&self, request: &Request, random: &mut impl Random) -> Sealed {
        let message = postcard::to_allocvec(request).expect("a request can be encoded");
        Sealed::new(self.own, self.other, &requests(self.challenge), &message, random)
    }

    /// Opens a request; `None` if it is none.
    pub fn asked(&self, request: &Sealed) -> Option<Request> {
        let message = request.open(self.own, self.other, &requests(self.challenge))?;
        postcard::from_bytes(&message).ok()
    }

    /// Seals the response.
    pub fn tell(&self, response: &Response, random: &mut impl Random) -> Sealed {
        let message = postcard::to_allocvec(response).expect("a response can be encoded");
        Sealed::new(self.own, self.other, &responses(self.challenge), &message, random)
    }

    /// Opens the response; `None` if it is none.
    pub fn told(&self, response: &Sealed) -> Option<Response> {
        let message = response.open(self.own, self.other, &responses(self.challenge))?;
        postcard::from_bytes(&message).ok()
    }
}
