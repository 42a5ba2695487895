//! Certificate revocation lists (*RFC 5280 §5*).

use der::asn1::{ObjectIdentifier, UintRef};
use der::oid::db::rfc5280::{ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS};
use der::referenced::OwnedToRef;
use der::{Decode, Encode};
use std::collections::HashSet;
use x509_cert::Version;
use x509_cert::crl::TbsCertList;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

use crate::error::{Refusal, Rule, refuse};
use crate::pki::certificate::{Certificate, Role, check_algorithm, extension, signed_parts};
use crate::time::{Time, Validity};

/// The largest list that is read, in bytes.
pub(crate) const MAX_CRL_SIZE: usize = 4 << 20;

/// A revocation list; whether it is true is for [`Crl::check_issued_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    what: &'static str,
    signed: Vec<u8>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    validity: Validity,
    number: Vec<u8>,
    authority_key_id: Vec<u8>,
    revoked: HashSet<Vec<u8>>,
}

impl Crl {
    /// Reads the list of an authority's role, [`Role::Root`] or [`Role::PckCa`].
    pub fn parse(issuer: Role, der: &[u8]) -> Result<Self, Refusal> {
        let what = if issuer == Role::Root { "root CRL" } else { "PCK CRL" };
        if der.len() > MAX_CRL_SIZE {
            let says = format!("has {} bytes; {MAX_CRL_SIZE} are the most", der.len());
            return refuse(Rule::Oversized, what, says);
        }
        let encoding = |error| Refusal::new(Rule::Encoding, what, format!("is no DER of its kind: {error}"));
        let (signed, signature) = signed_parts(der, what)?;
        let list = TbsCertList::from_der(signed).map_err(encoding)?;
        if list.version != Version::V2 {
            return refuse(
                Rule::CrlVersion,
                format!("{what}: version"),
                format!("is {:?}, not V2", list.version),
            );
        }
        check_algorithm(&list.signature.owned_to_ref(), what)?;
        let extensions = list.crl_extensions.as_deref().unwrap_or_default();
        known(extensions, &[ID_CE_CRL_NUMBER, ID_CE_AUTHORITY_KEY_IDENTIFIER], what)?;
        let missing =
            |name: &str| Refusal::new(Rule::CrlFieldMissing, format!("{what}: {name}"), "is not there");
        let number = extension::<UintRef<'_>>(extensions, ID_CE_CRL_NUMBER, &format!("{what}: cRLNumber"))?
            .ok_or_else(|| missing("cRLNumber"))?;
        let field = format!("{what}: authorityKeyIdentifier");
        let key_id: Option<AuthorityKeyIdentifier> =
            extension(extensions, ID_CE_AUTHORITY_KEY_IDENTIFIER, &field)?;
        let key_id =
            key_id.and_then(|id| id.key_identifier).ok_or_else(|| missing("authorityKeyIdentifier"))?;
        let next_update = list.next_update.as_ref().ok_or_else(|| missing("nextUpdate"))?;
        let entries = list.revoked_certificates.as_deref().unwrap_or_default();
        for entry in entries {
            known(entry.crl_entry_extensions.as_deref().unwrap_or_default(), &[ID_CE_CRL_REASONS], what)?;
        }
        Ok(Self {
            what,
            signed: signed.to_vec(),
            signature: signature.to_vec(),
            issuer: list.issuer.to_der().map_err(encoding)?,
            validity: Validity { from: (&list.this_update).into(), until: next_update.into() },
            number: number.as_bytes().to_vec(),
            authority_key_id: key_id.as_bytes().to_vec(),
            revoked: entries.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect(),
        })
    }

    /// Refuses it unless `issuer` issued it and `at` is within its validity.
    pub fn check_issued_by(&self, issuer: &Certificate, at: Time) -> Result<(), Refusal> {
        let what = self.what;
        if self.issuer != issuer.subject() {
            let says = format!("is not the subject of the {}, \"{}\"", issuer.role(), issuer.common_name());
            return refuse(Rule::CrlIssuer, format!("{what}: issuer"), says);
        }
        if self.authority_key_id != issuer.subject_key_id() {
            let says = format!("is not the subject key identifier of the {}", issuer.role());
            return refuse(Rule::CrlKeyIdentifier, format!("{what}: authorityKeyIdentifier"), says);
        }
        if !issuer.key().signed_der(&self.signed, &self.signature) {
            let says = format!("is not by the key of the {}, \"{}\"", issuer.role(), issuer.common_name());
            return refuse(Rule::CrlSignature, format!("{what}: signature"), says);
        }
        self.validity.check(at, what, ["thisUpdate", "nextUpdate"], [Rule::CrlNotYetValid, Rule::CrlExpired])
    }

    /// Refuses a certificate of the list's issuer that is on it.
    pub fn check_not_revoked(&self, certificate: &Certificate) -> Result<(), Refusal> {
        if self.revoked.contains(certificate.serial()) {
            let says = format!("{} is on the {}", crate::hex::encode(certificate.serial()), self.what);
            return refuse(Rule::Revoked, format!("{}: serialNumber", certificate.role()), says);
        }
        Ok(())
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its number, most significant byte first.
    pub fn number(&self) -> &[u8] {
        &self.number
    }

    /// How many certificates are on it.
    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }
}

fn known(extensions: &[Extension], known: &[ObjectIdentifier], what: &str) -> Result<(), Refusal> {
    match extensions.iter().find(|extension| extension.critical && !known.contains(&extension.extn_id)) {
        Some(unknown) => {
            let says = format!("{} is critical and not known here", unknown.extn_id);
            refuse(Rule::CrlExtensionUnknown, format!("{what}: extensions"), says)
        }
        None => Ok(()),
    }
}
