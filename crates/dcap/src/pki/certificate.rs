//! Certificates, and what each role of the hierarchy asks of them.

use der::asn1::{BitStringRef, ObjectIdentifier};
use der::oid::db::rfc4519;
use der::oid::db::rfc5280::{
    ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_BASIC_CONSTRAINTS, ID_CE_CRL_DISTRIBUTION_POINTS, ID_CE_KEY_USAGE,
    ID_CE_SUBJECT_KEY_IDENTIFIER,
};
use der::oid::db::rfc5912::{ECDSA_WITH_SHA_256, ID_EC_PUBLIC_KEY, SECP_256_R_1};
use der::referenced::OwnedToRef;
use der::{Decode, Encode, Reader, SliceReader};
use std::fmt;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, KeyUsage, KeyUsages,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoOwned};
use x509_cert::{TbsCertificate, Version};

use crate::error::{Refusal, Rule, refuse};
use crate::key::PublicKey;
use crate::pki::sgx_extension::{PckExtension, SGX_EXTENSION};
use crate::time::{Time, Validity};

/// The largest certificate that is read, in bytes.
const MAX_CERTIFICATE_SIZE: usize = 16 << 10;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Signs itself, the two below and a revocation list.
    Root,
    /// Issued by the root; signs PCK certificates and a revocation list.
    PckCa,
    /// Issued by a PCK CA, for a platform's provisioning-certification enclave, which signs
    /// reports of quoting enclaves.
    Pck,
    /// Issued by the root; signs TCB info and QE identities.
    TcbSigning,
}

/// Which of the two PCK CAs issued a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PckAuthority {
    /// For platforms of one package.
    Processor,
    /// For platforms that register as a whole.
    Platform,
}

impl Role {
    /// What a certificate's common name contains, one of these.
    pub const fn common_names(self) -> &'static [&'static str] {
        match self {
            Self::Root => &["SGX Root CA"],
            Self::PckCa => &["SGX PCK Platform CA", "SGX PCK Processor CA"],
            Self::Pck => &["SGX PCK Certificate"],
            Self::TcbSigning => &["SGX TCB Signing"],
        }
    }

    /// True for those that sign certificates.
    pub const fn is_authority(self) -> bool {
        matches!(self, Self::Root | Self::PckCa)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root certificate",
            Self::PckCa => "PCK CA certificate",
            Self::Pck => "PCK certificate",
            Self::TcbSigning => "TCB signing certificate",
        })
    }
}

/// A certificate that says what its role has to say. Whether it is true is for
/// [`Certificate::check_issued_by`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    role: Role,
    der: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    common_name: String,
    validity: Validity,
    key: PublicKey,
    authority_key_id: Option<Vec<u8>>,
    subject_key_id: Vec<u8>,
    path_length: Option<u8>,
    sgx: Option<Vec<u8>>,
}

/// The three parts of what is signed in X.509: the signed bytes as they stand, the algorithm
/// (which must be ECDSA with SHA-256) and the signature.
pub(crate) fn signed_parts<'a>(der: &'a [u8], what: &str) -> Result<(&'a [u8], &'a [u8]), Refusal> {
    let read = || {
        let mut reader = SliceReader::new(der)?;
        let parts = reader.sequence(|inner| {
            let signed = inner.tlv_bytes()?;
            let algorithm = inner.decode::<AlgorithmIdentifierRef<'a>>()?;
            Ok((signed, algorithm, inner.decode::<BitStringRef<'a>>()?))
        })?;
        reader.finish(parts)
    };
    let (signed, algorithm, signature) = read().map_err(|error| encoding(what, error))?;
    check_algorithm(&algorithm, what)?;
    match signature.as_bytes() {
        Some(bytes) => Ok((signed, bytes)),
        None => refuse(Rule::Encoding, format!("{what}: signature"), "is not of whole bytes"),
    }
}

pub(crate) fn check_algorithm(algorithm: &AlgorithmIdentifierRef<'_>, what: &str) -> Result<(), Refusal> {
    if algorithm.oid != ECDSA_WITH_SHA_256 || algorithm.parameters.is_some() {
        let says = format!("is {}; ecdsa-with-SHA256 without parameters is used here", algorithm.oid);
        return refuse(Rule::CertAlgorithm, format!("{what}: signatureAlgorithm"), says);
    }
    Ok(())
}

fn encoding(what: &str, error: impl fmt::Display) -> Refusal {
    Refusal::new(Rule::Encoding, what, format!("is no DER of its kind: {error}"))
}

/// The one extension of that kind, decoded; `None` if there is none.
pub(crate) fn extension<'a, T: Decode<'a>>(
    extensions: &'a [Extension],
    oid: ObjectIdentifier,
    field: &str,
) -> Result<Option<T>, Refusal> {
    let mut found = extensions.iter().filter(|extension| extension.extn_id == oid);
    let Some(first) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return refuse(Rule::CertExtensionRepeated, field, "is there twice");
    }
    T::from_der(first.extn_value.as_bytes()).map(Some).map_err(|error| encoding(field, error))
}

impl Certificate {
    /// Reads a certificate and checks all that its role asks of it alone: *RFC 5280 §4* and
    /// the profile's tables.
    pub fn parse(role: Role, der: &[u8]) -> Result<Self, Refusal> {
        let what = role.to_string();
        if der.len() > MAX_CERTIFICATE_SIZE {
            let says = format!("has {} bytes; {MAX_CERTIFICATE_SIZE} are the most", der.len());
            return refuse(Rule::Oversized, what, says);
        }
        let (signed, signature) = signed_parts(der, &what)?;
        let tbs = TbsCertificate::from_der(signed).map_err(|error| encoding(&what, error))?;
        if tbs.version != Version::V3 {
            return refuse(
                Rule::CertVersion,
                format!("{what}: version"),
                format!("is {:?}, not V3", tbs.version),
            );
        }
        check_algorithm(&tbs.signature.owned_to_ref(), &what)?;
        let name = |name: &Name| name.to_der().map_err(|error| encoding(&what, error));
        let extensions = Extensions::read(role, tbs.extensions.as_deref().unwrap_or_default())?;
        let certificate = Self {
            role,
            der: der.to_vec(),
            signed: signed.to_vec(),
            signature: signature.to_vec(),
            serial: tbs.serial_number.as_bytes().to_vec(),
            issuer: name(&tbs.issuer)?,
            subject: name(&tbs.subject)?,
            common_name: common_name(&tbs.subject),
            validity: Validity {
                from: (&tbs.validity.not_before).into(),
                until: (&tbs.validity.not_after).into(),
            },
            key: public_key(&tbs.subject_public_key_info, &what)?,
            authority_key_id: extensions.authority_key_id,
            subject_key_id: extensions.subject_key_id,
            path_length: extensions.path_length,
            sgx: extensions.sgx,
        };
        if !role.common_names().iter().any(|phrase| certificate.common_name.contains(phrase)) {
            let phrases = role.common_names().join("\" or \"");
            let says = format!("is \"{}\", without \"{phrases}\"", certificate.common_name);
            return refuse(Rule::CertName, format!("{what}: subject CN"), says);
        }
        Ok(certificate)
    }

    /// Refuses it unless `issuer` issued it and `at` is within its validity.
    pub fn check_issued_by(&self, issuer: &Certificate, at: Time) -> Result<(), Refusal> {
        let what = self.role;
        if self.issuer != issuer.subject {
            let says = format!("is not the subject of the {}, \"{}\"", issuer.role, issuer.common_name);
            return refuse(Rule::CertIssuer, format!("{what}: issuer"), says);
        }
        if self.authority_key_id.as_ref() != Some(&issuer.subject_key_id) {
            let says = format!("is not the subject key identifier of the {}", issuer.role);
            return refuse(Rule::CertKeyIdentifier, format!("{what}: authorityKeyIdentifier"), says);
        }
        if !issuer.key.signed_der(&self.signed, &self.signature) {
            let says = format!("is not by the key of the {}, \"{}\"", issuer.role, issuer.common_name);
            return refuse(Rule::CertSignature, format!("{what}: signature"), says);
        }
        if self.role == Role::PckCa && issuer.path_length == Some(0) {
            let says = "is 0, which allows no authority below it";
            return refuse(Rule::CertPathLength, format!("{}: basicConstraints.pathLen", issuer.role), says);
        }
        self.check_validity(at)
    }

    /// Refuses a time before or after its validity.
    pub fn check_validity(&self, at: Time) -> Result<(), Refusal> {
        let names = ["validity.notBefore", "validity.notAfter"];
        let rules = [Rule::CertNotYetValid, Rule::CertExpired];
        self.validity.check(at, &self.role.to_string(), names, rules)
    }

    /// What it says of the platform, if it is a PCK certificate.
    pub fn pck_extension(&self) -> Result<PckExtension, Refusal> {
        let Some(extension) = &self.sgx else {
            let field = format!("{}: SGX extension", self.role);
            return refuse(Rule::SgxExtensionMissing, field, "is not there");
        };
        PckExtension::parse(extension)
    }

    /// Which PCK CA it is.
    pub fn pck_authority(&self) -> PckAuthority {
        match self.common_name.contains("Platform") {
            true => PckAuthority::Platform,
            false => PckAuthority::Processor,
        }
    }

    /// The certificate as it was read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its serial number as DER has it: a zero byte first if the next one's first bit is set.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// Its subject, as DER.
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The common name of its subject.
    pub fn common_name(&self) -> &str {
        &self.common_name
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Its subject's key.
    pub fn key(&self) -> PublicKey {
        self.key
    }

    /// The identifier of its subject's key.
    pub fn subject_key_id(&self) -> &[u8] {
        &self.subject_key_id
    }
}

/// What the extensions of a certificate say, of which five are in each.
struct Extensions {
    authority_key_id: Option<Vec<u8>>,
    subject_key_id: Vec<u8>,
    path_length: Option<u8>,
    sgx: Option<Vec<u8>>,
}

impl Extensions {
    fn read(role: Role, extensions: &[Extension]) -> Result<Self, Refusal> {
        const KNOWN: [(ObjectIdentifier, &str); 5] = [
            (ID_CE_AUTHORITY_KEY_IDENTIFIER, "authorityKeyIdentifier"),
            (ID_CE_CRL_DISTRIBUTION_POINTS, "cRLDistributionPoints"),
            (ID_CE_SUBJECT_KEY_IDENTIFIER, "subjectKeyIdentifier"),
            (ID_CE_KEY_USAGE, "keyUsage"),
            (ID_CE_BASIC_CONSTRAINTS, "basicConstraints"),
        ];
        let field = |name: &str| format!("{role}: {name}");
        for extension in extensions {
            let known =
                KNOWN.iter().any(|(oid, _)| *oid == extension.extn_id) || extension.extn_id == SGX_EXTENSION;
            if extension.critical && !known {
                let says = format!("{} is critical and not known here", extension.extn_id);
                return refuse(Rule::CertExtensionUnknown, field("extensions"), says);
            }
        }
        for (oid, name) in KNOWN {
            if !extensions.iter().any(|extension| extension.extn_id == oid) {
                return refuse(Rule::CertExtensionMissing, field(name), "is not there");
            }
        }
        let [authority, points, subject, usage, constraints] = KNOWN.map(|(oid, name)| (oid, field(name)));
        let authority: Option<AuthorityKeyIdentifier> = extension(extensions, authority.0, &authority.1)?;
        let _: Option<CrlDistributionPoints> = extension(extensions, points.0, &points.1)?;
        let subject_key: Option<SubjectKeyIdentifier> = extension(extensions, subject.0, &subject.1)?;
        let key_usage: Option<KeyUsage> = extension(extensions, usage.0, &usage.1)?;
        let basic: Option<BasicConstraints> = extension(extensions, constraints.0, &constraints.1)?;
        let sgx: Option<der::Any> = extension(extensions, SGX_EXTENSION, &field("SGX extension"))?;
        let (Some(subject_key), Some(key_usage), Some(basic)) = (subject_key, key_usage, basic) else {
            unreachable!("they were counted above");
        };
        if basic.ca != role.is_authority() {
            let says =
                if basic.ca { "is TRUE for one that may issue nothing" } else { "is FALSE for an authority" };
            return refuse(Rule::CertAuthority, field("basicConstraints.cA"), says);
        }
        let signs = KeyUsages::DigitalSignature;
        let fits = match role.is_authority() {
            true => key_usage.0 == (KeyUsages::KeyCertSign | KeyUsages::CRLSign),
            false => key_usage.0 == signs || key_usage.0 == (signs | KeyUsages::NonRepudiation),
        };
        if !fits {
            let wants = match role.is_authority() {
                true => "keyCertSign and cRLSign",
                false => "digitalSignature, perhaps with nonRepudiation",
            };
            return refuse(Rule::CertKeyUsage, field("keyUsage"), format!("is not {wants}, and that alone"));
        }
        Ok(Self {
            authority_key_id: authority.and_then(|id| id.key_identifier).map(|id| id.as_bytes().to_vec()),
            subject_key_id: subject_key.0.as_bytes().to_vec(),
            path_length: basic.path_len_constraint,
            sgx: sgx
                .map(|any| any.to_der())
                .transpose()
                .map_err(|error| encoding(&field("SGX extension"), error))?,
        })
    }
}

fn public_key(spki: &SubjectPublicKeyInfoOwned, what: &str) -> Result<PublicKey, Refusal> {
    let field = format!("{what}: subjectPublicKeyInfo");
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    if spki.algorithm.oid != ID_EC_PUBLIC_KEY || curve != Some(SECP_256_R_1) {
        return refuse(
            Rule::CertKey,
            field,
            format!("is of the kind {}, not a point of P-256", spki.algorithm.oid),
        );
    }
    match spki.subject_public_key.as_bytes().and_then(PublicKey::from_sec1) {
        Some(key) => Ok(key),
        None => refuse(Rule::CertKey, field, "is not an uncompressed point of P-256"),
    }
}

/// The common name of a subject, or nothing.
fn common_name(name: &Name) -> String {
    let attributes = name.0.iter().flat_map(|rdn| rdn.0.iter());
    let mut names = attributes.filter(|attribute| attribute.oid == rfc4519::CN);
    let text =
        |any: &der::Any| -> Option<String> { std::str::from_utf8(any.value()).ok().map(str::to_owned) };
    names.next().and_then(|attribute| text(&attribute.value)).unwrap_or_default()
}
