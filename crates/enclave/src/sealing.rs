//! Data that leaves the enclave and comes back, to it or to its successors.
//!
//! [`seal`] encrypts under a key that only the processor it ran on can derive again, for
//! the same enclave ([`Policy::Enclave`]) or for any of the same signer and product
//! ([`Policy::Signer`]), at the same or a later security version (ISVSVN). An earlier
//! version cannot: a flaw that an upgrade closes does not open what the upgraded enclave
//! has sealed.
//!
//! Each time another key is derived (KEYID is random), so that no two messages share key
//! and nonce however often an enclave seals.
//!
//! What is sealed can be kept from the enclave, or an older sealed state be given to it
//! instead of the newest: against that helps only a counter somewhere else.

use aes_gcm::Nonce;
use aes_gcm::aead::{Aead, Payload};
use alloc::vec::Vec;
use enclave_base::sealing::{Header, MAGIC, NONCE};
use sgx_abi::{KeyPolicy, Status};
use zerocopy::{FromBytes, IntoBytes};

use crate::{random, report};

/// Who can open what is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// This very enclave (MRENCLAVE): no other version of it.
    Enclave,
    /// Enclaves of the same signer (MRSIGNER) and ISVPRODID, from this ISVSVN on.
    Signer,
}

impl Policy {
    fn bits(self) -> KeyPolicy {
        match self {
            Self::Enclave => KeyPolicy::MRENCLAVE,
            Self::Signer => KeyPolicy::MRSIGNER,
        }
    }
}

/// Bytes that sealing adds: header and tag.
pub const OVERHEAD: usize = size_of::<Header>() + 16;

/// Data that was unsealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Unsealed {
    /// The data.
    pub data: Vec<u8>,
    /// Security version of the enclave that sealed it.
    pub isvsvn: u16,
    /// Whether enclave and processor are of the same versions now: if not, it should be
    /// sealed again, to be closed to the older ones.
    pub current: bool,
}

/// Why there is no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// It is no sealed data of this format.
    Format,
    /// It was sealed under another policy than the caller asks for.
    Policy,
    /// A later version of the enclave, or of the processor, has sealed it.
    Downgrade,
    /// Another enclave, signer or processor has sealed it, or it was changed, or the
    /// additional data differ.
    Authentication,
    /// The data is too large.
    TooLarge,
}

impl core::fmt::Display for SealError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Format => "this is no sealed data",
            Self::Policy => "the data was sealed under another policy",
            Self::Downgrade => "a later version has sealed the data: run that, or a still later one",
            Self::Authentication => {
                "the data was changed, or sealed by another enclave, signer or processor, or with other additional data"
            }
            Self::TooLarge => "the data is too large to be sealed in one piece",
        })
    }
}

impl core::error::Error for SealError {}

/// Seals `data`; `additional` is authenticated with it and has to be presented again, e.g.
/// a name or version of what is sealed.
///
/// # Errors
/// [`SealError::TooLarge`] beyond 64 GiB.
pub fn seal(policy: Policy, data: &[u8], additional: &[u8]) -> Result<Vec<u8>, SealError> {
    let header = Header::new(policy.bits(), random::bytes());
    let cipher = header.cipher().expect("the enclave's own versions are not beyond it");
    let additional = [header.as_bytes(), additional].concat();
    let sealed = cipher.encrypt(&Nonce::from(NONCE), Payload { msg: data, aad: &additional });
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(&sealed.map_err(|_| SealError::TooLarge)?);
    Ok(out)
}

/// Unseals data that was sealed under `policy` with the same `additional` data.
///
/// # Errors
/// It cannot be, or must not be, opened by this enclave here; see [`SealError`].
pub fn unseal(policy: Policy, sealed: &[u8], additional: &[u8]) -> Result<Unsealed, SealError> {
    let (header, ciphertext) = Header::read_from_prefix(sealed).map_err(|_| SealError::Format)?;
    if header.magic != MAGIC || header.reserved != [0; 4] || sealed.len() < OVERHEAD {
        return Err(SealError::Format);
    }
    if header.keypolicy != policy.bits().bits() {
        return Err(SealError::Policy);
    }
    let cipher = header.cipher().map_err(|status| match status {
        Status::InvalidIsvsvn | Status::InvalidCpusvn => SealError::Downgrade,
        _ => SealError::Authentication,
    })?;
    let additional = [header.as_bytes(), additional].concat();
    let data = cipher
        .decrypt(&Nonce::from(NONCE), Payload { msg: ciphertext, aad: &additional })
        .map_err(|_| SealError::Authentication)?;
    let own = report::own();
    let current = (header.isvsvn, header.cpusvn) == (own.isvsvn, own.cpusvn);
    Ok(Unsealed { data, isvsvn: header.isvsvn, current })
}
