//! SIGSTRUCT: EINIT's checks of form and signature (*SDM vol. 3D, EINIT*).
//!
//! The signer computes Q1 = ⌊S²/N⌋ and Q2 = ⌊(S³ − Q1·S·N)/N⌋, so the processor
//! cubes the signature modulo N without dividing. With R1 = S² − Q1·N:
//!
//! ```text
//! S³ mod N = R2 = S·R1 − Q2·N        where 0 ≤ R1 < N and 0 ≤ R2 < N
//! ```
//!
//! The two bounds make Q1 and Q2 unique: a right signature with wrong quotients
//! fails, as on the processor. R2 must be the whole PKCS #1 v1.5 encoding of the
//! hash, byte for byte; nothing of it is parsed.
//!
//! The arithmetic is `crypto-bigint`'s, of fixed width: no operand, whatever its
//! value, allocates or takes longer than another, and no division can fail.

use crypto_bigint::{Limb, NonZero, U3072, U6144};
use sgx_abi::Sigstruct;
use sha2::{Digest, Sha256};

#[cfg(any(test, feature = "testing"))]
pub mod signer;
#[cfg(test)]
mod tests;

/// Bytes of the modulus, the signature and the quotients.
const LEN: usize = 384;
/// Bytes of the encoded message before the hash.
pub const PADDING_LEN: usize = LEN - 32;

/// The encoded message before the hash (RFC 8017, EMSA-PKCS1-v1_5 with SHA-256):
/// 00 01, 330 bytes FF, 00, DigestInfo. EGETKEY and EREPORT know it as
/// HARDCODED_PKCS1_5_PADDING, EINIT keeps it as SECS.PADDING.
pub const PADDING: [u8; PADDING_LEN] = {
    const DIGEST_INFO: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ];
    let start = PADDING_LEN - DIGEST_INFO.len();
    let mut padding = [0xff; PADDING_LEN];
    padding[0] = 0;
    padding[1] = 1;
    padding[start - 1] = 0;
    let mut i = 0;
    while i < DIGEST_INFO.len() {
        padding[start + i] = DIGEST_INFO[i];
        i += 1;
    }
    padding
};

/// True if HEADER and HEADER2 have their one value.
pub fn headers_hold(sig: &Sigstruct) -> bool {
    sig.header == Sigstruct::HEADER && sig.header2 == Sigstruct::HEADER2
}

/// True if VENDOR is zero or Intel's number. Nothing else depends on it.
pub fn vendor_holds(sig: &Sigstruct) -> bool {
    sig.vendor == 0 || sig.vendor == Sigstruct::VENDOR_INTEL
}

/// True if EXPONENT is 3.
pub fn exponent_holds(sig: &Sigstruct) -> bool {
    sig.exponent == Sigstruct::EXPONENT
}

/// The first check of EINIT: every condition for which it reports
/// SGX_INVALID_SIG_STRUCT before it looks at the signature.
pub fn form_holds(sig: &Sigstruct) -> bool {
    headers_hold(sig) && vendor_holds(sig) && exponent_holds(sig) && sig.reserved_is_zero()
}

/// What a verified SIGSTRUCT yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// SHA-256 of the modulus.
    pub mrsigner: [u8; 32],
    /// Upper 352 bytes of the encoded message, highest first: SECS.PADDING.
    pub padding: [u8; PADDING_LEN],
}

/// Why a signature does not verify. The guest sees SGX_INVALID_SIGNATURE for
/// all; the difference is for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The highest bit of MODULUS is clear.
    #[error("SIGSTRUCT.MODULUS has fewer than 3072 bits: sign with a 3072-bit RSA key, exponent 3")]
    Modulus,
    /// SIGNATURE is not below MODULUS.
    #[error("SIGSTRUCT.SIGNATURE is not below MODULUS: both are little-endian, check their byte order")]
    Range,
    /// Q1 is not ⌊S²/N⌋.
    #[error("SIGSTRUCT.Q1 is not floor(SIGNATURE^2 / MODULUS)")]
    Q1,
    /// Q2 is not ⌊(S³ − Q1·S·N)/N⌋.
    #[error("SIGSTRUCT.Q2 is not floor((SIGNATURE^3 - Q1*SIGNATURE*MODULUS) / MODULUS)")]
    Q2,
    /// The signature is another key's, or of other data.
    #[error("SIGSTRUCT.SIGNATURE does not sign this SIGSTRUCT with this MODULUS: sign again after a change")]
    Encoding,
}

/// Verifies the signature with the key inside SIGSTRUCT. Whether that key may
/// launch anything is for the caller to see.
///
/// # Errors
/// See [`SignatureError`]: the guest's SGX_INVALID_SIGNATURE.
pub fn verify(sig: &Sigstruct) -> Result<Verified, SignatureError> {
    let n = U3072::from_le_slice(&sig.modulus);
    let s = U3072::from_le_slice(&sig.signature);
    if n.bits() != U3072::BITS {
        return Err(SignatureError::Modulus);
    }
    if s >= n {
        return Err(SignatureError::Range);
    }
    let q1 = U3072::from_le_slice(&sig.q1);
    let r1 = reduce(&s, &s, &q1, &n).ok_or(SignatureError::Q1)?;
    let q2 = U3072::from_le_slice(&sig.q2);
    let r2 = reduce(&s, &r1, &q2, &n).ok_or(SignatureError::Q2)?;

    let encoded = r2.to_be_bytes();
    let [first, second] = sig.signed_parts();
    let hash = Sha256::new().chain_update(first).chain_update(second).finalize();
    let (padding, signed_hash) = encoded.split_at(PADDING_LEN);
    if padding != PADDING || signed_hash != &hash[..] {
        return Err(SignatureError::Encoding);
    }
    Ok(Verified { mrsigner: mrsigner(sig), padding: PADDING })
}

/// MRSIGNER: SHA-256 of MODULUS as it stands in SIGSTRUCT, little-endian.
pub fn mrsigner(sig: &Sigstruct) -> [u8; 32] {
    Sha256::digest(sig.modulus).into()
}

/// Q1 and Q2 of a signature, as a signer puts them into SIGSTRUCT: all three and the
/// modulus are little-endian. `None` for a modulus of zero.
pub fn quotients(modulus: &[u8; LEN], signature: &[u8; LEN]) -> Option<([u8; LEN], [u8; LEN])> {
    let modulus: U6144 = U3072::from_le_slice(modulus).resize();
    let modulus = NonZero::new(modulus).into_option()?;
    let divide = |dividend: U6144| -> (U3072, U3072) {
        let (quotient, remainder) = dividend.div_rem_vartime(&modulus);
        (quotient.resize(), remainder.resize())
    };
    let s = U3072::from_le_slice(signature);
    let (q1, r1) = divide(s.widening_mul(&s));
    let (q2, _) = divide(s.widening_mul(&r1));
    Some((q1.to_le_bytes(), q2.to_le_bytes()))
}

/// `a`·`b` − `q`·`n` if that is at least 0 and less than `n`.
fn reduce(a: &U3072, b: &U3072, q: &U3072, n: &U3072) -> Option<U3072> {
    let product: U6144 = a.widening_mul(b);
    let multiple: U6144 = q.widening_mul(n);
    let (difference, borrow) = product.sbb(&multiple, Limb::ZERO);
    let (low, high): (U3072, U3072) = difference.split();
    (borrow == Limb::ZERO && high == U3072::ZERO && low < *n).then_some(low)
}
