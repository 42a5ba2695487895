//! What is read of a certificate: its key, its dates, its evidence.

use dcap::policy::ReportData;
use dcap::quote::Body;
use dcap::{Quote, Time};
use der::asn1::ObjectIdentifier;
use der::{Decode, Encode, Reader, SliceReader};
use enclave_tls::evidence::{Claims, EVIDENCE, Evidence, HashAlgorithm, LEGACY_QUOTE, report_data};
use rustls::crypto::WebPkiSupportedAlgorithms;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::{TbsCertificate, Version};

use crate::refusal::{Refusal, Rule, refuse};

/// The largest certificate that is read, in bytes. Two quotes have 10 KiB.
pub const MAX_CERTIFICATE: usize = 64 << 10;

/// A certificate that its own key has signed.
#[derive(Clone, Debug)]
pub struct Certificate {
    tbs: TbsCertificate,
    spki: Vec<u8>,
}

/// In which format evidence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Interoperable RA-TLS: a quote and claims.
    Interoperable,
    /// The quote alone, as Gramine had it first.
    Legacy,
}

/// A quote, and what it must say so that it speaks for the certificate's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// In which format it was there.
    pub format: Format,
    /// The quote. Nothing of it is verified yet: see [`Speaks::quote`].
    pub quote: Vec<u8>,
    /// What REPORTDATA must be.
    pub report_data: [u8; 64],
    /// The nonce in the claims.
    pub nonce: Option<Vec<u8>>,
}

impl Speaks {
    /// The quote, read, which binds the certificate's key. Nothing else of it is verified:
    /// anybody can write one.
    ///
    /// # Errors
    /// It is none, or an enclave's with other report data: it says nothing of this key.
    pub fn quote(&self) -> Result<Quote, Refusal> {
        let quote = Quote::parse(&self.quote)?;
        let Body::Enclave(report) = &quote.body else {
            let (field, what) = ("quote: body".to_owned(), "is no enclave's".to_owned());
            return Err(dcap::Refusal { rule: dcap::Rule::TeeType, field, what }.into());
        };
        ReportData(self.report_data.to_vec()).check(report)?;
        Ok(quote)
    }
}

impl Certificate {
    /// Reads one in DER, and verifies that its own key has signed it, by one of these
    /// algorithms.
    ///
    /// # Errors
    /// It is none, or somebody else's.
    pub fn read(bytes: &[u8], algorithms: &WebPkiSupportedAlgorithms) -> Result<Self, Refusal> {
        if bytes.len() > MAX_CERTIFICATE {
            return refuse(
                Rule::Oversized,
                format_args!("has {} bytes; {MAX_CERTIFICATE} are the most", bytes.len()),
            );
        }
        let parts = Parts::split(bytes).map_err(|error| Refusal::new(Rule::Encoding, error))?;
        let tbs =
            TbsCertificate::from_der(parts.signed).map_err(|error| Refusal::new(Rule::Encoding, error))?;
        if tbs.version != Version::V3 {
            return refuse(Rule::Encoding, "is not of version 3");
        }
        let der = |what: &dyn DynEncode| what.der().map_err(|error| Refusal::new(Rule::Encoding, error));
        let spki = der(&tbs.subject_public_key_info)?;
        let certificate = Self { spki, tbs };
        let key_algorithm = content(&der(&certificate.tbs.subject_public_key_info.algorithm)?)?;
        if der(&certificate.tbs.signature)? != parts.algorithm {
            return refuse(Rule::Signature, "says of two algorithms that they signed it");
        }
        let algorithm = content(parts.algorithm)?;
        let key = certificate.tbs.subject_public_key_info.subject_public_key.raw_bytes();
        let mut known = algorithms.all.iter().filter(|known| {
            known.public_key_alg_id().as_ref() == key_algorithm
                && known.signature_alg_id().as_ref() == algorithm
        });
        match known.next() {
            None => refuse(Rule::Signature, "is signed by an algorithm that is not known here"),
            Some(known) if known.verify_signature(key, parts.signed, parts.signature).is_err() => {
                refuse(Rule::Signature, "is not signed by its own key")
            }
            Some(_) => Ok(certificate),
        }
    }

    /// SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> &[u8] {
        &self.spki
    }

    /// Refuses it at a time at which it does not say that it is valid.
    ///
    /// # Errors
    /// As said.
    pub fn check_validity(&self, at: Time) -> Result<(), Refusal> {
        let validity = &self.tbs.validity;
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        if at.unix() < seconds(&validity.not_before) {
            return refuse(Rule::NotYetValid, format_args!("is valid from {} on", validity.not_before));
        }
        if at.unix() > seconds(&validity.not_after) {
            return refuse(Rule::Expired, format_args!("was valid until {}", validity.not_after));
        }
        Ok(())
    }

    /// The evidence, in the interoperable format if it is there in that.
    ///
    /// # Errors
    /// There is none, or none of this certificate's key.
    pub fn evidence(&self) -> Result<Speaks, Refusal> {
        let extension = |id: ObjectIdentifier| {
            let mut all = self.tbs.extensions.iter().flatten().filter(|extension| extension.extn_id == id);
            match (all.next(), all.next()) {
                (Some(_), Some(_)) => refuse(Rule::Evidence, format_args!("has the extension {id} twice")),
                (first, _) => Ok(first.map(|extension| extension.extn_value.as_bytes())),
            }
        };
        match (extension(EVIDENCE)?, extension(LEGACY_QUOTE)?) {
            (Some(value), _) => self.interoperable(value),
            (None, Some(quote)) => Ok(Speaks {
                format: Format::Legacy,
                quote: quote.to_vec(),
                report_data: report_data(&self.spki),
                nonce: None,
            }),
            (None, None) => refuse(
                Rule::EvidenceMissing,
                format_args!(
                    "has neither the extension {EVIDENCE} nor {LEGACY_QUOTE}: nothing says that an enclave holds its key"
                ),
            ),
        }
    }

    fn interoperable(&self, value: &[u8]) -> Result<Speaks, Refusal> {
        let malformed = |error| Refusal::new(Rule::Evidence, format_args!("evidence: {error}"));
        let evidence = Evidence::read(value).map_err(malformed)?;
        let claims = Claims::read(evidence.claims).map_err(malformed)?;
        let key_hash = match claims.algorithm {
            HashAlgorithm::Sha256 => Sha256::digest(&self.spki).to_vec(),
            HashAlgorithm::Sha384 => Sha384::digest(&self.spki).to_vec(),
            HashAlgorithm::Sha512 => Sha512::digest(&self.spki).to_vec(),
        };
        if claims.key_hash != key_hash {
            return refuse(Rule::KeyHash, "the claims in the evidence are about another key");
        }
        Ok(Speaks {
            format: Format::Interoperable,
            quote: evidence.quote.to_vec(),
            report_data: report_data(evidence.claims),
            nonce: claims.nonce,
        })
    }
}

/// The parts of a certificate as they stand there (*RFC 5280 §4.1*).
struct Parts<'a> {
    /// TBSCertificate.
    signed: &'a [u8],
    /// AlgorithmIdentifier of the signature.
    algorithm: &'a [u8],
    /// The signature.
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(bytes: &'a [u8]) -> der::Result<Self> {
        let mut reader = SliceReader::new(bytes)?;
        let parts = reader.sequence(|reader| {
            let (signed, algorithm) = (reader.tlv_bytes()?, reader.tlv_bytes()?);
            let signature = der::asn1::BitStringRef::decode(reader)?;
            let signature = signature.as_bytes().ok_or(der::Tag::BitString.value_error())?;
            Ok(Self { signed, algorithm, signature })
        })?;
        reader.finish(parts)
    }
}

/// What is inside a DER value.
fn content(der: &[u8]) -> Result<Vec<u8>, Refusal> {
    let any = der::asn1::AnyRef::from_der(der).map_err(|error| Refusal::new(Rule::Encoding, error))?;
    Ok(any.value().to_vec())
}

/// `Encode` as an object.
trait DynEncode {
    fn der(&self) -> der::Result<Vec<u8>>;
}

impl<T: Encode> DynEncode for T {
    fn der(&self) -> der::Result<Vec<u8>> {
        self.to_der()
    }
}
