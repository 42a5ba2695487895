//! The making side: what a manufacturer issues, for a platform that is its own.
//!
//! Keys, serial numbers, times and random bytes are the caller's, and the same inputs make
//! the same bytes. What is made carries [`ORGANIZATION`] in its names: nobody shall take it
//! for silicon.
//!
//! * [`certificate`](mod@certificate): the root, the PCK CA, PCK and TCB signing certificates
//! * [`crl`](mod@crl): revocation lists
//! * [`documents`]: TCB info and the QE identity
//! * [`quote`](mod@quote): quotes, from signatures made in enclaves or with keys at hand

pub mod certificate;
pub mod crl;
pub mod documents;
pub mod quote;

use der::asn1::BitString;
use der::oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::{Encode, Header, Tag};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::error::{Refusal, Rule};
use crate::key::PrivateKey;
use crate::pki::Certificate;

/// The organization in every name that is issued here.
pub const ORGANIZATION: &str = "Kluis software platform";

/// How the FMSPC of every Kluis platform begins (`KLUI`); two bytes of the model follow.
/// Intel's begin with zeros and small numbers.
pub const FMSPC_PREFIX: [u8; 4] = *b"KLUI";

/// An authority that signs.
#[derive(Clone, Copy, Debug)]
pub struct Issuer<'a> {
    /// Its key.
    pub key: &'a PrivateKey,
    /// Its certificate.
    pub certificate: &'a Certificate,
}

/// Signs a certificate or revocation list, given the DER of its unsigned part, whatever that
/// says: the form of *RFC 5280 §4.1 and §5.1*.
pub fn sign(unsigned: &[u8], key: &PrivateKey) -> Result<Vec<u8>, Refusal> {
    let sign = || {
        let signature = BitString::from_bytes(&key.sign_der(unsigned))?;
        let content = [unsigned, &algorithm().to_der()?, &signature.to_der()?].concat();
        let mut signed = Header::new(Tag::Sequence, content.len())?.to_der()?;
        signed.extend(content);
        Ok(signed)
    };
    made("signature", sign())
}

/// ECDSA with SHA-256, as every certificate and list names it.
fn algorithm() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_256, parameters: None }
}

/// What cannot be encoded is the caller's mistake, and said so.
fn made<T>(what: &str, result: der::Result<T>) -> Result<T, Refusal> {
    result.map_err(|error| Refusal::new(Rule::Encoding, what, format!("cannot be encoded: {error}")))
}
