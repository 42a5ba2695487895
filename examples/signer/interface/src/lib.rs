//! What the signer does for its host.
#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use enclave_interface::{Deserialize, Serialize, interface};

/// A payment that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Payment {
    /// To whom: 1 to 64 ASCII letters, digits, spaces and `-`.
    pub payee: String,
    /// How much, in cents.
    pub cents: u64,
}

/// What a key may sign, fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Policy {
    /// Most cents of one payment.
    pub each: u64,
    /// Most cents of all payments together.
    pub total: u64,
}

/// A new key: what the host keeps of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct NewKey {
    /// Private key, policy and count, sealed: for this signer's enclaves on this processor.
    pub sealed: Vec<u8>,
    /// The public key as DER (SubjectPublicKeyInfo).
    pub public: Vec<u8>,
}

/// A signed order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Signed {
    /// The bytes that were signed: one line of text.
    pub order: String,
    /// ECDSA on P-256 with SHA-256, as DER.
    pub signature: Vec<u8>,
    /// What to present with the next payment, in place of what was presented with this one.
    pub sealed: Vec<u8>,
}

/// Why there is no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// The payment exceeds what the key signs at once, which is this many cents.
    Each(u64),
    /// It exceeds what is left of the total, which is this many cents.
    Total(u64),
    /// The payee's name is not as it should be.
    Payee,
    /// The key was sealed by another signer's enclave or on another processor, or was changed.
    Key,
    /// A later version of the enclave has sealed the key.
    Downgrade,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Each(cents) => write!(f, "the key signs payments of up to {cents} cents"),
            Self::Total(cents) => write!(f, "{cents} cents are left of what the key signs in all"),
            Self::Payee => f.write_str("the payee is no name of 1 to 64 letters, digits, spaces and -"),
            Self::Key => f.write_str("the key is of another machine or signer, or was changed"),
            Self::Downgrade => f.write_str(
                "a later version of the enclave has sealed the key: run that, or a still later one",
            ),
        }
    }
}

impl core::error::Error for Refusal {}

/// The enclave's functions.
#[interface]
pub trait Signer {
    /// Makes a key that signs payments within a policy, for ever.
    fn create(&self, policy: Policy) -> NewKey;
    /// Signs a payment if the key's policy allows it.
    fn sign(&self, sealed: &[u8], payment: Payment) -> Result<Signed, Refusal>;
}
