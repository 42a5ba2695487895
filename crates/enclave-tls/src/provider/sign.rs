//! ECDSA over P-256 with SHA-256 (*FIPS 186-5*), with nonces of key and message (*RFC 6979*).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// A certificate's private key. It is wiped when it is dropped, and has no form to show.
#[derive(Clone)]
pub(crate) struct Key(pub(crate) SigningKey);

impl Key {
    /// The signature in DER.
    pub(crate) fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature =
            self.0.try_sign(message).map_err(|_| Error::General("the key does not sign".into()))?;
        Ok(signature.as_bytes().to_vec())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl rustls::sign::SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        let ours = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        ours.then(|| Box::new(self.clone()) as Box<dyn rustls::sign::Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl rustls::sign::Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.signature(message)
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
