//! What is sealed: the head before the ciphertext, and the key that it names.

use aes_gcm::{Aes128Gcm, KeyInit};
use sgx_abi::{AttributeFlags, Attributes, KeyName, KeyPolicy, Keyrequest, ReportBody, Status, Targetinfo};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::leaf;

/// First bytes of what is sealed.
pub const MAGIC: [u8; 8] = *b"KLSEALD1";

/// The nonce: a key is of one message only.
pub const NONCE: [u8; 12] = [0; 12];

/// Attributes that the key depends on: those by which an enclave is more or less closed.
const ATTRIBUTE_MASK: Attributes = Attributes {
    flags: AttributeFlags::INIT
        .union(AttributeFlags::DEBUG)
        .union(AttributeFlags::PROVISIONKEY)
        .union(AttributeFlags::EINITTOKEN_KEY),
    xfrm: 0,
};

/// What stands before the ciphertext, and is authenticated with it.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// KEYREQUEST.KEYID: random, so that each message has a key of its own.
    pub keyid: [u8; 32],
    /// CPUSVN of the processor that sealed it.
    pub cpusvn: [u8; 16],
    /// KEYREQUEST.KEYPOLICY.
    pub keypolicy: u16,
    /// ISVSVN of the enclave that sealed it.
    pub isvsvn: u16,
    /// Zero.
    pub reserved: [u8; 4],
}

impl Header {
    /// For something new, of this enclave here and now; `keyid` is random.
    pub fn new(policy: KeyPolicy, keyid: [u8; 32]) -> Self {
        let own = own();
        Self {
            magic: MAGIC,
            keyid,
            cpusvn: own.cpusvn,
            keypolicy: policy.bits(),
            isvsvn: own.isvsvn,
            reserved: [0; 4],
        }
    }

    /// The cipher under the key that only this processor derives, for enclaves that fit.
    ///
    /// # Errors
    /// Versions are beyond the enclave's or the processor's.
    pub fn cipher(&self) -> Result<Aes128Gcm, Status> {
        let request = Keyrequest {
            keyname: KeyName::Seal as u16,
            keypolicy: KeyPolicy::from_bits_retain(self.keypolicy),
            isvsvn: self.isvsvn,
            cpusvn: self.cpusvn,
            attributemask: ATTRIBUTE_MASK,
            keyid: self.keyid,
            ..Keyrequest::default()
        };
        leaf::key(&request).map(|key| Aes128Gcm::new(key.bytes().into()))
    }
}

/// What this enclave is.
pub fn own() -> ReportBody {
    leaf::report(&Targetinfo::default(), &[0; 64]).body
}
