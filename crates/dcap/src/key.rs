//! ECDSA on P-256 with SHA-256 (*FIPS 186-5*): the only signatures there are here.
//!
//! *ring* verifies, five times as fast as `p256`; `p256` signs, with nonces from key and
//! message (*RFC 6979*), so that the same inputs make the same certificate.

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use sha2::{Digest, Sha256};
use std::fmt;

use crate::error::{Refusal, Rule, refuse};

/// A public key: x and y, 32 bytes each, most significant byte first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 64]);

impl PublicKey {
    /// From the uncompressed form of *SEC 1 §2.3.3*: 4, x, y.
    pub(crate) fn from_sec1(bytes: &[u8]) -> Option<Self> {
        let (4, xy) = bytes.split_first()? else { return None };
        xy.try_into().ok().map(Self)
    }

    /// In the uncompressed form of *SEC 1 §2.3.3*.
    pub fn sec1(&self) -> [u8; 65] {
        let mut bytes = [4; 65];
        bytes[1..].copy_from_slice(&self.0);
        bytes
    }

    /// True if `signature`, r and s of 32 bytes each, is this key's of `message`. A key
    /// that is no point of the curve has signed nothing.
    pub fn signed(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.sec1()).verify(message, signature).is_ok()
    }

    /// The same for a signature in DER, as X.509 has it.
    pub(crate) fn signed_der(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.sec1()).verify(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", crate::hex::encode(&self.0))
    }
}

/// A private key. It is never printed, and wiped when dropped.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// From a scalar, most significant byte first: from 1 to the order of the curve less 1.
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, Refusal> {
        match SigningKey::from_slice(scalar) {
            Ok(key) => Ok(Self(key)),
            Err(_) => refuse(Rule::Encoding, "private key", "is zero or not below the order of P-256"),
        }
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        let point = self.0.verifying_key().to_encoded_point(false);
        PublicKey::from_sec1(point.as_bytes()).expect("a point that is not at infinity, uncompressed")
    }

    /// r and s over the SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.0.sign(message);
        signature.to_bytes().into()
    }

    /// The same in DER.
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// *RFC 6979 §A.2.5*, SHA-256 of "sample".
    #[test]
    fn known_answer() {
        let scalar = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
        let key = PrivateKey::from_bytes(&crate::hex::decode_array(scalar, "scalar").unwrap()).unwrap();
        let public = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6\
                      7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299";
        assert_eq!(key.public().0.to_vec(), crate::hex::decode(public, "x").unwrap());
        let signature = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
                         F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8";
        assert_eq!(key.sign(b"sample").to_vec(), crate::hex::decode(signature, "x").unwrap());
        assert!(key.public().signed(b"sample", &key.sign(b"sample")));
        assert!(key.public().signed_der(b"sample", &key.sign_der(b"sample")));
        assert!(!key.public().signed(b"Sample", &key.sign(b"sample")));
        assert_eq!(format!("{key:?}"), "PrivateKey(…)");
    }

    #[test]
    fn a_key_off_the_curve_signs_nothing() {
        let key = PrivateKey::from_bytes(&[1; 32]).unwrap();
        let mut public = key.public();
        public.0[63] ^= 1;
        assert!(!public.signed(b"x", &key.sign(b"x")));
        assert!(PrivateKey::from_bytes(&[0; 32]).is_err());
        assert!(PrivateKey::from_bytes(&[0xff; 32]).is_err());
    }
}
