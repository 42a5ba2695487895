//! Who an enclave is in TLS: a key made inside, and the quotes that speak for it.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use der::Encode;
use der::asn1::BitString;
use der::oid::db::rfc5912::{ID_EC_PUBLIC_KEY, SECP_256_R_1};
use p256::ecdsa::SigningKey;
use rustls::Error;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::certificate::{self, Contents};
use crate::connection::Server;
use crate::evidence::{Claims, Evidence, report_data};
use crate::provider::random;
use crate::provider::sign::Key;

/// The longest quote that is taken, in bytes: two of them fit into what clients accept as a
/// handshake message (64 KiB). Quotes have 4 to 5 KiB.
pub const MAX_QUOTE: usize = 24 << 10;
/// The longest nonce, in bytes.
pub const MAX_NONCE: usize = 1 << 10;

/// Where REPORTDATA are in a quote: after its header of 48 bytes, at 320 of the report.
const REPORT_DATA: core::ops::Range<usize> = 368..432;

/// A key that was made here. There is no way to take its private half out.
#[derive(Debug)]
pub struct Identity {
    key: Key,
    /// SubjectPublicKeyInfo in DER.
    spki: Vec<u8>,
    claims: Vec<u8>,
}

/// Quotes of reports of this enclave, which the host has got from its quoting enclave.
#[derive(Clone, Debug)]
pub struct Quotes {
    quote: Vec<u8>,
    legacy: Option<Vec<u8>>,
}

impl Quotes {
    /// A quote of a report with [`Identity::report_data`]: what the interoperable format has.
    pub fn new(quote: Vec<u8>) -> Self {
        Self { quote, legacy: None }
    }

    /// With a second one, of a report with [`Identity::legacy_report_data`], for clients that
    /// know the older format alone. It takes a quote of its own: both have their hash in
    /// the first half of REPORTDATA.
    #[must_use]
    pub fn legacy(mut self, quote: Vec<u8>) -> Self {
        self.legacy = Some(quote);
        self
    }
}

/// Why there is no identity, or no server of it.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentityError {
    /// A nonce longer than [`MAX_NONCE`].
    NonceTooLong,
    /// A quote longer than [`MAX_QUOTE`].
    QuoteTooLong,
    /// The quote is not of a report with the report data that it should be of.
    OtherReportData,
    /// No random numbers, or no certificate of what was given.
    Tls(Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonceTooLong => write!(f, "a nonce has at most {MAX_NONCE} bytes"),
            Self::QuoteTooLong => write!(f, "a quote has at most {MAX_QUOTE} bytes"),
            Self::OtherReportData => f.write_str(
                "the quote does not speak for this key: get one of a report with the identity's report data",
            ),
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for IdentityError {}

impl From<Error> for IdentityError {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl Identity {
    /// A new key.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::with_nonce(None)
    }

    /// A new key, and what a client wants to see in the certificate beside it, to know that
    /// the quote was not made before.
    ///
    /// # Errors
    /// The nonce is too long, or there are no random numbers.
    pub fn with_nonce(nonce: Option<&[u8]>) -> Result<Self, IdentityError> {
        if nonce.is_some_and(|nonce| nonce.len() > MAX_NONCE) {
            return Err(IdentityError::NonceTooLong);
        }
        let key = SigningKey::from(random::secret_key()?);
        let spki = spki(&key).map_err(|_| Error::General("the key cannot be encoded".into()))?;
        let claims = Claims::of_key(&spki, nonce.map(<[u8]>::to_vec)).write();
        Ok(Self { key: Key(key), spki, claims })
    }

    /// The public half: SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }

    /// REPORTDATA of the report whose quote goes into the certificate.
    pub fn report_data(&self) -> [u8; 64] {
        report_data(&self.claims)
    }

    /// REPORTDATA of the report for [`Quotes::legacy`].
    pub fn legacy_report_data(&self) -> [u8; 64] {
        report_data(&self.spki)
    }

    /// The server of this identity, as often as there is a new quote. What the quotes say
    /// beyond the key is for clients to judge.
    ///
    /// # Errors
    /// A quote is not for this key, or too long.
    pub fn with_quotes(&self, quotes: Quotes) -> Result<Server, IdentityError> {
        check(&quotes.quote, self.report_data())?;
        if let Some(quote) = &quotes.legacy {
            check(quote, self.legacy_report_data())?;
        }
        let evidence = Evidence { quote: &quotes.quote, claims: &self.claims }.write();
        let contents = Contents { spki: &self.spki, evidence, legacy_quote: quotes.legacy };
        let certificate = CertificateDer::from(certificate::make(contents, &self.key)?);
        let certified = CertifiedKey::new(vec![certificate.clone()], Arc::new(self.key.clone()));
        Ok(Server::new(certificate, SingleCertAndKey::from(certified))?)
    }
}

/// A wrong quote is found here and not by all clients.
fn check(quote: &[u8], wanted: [u8; 64]) -> Result<(), IdentityError> {
    if quote.len() > MAX_QUOTE {
        return Err(IdentityError::QuoteTooLong);
    }
    match quote.get(REPORT_DATA) {
        Some(data) if *data == wanted => Ok(()),
        _ => Err(IdentityError::OtherReportData),
    }
}

/// SubjectPublicKeyInfo (*RFC 5480 §2*).
fn spki(key: &SigningKey) -> der::Result<Vec<u8>> {
    let point = key.verifying_key().to_encoded_point(false);
    let parameters = Some((&SECP_256_R_1).into());
    SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned { oid: ID_EC_PUBLIC_KEY, parameters },
        subject_public_key: BitString::from_bytes(point.as_bytes())?,
    }
    .to_der()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{EVIDENCE, LEGACY_QUOTE};
    use der::Decode;
    use p256::ecdsa::signature::Verifier;
    use p256::ecdsa::{DerSignature, VerifyingKey};
    use p256::pkcs8::DecodePublicKey;
    use x509_cert::Certificate;

    fn quote(report_data: [u8; 64], fill: u8) -> Vec<u8> {
        let mut quote = vec![fill; 4600];
        quote[REPORT_DATA].copy_from_slice(&report_data);
        quote
    }

    #[test]
    fn a_certificate_has_the_key_its_signature_and_the_quotes() {
        let identity = Identity::with_nonce(Some(b"nonce")).unwrap();
        let [new, old] = [identity.report_data(), identity.legacy_report_data()];
        assert_eq!((&new[32..], &old[32..]), (&[0; 32][..], &[0; 32][..]));
        let quotes = Quotes::new(quote(new, 1));
        let plain = identity.with_quotes(quotes.clone()).unwrap();
        let both = identity.with_quotes(quotes.legacy(quote(old, 2))).unwrap();
        for (server, count) in [(plain, 3), (both, 4)] {
            let certificate = Certificate::from_der(server.certificate()).unwrap();
            let tbs = &certificate.tbs_certificate;
            assert_eq!(tbs.subject_public_key_info.to_der().unwrap(), identity.public_key());
            assert_eq!((&tbs.subject, tbs.serial_number.as_bytes().len()), (&tbs.issuer, 16));
            let key = VerifyingKey::from_public_key_der(identity.public_key()).unwrap();
            let signature = DerSignature::from_bytes(certificate.signature.raw_bytes()).unwrap();
            key.verify(&tbs.to_der().unwrap(), &signature).unwrap();

            let extensions = tbs.extensions.as_ref().unwrap();
            assert_eq!(extensions.len(), count);
            let value = |id| {
                let found = extensions.iter().find(|extension| extension.extn_id == id)?;
                assert!(!found.critical);
                Some(found.extn_value.as_bytes())
            };
            let evidence = Evidence::read(value(EVIDENCE).unwrap()).unwrap();
            assert_eq!(evidence.quote, quote(new, 1));
            let claims = Claims::read(evidence.claims).unwrap();
            assert_eq!(claims, Claims::of_key(identity.public_key(), Some(b"nonce".to_vec())));
            assert_eq!(value(LEGACY_QUOTE), (count == 4).then(|| quote(old, 2)).as_deref());
        }
    }

    #[test]
    fn quotes_for_another_key_and_what_is_too_long_are_refused() {
        let [identity, other] = [(); 2].map(|()| Identity::generate().unwrap());
        assert_ne!(identity.public_key(), other.public_key());
        let with = |quotes| identity.with_quotes(quotes).map(drop);
        let good = Quotes::new(quote(identity.report_data(), 0));
        assert_eq!(with(good.clone()), Ok(()));
        for wrong in [quote(other.report_data(), 0), quote(identity.legacy_report_data(), 0), vec![0; 431]] {
            assert_eq!(with(Quotes::new(wrong.clone())), Err(IdentityError::OtherReportData));
            if wrong.len() > 431 && wrong[REPORT_DATA] == identity.legacy_report_data() {
                continue;
            }
            assert_eq!(with(good.clone().legacy(wrong)), Err(IdentityError::OtherReportData));
        }
        assert_eq!(with(Quotes::new(vec![0; MAX_QUOTE + 1])), Err(IdentityError::QuoteTooLong));
        let nonce = Identity::with_nonce(Some(&[0; MAX_NONCE + 1])).map(drop);
        assert_eq!(nonce, Err(IdentityError::NonceTooLong));
    }
}
