//! Certificates (*PCK Certificate and CRL Profile Specification*; the names are ours).

use der::asn1::{BitString, Ia5String, OctetString, SetOfVec, Utf8StringRef};
use der::oid::AssociatedOid;
use der::oid::db::rfc4519;
use der::oid::db::rfc5912::{ID_EC_PUBLIC_KEY, SECP_256_R_1};
use der::{Any, Decode, Encode};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Validity as X509Validity;
use x509_cert::{TbsCertificate, Version};

use crate::error::{Refusal, Rule, refuse};
use crate::issue::{Issuer, ORGANIZATION, algorithm, made, sign};
use crate::key::{PrivateKey, PublicKey, sha256};
use crate::pki::{Certificate, PckExtension, Role, SGX_EXTENSION};
use crate::time::Validity;

/// A certificate that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What for.
    pub role: Role,
    /// Its serial number: 16 bytes that the issuer uses once, most significant first.
    pub serial: [u8; 16],
    /// When it shall be valid.
    pub validity: Validity,
    /// Its subject's key.
    pub key: PublicKey,
    /// Where the issuer's revocation list is to be found.
    pub crl_url: &'a str,
    /// The platform, for [`Role::Pck`] and for it alone.
    pub platform: Option<&'a PckExtension>,
}

/// The common name of what is issued for a role.
pub fn common_name(role: Role) -> &'static str {
    match role {
        Role::Root => "Kluis SGX Root CA",
        Role::PckCa => "Kluis SGX PCK Platform CA",
        Role::Pck => "Kluis SGX PCK Certificate",
        Role::TcbSigning => "Kluis SGX TCB Signing",
    }
}

/// Issues a certificate below an authority.
pub fn issue(request: &Request<'_>, issuer: Issuer<'_>) -> Result<Certificate, Refusal> {
    let tbs = unsigned(request, Some(issuer.certificate))?;
    Certificate::parse(request.role, &sign(&made("certificate", tbs.to_der())?, issuer.key)?)
}

/// Issues a root, which signs itself. [`Request::key`] must be the key's public part.
pub fn issue_root(request: &Request<'_>, key: &PrivateKey) -> Result<Certificate, Refusal> {
    if request.key != key.public() {
        return refuse(Rule::CertKey, "root certificate: key", "is not the key that signs it");
    }
    let tbs = unsigned(request, None)?;
    let certificate = Certificate::parse(request.role, &sign(&made("certificate", tbs.to_der())?, key)?)?;
    certificate.check_issued_by(&certificate, request.validity.from)?;
    Ok(certificate)
}

/// The certificate before it is signed; without an issuer it is its own.
pub fn unsigned(request: &Request<'_>, issuer: Option<&Certificate>) -> Result<TbsCertificate, Refusal> {
    let what = request.role.to_string();
    if (request.role == Role::Pck) != request.platform.is_some() {
        return refuse(
            Rule::SgxExtension,
            what,
            "is for a platform if, and only if, it is a PCK certificate",
        );
    }
    made(&what, try_unsigned(request, issuer))
}

fn try_unsigned(request: &Request<'_>, issuer: Option<&Certificate>) -> der::Result<TbsCertificate> {
    let key_id = key_identifier(&request.key);
    let subject = name(common_name(request.role))?;
    let (issuer_name, issuer_key_id) = match issuer {
        Some(issuer) => (Name::from_der(issuer.subject())?, issuer.subject_key_id().to_vec()),
        None => (subject.clone(), key_id.to_vec()),
    };
    let mut extensions = vec![
        extension(
            false,
            &AuthorityKeyIdentifier {
                key_identifier: Some(OctetString::new(issuer_key_id)?),
                ..AuthorityKeyIdentifier::default()
            },
        )?,
        extension(false, &crl_distribution_points(request.crl_url)?)?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key_id)?))?,
        extension(
            true,
            &KeyUsage(match request.role.is_authority() {
                true => KeyUsages::KeyCertSign | KeyUsages::CRLSign,
                false => KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
            }),
        )?,
        extension(
            true,
            &BasicConstraints {
                ca: request.role.is_authority(),
                path_len_constraint: match request.role {
                    Role::Root => Some(1),
                    Role::PckCa => Some(0),
                    Role::Pck | Role::TcbSigning => None,
                },
            },
        )?,
    ];
    if let Some(platform) = request.platform {
        let extn_value = OctetString::new(platform.to_der()?)?;
        extensions.push(Extension { extn_id: SGX_EXTENSION, critical: false, extn_value });
    }
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&request.serial)?,
        signature: algorithm(),
        issuer: issuer_name,
        validity: X509Validity {
            not_before: request.validity.from.x509()?,
            not_after: request.validity.until.x509()?,
        },
        subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: ID_EC_PUBLIC_KEY,
                parameters: Some(Any::from(SECP_256_R_1)),
            },
            subject_public_key: BitString::from_bytes(&request.key.sec1())?,
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    })
}

/// An extension of its type's own identifier.
pub(super) fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// The first 160 bits of the SHA-256 of the key (*RFC 7093 §2*, method 1).
fn key_identifier(key: &PublicKey) -> [u8; 20] {
    let hash = sha256(&[&key.sec1()]);
    *hash.first_chunk().expect("shorter than a hash")
}

/// A common name and our organization, each in a set of its own.
fn name(common_name: &str) -> der::Result<Name> {
    let one = |oid, text: &str| -> der::Result<RelativeDistinguishedName> {
        let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
        Ok(RelativeDistinguishedName(SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }])?))
    };
    Ok(RdnSequence(vec![one(rfc4519::CN, common_name)?, one(rfc4519::O, ORGANIZATION)?]))
}

fn crl_distribution_points(url: &str) -> der::Result<CrlDistributionPoints> {
    let url = GeneralName::UniformResourceIdentifier(Ia5String::new(url)?);
    let distribution_point = Some(DistributionPointName::FullName(vec![url]));
    Ok(CrlDistributionPoints(vec![DistributionPoint { distribution_point, reasons: None, crl_issuer: None }]))
}
