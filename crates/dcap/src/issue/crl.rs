//! Revocation lists (*RFC 5280 §5*).

use der::asn1::{OctetString, Uint};
use der::{Decode, Encode};
use x509_cert::Version;
use x509_cert::crl::{RevokedCert, TbsCertList};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

use crate::error::Refusal;
use crate::issue::certificate::extension;
use crate::issue::{Issuer, algorithm, made, sign};
use crate::pki::Certificate;
use crate::time::{Time, Validity};

/// A revocation list that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// From this update to the next.
    pub validity: Validity,
    /// Its number, larger than its predecessor's.
    pub number: u64,
    /// Serial numbers of certificates of this issuer, and since when they are revoked.
    pub revoked: Vec<(Vec<u8>, Time)>,
}

/// Issues an authority's list, as DER.
pub fn issue(request: &Request, issuer: Issuer<'_>) -> Result<Vec<u8>, Refusal> {
    let tbs = unsigned(request, issuer.certificate)?;
    sign(&made("revocation list", tbs.to_der())?, issuer.key)
}

/// The list before it is signed.
pub fn unsigned(request: &Request, issuer: &Certificate) -> Result<TbsCertList, Refusal> {
    made("revocation list", try_unsigned(request, issuer))
}

fn try_unsigned(request: &Request, issuer: &Certificate) -> der::Result<TbsCertList> {
    let revoked = request.revoked.iter().map(|(serial, since)| {
        let serial_number = SerialNumber::new(serial)?;
        Ok(RevokedCert { serial_number, revocation_date: since.x509()?, crl_entry_extensions: None })
    });
    let revoked: Vec<_> = revoked.collect::<der::Result<_>>()?;
    let key_identifier = Some(OctetString::new(issuer.subject_key_id())?);
    Ok(TbsCertList {
        version: Version::V2,
        signature: algorithm(),
        issuer: Name::from_der(issuer.subject())?,
        this_update: request.validity.from.x509()?,
        next_update: Some(request.validity.until.x509()?),
        // an empty list is left out
        revoked_certificates: (!revoked.is_empty()).then_some(revoked),
        crl_extensions: Some(vec![
            extension(false, &CrlNumber(Uint::new(&request.number.to_be_bytes())?))?,
            extension(
                false,
                &AuthorityKeyIdentifier { key_identifier, ..AuthorityKeyIdentifier::default() },
            )?,
        ]),
    })
}
