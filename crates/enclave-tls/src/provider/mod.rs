//! The algorithms of TLS in an enclave, over RustCrypto: one cipher suite, one group, one
//! kind of signature, those that every implementation of TLS 1.3 has (*RFC 8446 §9.1*).
//!
//! * `aead`: AES-128-GCM for records
//! * `exchange`: ECDHE over P-256
//! * `hash`: SHA-256, and HMAC, of which HKDF is made
//! * `sign`: ECDSA over P-256
//! * `random`: numbers of `getrandom`, in an enclave the runtime's
//!
//! Those of RustCrypto take the same time whatever their secrets are, with the processor's
//! instructions for AES and carry-less multiplication, which enclaves are built for.

mod aead;
mod exchange;
mod hash;
pub(crate) mod random;
pub(crate) mod sign;

use alloc::sync::Arc;
use alloc::vec;

use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::PrivateKeyDer;
use rustls::{CipherSuite, CipherSuiteCommon, Error, SupportedCipherSuite, Tls13CipherSuite};

/// The provider. It verifies no signatures: servers have none to verify.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![SupportedCipherSuite::Tls13(&TLS13_AES_128_GCM_SHA256)],
        kx_groups: vec![&exchange::Secp256r1],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &random::Random,
        key_provider: &NoStoredKeys,
    }
}

static TLS13_AES_128_GCM_SHA256: Tls13CipherSuite = Tls13CipherSuite {
    common: CipherSuiteCommon {
        suite: CipherSuite::TLS13_AES_128_GCM_SHA256,
        hash_provider: &hash::Sha256,
        // what rustls asks for GCM, after draft-irtf-cfrg-aead-limits-08 §5.1.1
        confidentiality_limit: 1 << 24,
    },
    hkdf_provider: &HkdfUsingHmac(&hash::HmacSha256),
    aead_alg: &aead::Aes128Gcm,
    quic: None,
};

/// Keys are made inside; none is read from bytes.
#[derive(Debug)]
struct NoStoredKeys;

impl KeyProvider for NoStoredKeys {
    fn load_private_key(
        &self,
        _: PrivateKeyDer<'static>,
    ) -> Result<Arc<dyn rustls::sign::SigningKey>, Error> {
        Err(Error::General("an enclave's key is made inside it: use `Identity`".into()))
    }
}
