//! The certificate: signed by its own key, with the evidence as an extension (*RFC 5280*).

use alloc::vec;
use alloc::vec::Vec;

use der::asn1::{BitString, ObjectIdentifier, OctetString, SetOfVec, UtcTime, Utf8StringRef};
use der::oid::AssociatedOid;
use der::oid::db::rfc4519::CN;
use der::oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::{Any, DateTime, Decode, Encode};
use rustls::Error;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

use crate::evidence::{EVIDENCE, LEGACY_QUOTE};
use crate::provider::random;
use crate::provider::sign::Key;

/// Subject and issuer. Who the enclave is stands in the evidence.
const NAME: &str = "SGX enclave";

/// What stands in it beside the key.
pub(crate) struct Contents<'a> {
    /// SubjectPublicKeyInfo in DER.
    pub(crate) spki: &'a [u8],
    /// The value of [`EVIDENCE`].
    pub(crate) evidence: Vec<u8>,
    /// That of [`LEGACY_QUOTE`].
    pub(crate) legacy_quote: Option<Vec<u8>>,
}

/// Makes it, in DER.
///
/// # Errors
/// There are no random numbers, or something is too long for DER.
pub(crate) fn make(contents: Contents<'_>, key: &Key) -> Result<Vec<u8>, Error> {
    let mut serial = [0; 16];
    rustls::crypto::SecureRandom::fill(&random::Random, &mut serial)?;
    // positive, and sixteen bytes in DER
    serial[0] = serial[0] & 0x7f | 0x40;
    let tbs = unsigned(contents, &serial).map_err(cannot_be_encoded)?;
    let signature = key.signature(&tbs.to_der().map_err(cannot_be_encoded)?)?;
    let signed = |tbs| -> der::Result<Vec<u8>> {
        let signature = BitString::from_bytes(&signature)?;
        Certificate { tbs_certificate: tbs, signature_algorithm: ALGORITHM, signature }.to_der()
    };
    signed(tbs).map_err(cannot_be_encoded)
}

fn cannot_be_encoded(error: der::Error) -> Error {
    Error::General(alloc::format!("the certificate cannot be encoded: {error}"))
}

const ALGORITHM: AlgorithmIdentifierOwned =
    AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_256, parameters: None };

fn unsigned(contents: Contents<'_>, serial: &[u8]) -> der::Result<TbsCertificate> {
    let name = name()?;
    let mut extensions = vec![
        known(&BasicConstraints { ca: false, path_len_constraint: None })?,
        known(&KeyUsage(KeyUsages::DigitalSignature.into()))?,
        extension(EVIDENCE, contents.evidence)?,
    ];
    if let Some(quote) = contents.legacy_quote {
        extensions.push(extension(LEGACY_QUOTE, quote)?);
    }
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(serial)?,
        signature: ALGORITHM,
        issuer: name.clone(),
        // Inside there is no clock to be trusted. It begins before any enclave of ours, and
        // ends as certificates do that have no end (*RFC 5280 §4.1.2.5*).
        validity: Validity {
            not_before: Time::UtcTime(UtcTime::from_date_time(DateTime::new(2020, 1, 1, 0, 0, 0)?)?),
            not_after: Time::INFINITY,
        },
        subject: name,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(contents.spki)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    })
}

fn name() -> der::Result<Name> {
    let value = Any::from(Utf8StringRef::new(NAME)?);
    let common_name = AttributeTypeAndValue { oid: CN, value };
    let mut names = SetOfVec::new();
    names.insert(common_name)?;
    Ok(RdnSequence(vec![RelativeDistinguishedName(names)]))
}

/// A critical extension of its type's own identifier.
fn known<T: AssociatedOid + Encode>(value: &T) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical: true, extn_value: OctetString::new(value.to_der()?)? })
}

/// One that who does not know it may overlook.
fn extension(id: ObjectIdentifier, value: Vec<u8>) -> der::Result<Extension> {
    Ok(Extension { extn_id: id, critical: false, extn_value: OctetString::new(value)? })
}
