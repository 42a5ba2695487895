//! Keys that sign enclaves: RSA of 3072 bits with the public exponent 3, as EINIT demands.

use crate::sigstruct::{LEN, Signature};
use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs1v15;
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, LineEnding};
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner, SignatureEncoding};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, RsaPrivateKey, RsaPublicKey};
use zeroize::Zeroizing;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is no key.
    #[error(
        "is no RSA {0} key in PEM (PKCS #8 or PKCS #1, not encrypted): make one with \
         `openssl genrsa -3 3072`"
    )]
    Form(&'static str),
    /// The key is of another kind than EINIT takes.
    #[error(
        "is an RSA key of {bits} bits with exponent {exponent}: EINIT takes 3072 bits and exponent 3 only \
         (`openssl genrsa -3 3072`)"
    )]
    Kind {
        /// Bits of the modulus.
        bits: usize,
        /// The public exponent, in decimal.
        exponent: String,
    },
    /// The random numbers of the host, or the arithmetic.
    #[error("cannot be made or used: {0}")]
    Failed(String),
}

/// A private key. It is wiped when dropped.
pub struct SigningKey(RsaPrivateKey);

impl SigningKey {
    /// Makes a new one, which takes seconds.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        RsaPrivateKey::new_with_exp(&mut OsRng, 8 * LEN, &BigUint::from(3u8))
            .map(Self)
            .map_err(|e| KeyError::Failed(e.to_string()))
    }

    /// From PEM: PKCS #8 (`PRIVATE KEY`) or PKCS #1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// It is none, or none that EINIT takes the signatures of.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let key = RsaPrivateKey::from_pkcs8_pem(text)
            .or_else(|_| RsaPrivateKey::from_pkcs1_pem(text))
            .map_err(|_| KeyError::Form("private"))?;
        check(&key)?;
        Ok(Self(key))
    }

    /// As PEM, PKCS #8.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        self.0.to_pkcs8_pem(LineEnding::LF).map_err(|e| KeyError::Failed(e.to_string()))
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        PublicKey { modulus: modulus(&self.0) }
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 over `message`, blinded.
    ///
    /// # Errors
    /// The host has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Signature, KeyError> {
        let key = pkcs1v15::SigningKey::<Sha256>::new(self.0.clone());
        let signature =
            key.try_sign_with_rng(&mut OsRng, message).map_err(|e| KeyError::Failed(e.to_string()))?;
        let bytes: [u8; LEN] =
            signature.to_vec().try_into().map_err(|_| KeyError::Failed("wrong length".into()))?;
        Ok(Signature(bytes))
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

/// The public half of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Little-endian, as SIGSTRUCT has it.
    pub(crate) modulus: [u8; LEN],
}

impl PublicKey {
    /// From PEM: `PUBLIC KEY` or `RSA PUBLIC KEY`, or of a private key.
    ///
    /// # Errors
    /// It is none, or none that EINIT takes the signatures of.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        if let Ok(key) = SigningKey::from_pem(text) {
            return Ok(key.public());
        }
        let key = RsaPublicKey::from_public_key_pem(text)
            .or_else(|_| RsaPublicKey::from_pkcs1_pem(text))
            .map_err(|_| KeyError::Form("public"))?;
        check(&key)?;
        Ok(Self { modulus: modulus(&key) })
    }

    /// MRSIGNER of the enclaves that the key signs.
    pub fn mrsigner(&self) -> [u8; 32] {
        sgx::sigstruct::mrsigner(&sgx_abi::Sigstruct { modulus: self.modulus, ..Default::default() })
    }
}

fn check(key: &impl PublicKeyParts) -> Result<(), KeyError> {
    let (bits, exponent) = (key.n().bits(), key.e());
    if bits != 8 * LEN || *exponent != BigUint::from(3u8) {
        return Err(KeyError::Kind { bits, exponent: exponent.to_string() });
    }
    Ok(())
}

/// Of a key that [`check`] has passed, or that was made of the right length.
fn modulus(key: &impl PublicKeyParts) -> [u8; LEN] {
    let mut bytes = key.n().to_bytes_le();
    bytes.resize(LEN, 0);
    bytes.try_into().expect("resized")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_other_kinds_are_refused() {
        let key = |bits, exponent: u32| {
            let key = RsaPrivateKey::new_with_exp(&mut OsRng, bits, &BigUint::from(exponent)).unwrap();
            key.to_pkcs8_pem(LineEnding::LF).unwrap()
        };
        let error = SigningKey::from_pem(&key(1024, 3)).unwrap_err();
        assert_eq!(error, KeyError::Kind { bits: 1024, exponent: "3".into() });
        let error = SigningKey::from_pem(&key(512, 65537)).unwrap_err();
        assert_eq!(error, KeyError::Kind { bits: 512, exponent: "65537".into() });
        for text in ["", "-----BEGIN PRIVATE KEY-----\n", "ssh-rsa AAAA"] {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), KeyError::Form("private"));
            assert_eq!(PublicKey::from_pem(text).unwrap_err(), KeyError::Form("public"));
        }
    }
}
