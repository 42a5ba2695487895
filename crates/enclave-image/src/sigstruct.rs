//! SIGSTRUCT: what a signer says of an enclave, made in one step or in two.
//!
//! ```text
//! Statement ──digest()──▶ 256 bytes ──any RSA signer──▶ Signature ──seal()──▶ SIGSTRUCT
//! ```
//!
//! The 256 bytes are bytes 0 to 127 and 900 to 1027 of SIGSTRUCT; the signature is
//! RSASSA-PKCS1-v1_5 with SHA-256 over them (*SDM vol. 3D, Enclave Signature
//! Structure*). Q1 and Q2 follow from signature and modulus.

use crate::key::{KeyError, PublicKey, SigningKey};
use sgx::sigstruct::{SignatureError, form_holds, quotients, verify};
use sgx_abi::{AttributeFlags, Attributes, MiscSelect, Sigstruct};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of modulus and signature.
pub(crate) const LEN: usize = 384;
/// Bytes of what is signed.
pub const DIGEST_LEN: usize = 256;

/// Why there is no SIGSTRUCT; EINIT's own word for it is in the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigstructError {
    /// Not 1808 bytes.
    #[error("is {0} bytes long, a SIGSTRUCT has 1808: it is cut short or none (SGX_INVALID_SIG_STRUCT)")]
    Length(usize),
    /// EINIT's check of form.
    #[error(
        "has a wrong header, vendor, exponent or reserved field: it is damaged or none (SGX_INVALID_SIG_STRUCT)"
    )]
    Form,
    /// EINIT's check of the signature.
    #[error("is not validly signed (SGX_INVALID_SIGNATURE): {0}")]
    Signature(#[from] SignatureError),
    /// Not 256 bytes, or none that could be signed.
    #[error("is no digest of `kluis enclave sign --digest`: make it again")]
    Digest,
    /// Not 384 bytes.
    #[error(
        "is {0} bytes long, a raw RSA signature has 384: ask the signer for the bytes alone, not DER or text"
    )]
    RawSignature(usize),
    /// A date that is none.
    #[error("{0} is no date: write it as 2026-01-31")]
    Date(String),
    /// The key.
    #[error("the key {0}")]
    Key(#[from] KeyError),
}

/// What the signer states, not yet signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// Attributes, each required as it is.
    pub attributes: Attributes,
    /// MISCSELECT, required.
    pub miscselect: MiscSelect,
    /// Product and security version.
    pub isvprodid: u16,
    /// Security version.
    pub isvsvn: u16,
    /// Product family (KSS).
    pub isvfamilyid: [u8; 16],
    /// Extended product identifier (KSS).
    pub isvextprodid: [u8; 16],
    /// Day, as the binary-coded decimal 0xYYYYMMDD.
    pub date: u32,
}

/// A raw RSA signature, highest byte first, as signers write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature(pub [u8; LEN]);

impl Signature {
    /// From a file of a signer.
    ///
    /// # Errors
    /// It has not the length of a signature.
    pub fn read(bytes: &[u8]) -> Result<Self, SigstructError> {
        bytes.try_into().map(Self).map_err(|_| SigstructError::RawSignature(bytes.len()))
    }
}

impl Statement {
    fn unsigned(&self) -> Sigstruct {
        // INIT is EINIT's to set
        let attributemask = !Attributes { flags: AttributeFlags::INIT, xfrm: 0 };
        Sigstruct {
            header: Sigstruct::HEADER,
            date: self.date,
            header2: Sigstruct::HEADER2,
            exponent: Sigstruct::EXPONENT,
            miscselect: self.miscselect,
            miscmask: u32::MAX,
            isvfamilyid: self.isvfamilyid,
            attributes: self.attributes,
            attributemask,
            enclavehash: self.mrenclave,
            isvextprodid: self.isvextprodid,
            isvprodid: self.isvprodid,
            isvsvn: self.isvsvn,
            ..Sigstruct::default()
        }
    }

    /// What a SIGSTRUCT states, to be signed again by another key.
    pub fn of(sig: &Sigstruct) -> Self {
        Self {
            mrenclave: sig.enclavehash,
            attributes: sig.attributes,
            miscselect: sig.miscselect,
            isvprodid: sig.isvprodid,
            isvsvn: sig.isvsvn,
            isvfamilyid: sig.isvfamilyid,
            isvextprodid: sig.isvextprodid,
            date: sig.date,
        }
    }

    /// The 256 bytes to be signed.
    pub fn digest(&self) -> [u8; DIGEST_LEN] {
        let sig = self.unsigned();
        let [first, second] = sig.signed_parts();
        let mut out = [0; DIGEST_LEN];
        out[..128].copy_from_slice(first);
        out[128..].copy_from_slice(second);
        out
    }

    /// Signs in one step.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn sign(&self, key: &SigningKey) -> Result<Sigstruct, SigstructError> {
        let digest = self.digest();
        let signature = key.sign(&digest)?;
        seal(&digest, &signature, &key.public())
    }
}

/// What the 256 bytes of [`Statement::digest`] state.
///
/// # Errors
/// They are none.
pub fn of_digest(digest: &[u8]) -> Result<Sigstruct, SigstructError> {
    if digest.len() != DIGEST_LEN {
        return Err(SigstructError::Digest);
    }
    let mut sig = Sigstruct { exponent: Sigstruct::EXPONENT, ..Sigstruct::default() };
    let bytes = sig.as_mut_bytes();
    bytes[..128].copy_from_slice(&digest[..128]);
    bytes[900..1028].copy_from_slice(&digest[128..]);
    if form_holds(&sig) { Ok(sig) } else { Err(SigstructError::Digest) }
}

/// The second of two steps: puts together what was signed, the signature made
/// elsewhere and the signer's public key.
///
/// # Errors
/// They do not belong together.
pub fn seal(digest: &[u8], signature: &Signature, key: &PublicKey) -> Result<Sigstruct, SigstructError> {
    let mut sig = of_digest(digest)?;
    sig.modulus = key.modulus;
    sig.signature = signature.0;
    sig.signature.reverse();
    (sig.q1, sig.q2) =
        quotients(&sig.modulus, &sig.signature).ok_or(SigstructError::Signature(SignatureError::Modulus))?;
    verify(&sig)?;
    Ok(sig)
}

/// Reads one and verifies it as EINIT does, with the key that it names.
///
/// # Errors
/// EINIT would refuse it, whatever the enclave.
pub fn read(bytes: &[u8]) -> Result<Sigstruct, SigstructError> {
    let sig = Sigstruct::read_from_bytes(bytes).map_err(|_| SigstructError::Length(bytes.len()))?;
    if !form_holds(&sig) {
        return Err(SigstructError::Form);
    }
    verify(&sig)?;
    Ok(sig)
}

/// The file of a SIGSTRUCT.
pub fn write(sig: &Sigstruct) -> Vec<u8> {
    sig.as_bytes().to_vec()
}

/// A day, `2026-01-31`, as SIGSTRUCT has it.
///
/// # Errors
/// It is none.
pub fn date(text: &str) -> Result<u32, SigstructError> {
    let refuse = || SigstructError::Date(text.to_owned());
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return Err(refuse()) };
    let number = |text: &str, len: usize, range: std::ops::RangeInclusive<u32>| {
        let digits = text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        let value = text.parse().ok().filter(|value| digits && range.contains(value));
        // its decimal digits as hexadecimal ones
        value.and_then(|_| u32::from_str_radix(text, 16).ok()).ok_or_else(refuse)
    };
    Ok(number(year, 4, 1..=9999)? << 16 | number(month, 2, 1..=12)? << 8 | number(day, 2, 1..=31)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_binary_coded_decimals() {
        assert_eq!(date("2026-11-27"), Ok(0x2026_1127));
        assert_eq!(date("0001-01-01"), Ok(0x0001_0101));
        for wrong in [
            "",
            "2026",
            "2026-1-27",
            "2026-13-01",
            "2026-00-01",
            "2026-01-32",
            "2026-01-01-",
            "+026-01-01",
            "20a6-01-01",
        ] {
            assert_eq!(date(wrong), Err(SigstructError::Date(wrong.into())), "{wrong}");
        }
    }

    #[test]
    fn files_that_are_none() {
        assert_eq!(read(&[]).err(), Some(SigstructError::Length(0)));
        assert_eq!(read(&[0; 1808]).err(), Some(SigstructError::Form));
        assert_eq!(read(&[0; 1809]).err(), Some(SigstructError::Length(1809)));
        assert_eq!(Signature::read(&[0; 512]).unwrap_err(), SigstructError::RawSignature(512));
    }
}
