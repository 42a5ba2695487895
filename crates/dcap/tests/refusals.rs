//! What is refused and why: objects that are changed and signed again by the right key, so
//! that exactly one rule is broken. The same goes to `dcap-qvl`; where it accepts, the table
//! says why we do not.

mod common;

use common::{Judge, judge};
use dcap::collateral::TcbStatus;
use dcap::quote::{CertificationData, RawTcb};
use dcap::testing::{Parts, components, day, levels, platform};
use dcap::{Rule, Time};
use der::Encode;
use der::asn1::{Null, ObjectIdentifier, OctetString};
use sgx_abi::{AttributeFlags, MiscSelect};
use x509_cert::TbsCertificate;
use x509_cert::crl::RevokedCert;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::{Time as X509Time, Validity};

const AKI: &str = "2.5.29.35";
const CRL_POINTS: &str = "2.5.29.31";
const SKI: &str = "2.5.29.14";
const KEY_USAGE: &str = "2.5.29.15";
const CONSTRAINTS: &str = "2.5.29.19";
const SGX: &str = "1.2.840.113741.1.13.1";
const CRL_NUMBER: &str = "2.5.29.20";
const UNKNOWN: &str = "1.3.6.1.4.1.99999.1";

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) rule: Rule,
    /// What the message says first.
    field: &'static str,
    judge: Judge,
    pub(crate) change: fn(&mut Parts),
}

const fn case(
    name: &'static str,
    rule: Rule,
    field: &'static str,
    judge: Judge,
    change: fn(&mut Parts),
) -> Case {
    Case { name, rule, field, judge, change }
}

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new(text).unwrap()
}

fn extensions(tbs: &mut TbsCertificate) -> &mut Vec<Extension> {
    tbs.extensions.as_mut().unwrap()
}

fn remove(tbs: &mut TbsCertificate, id: &str) {
    let before = extensions(tbs).len();
    extensions(tbs).retain(|extension| extension.extn_id != oid(id));
    assert_eq!(extensions(tbs).len(), before - 1);
}

fn set(tbs: &mut TbsCertificate, id: &str, value: &impl Encode) {
    let extension = extensions(tbs).iter_mut().find(|extension| extension.extn_id == oid(id)).unwrap();
    extension.extn_value = OctetString::new(value.to_der().unwrap()).unwrap();
}

fn unknown(critical: bool) -> Extension {
    let extn_value = OctetString::new(Null.to_der().unwrap()).unwrap();
    Extension { extn_id: oid(UNKNOWN), critical, extn_value }
}

fn usage(tbs: &mut TbsCertificate, usages: x509_cert::der::flagset::FlagSet<KeyUsages>) {
    set(tbs, KEY_USAGE, &KeyUsage(usages));
}

fn constraints(tbs: &mut TbsCertificate, ca: bool, path_len_constraint: Option<u8>) {
    set(tbs, CONSTRAINTS, &BasicConstraints { ca, path_len_constraint });
}

/// Another authority key identifier, in the structure of the right one.
fn other_key_id(extensions: &mut [Extension]) {
    let extension = extensions.iter_mut().find(|extension| extension.extn_id == oid(AKI)).unwrap();
    let mut bytes = extension.extn_value.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    extension.extn_value = OctetString::new(bytes).unwrap();
}

fn x509(time: Time) -> X509Time {
    let duration = std::time::Duration::from_secs(time.unix());
    X509Time::UtcTime(der::asn1::UtcTime::from_unix_duration(duration).unwrap())
}

fn valid(tbs: &mut TbsCertificate, from: u32, until: u32) {
    tbs.validity = Validity { not_before: x509(day(from)), not_after: x509(day(until)) };
}

fn name(common_name: &str) -> Name {
    format!("O=Kluis software platform,CN={common_name}").parse().unwrap()
}

fn revoke(list: &mut x509_cert::crl::TbsCertList, serial: u8) {
    list.revoked_certificates = Some(vec![RevokedCert {
        serial_number: SerialNumber::new(&[serial; 16]).unwrap(),
        revocation_date: x509(day(1)),
        crl_entry_extensions: None,
    }]);
}

fn crl_extensions(list: &mut x509_cert::crl::TbsCertList) -> &mut Vec<Extension> {
    list.crl_extensions.as_mut().unwrap()
}

/// Replaces bytes in the value of the SGX extension, of the same length.
fn patch_sgx(parts: &mut Parts, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let extension = extensions(&mut parts.pck).iter_mut().find(|one| one.extn_id == oid(SGX)).unwrap();
    let mut bytes = extension.extn_value.as_bytes().to_vec();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    extension.extn_value = OctetString::new(bytes).unwrap();
}

fn raw_tcb() -> RawTcb {
    let platform = platform();
    RawTcb { cpusvn: platform.tcb.cpusvn, pcesvn: platform.tcb.pcesvn, pceid: platform.pceid }
}

/// A certification that says something of the platform, and the chain beside the quote.
fn certified(parts: &mut Parts, certification: CertificationData) {
    parts.certification = Some(certification);
    parts.chain_in_collateral = true;
}

use Judge::{Accepts, Refuses};

const NO_PROFILE: Judge =
    Accepts("it does not compare certificates with Intel's profile; Intel's library does");
const NO_USAGE: Judge = Accepts("its X.509 library does not look at key usage");
const NO_NAMES: Judge = Accepts("it does not look at common names; Intel's library does");
const NO_ROOT: Judge = Accepts("to it a root is a name and a key");

/// All of them; `judges` has them judged by another verifier.
pub(crate) const CASES: &[Case] = &[
    // certificates: time
    case("root expired", Rule::CertExpired, "root certificate: validity.notAfter", NO_ROOT, |p| {
        valid(&mut p.root, 0, 5)
    }),
    case("root not yet valid", Rule::CertNotYetValid, "root certificate: validity.notBefore", NO_ROOT, |p| {
        valid(&mut p.root, 20, 500);
    }),
    case("PCK CA expired", Rule::CertExpired, "PCK CA certificate: validity.notAfter", Refuses, |p| {
        valid(&mut p.pck_ca, 0, 5);
    }),
    case(
        "PCK CA not yet valid",
        Rule::CertNotYetValid,
        "PCK CA certificate: validity.notBefore",
        Refuses,
        |p| {
            valid(&mut p.pck_ca, 20, 500);
        },
    ),
    case("PCK expired", Rule::CertExpired, "PCK certificate: validity.notAfter", Refuses, |p| {
        valid(&mut p.pck, 0, 5)
    }),
    case("PCK not yet valid", Rule::CertNotYetValid, "PCK certificate: validity.notBefore", Refuses, |p| {
        valid(&mut p.pck, 20, 500);
    }),
    case(
        "TCB signer expired",
        Rule::CertExpired,
        "TCB signing certificate: validity.notAfter",
        Refuses,
        |p| {
            valid(&mut p.tcb, 0, 5);
        },
    ),
    // certificates: roles
    case(
        "a root that allows no CA",
        Rule::CertPathLength,
        "root certificate: basicConstraints.pathLen",
        NO_ROOT,
        |p| {
            constraints(&mut p.root, true, Some(0));
        },
    ),
    case(
        "a root that is no CA",
        Rule::CertAuthority,
        "root certificate: basicConstraints.cA",
        NO_ROOT,
        |p| {
            constraints(&mut p.root, false, None);
        },
    ),
    case(
        "a PCK CA that is no CA",
        Rule::CertAuthority,
        "PCK CA certificate: basicConstraints.cA",
        Refuses,
        |p| {
            constraints(&mut p.pck_ca, false, None);
        },
    ),
    case(
        "a PCK certificate that is a CA",
        Rule::CertAuthority,
        "PCK certificate: basicConstraints.cA",
        Refuses,
        |p| {
            constraints(&mut p.pck, true, Some(0));
        },
    ),
    case(
        "a TCB signer that is a CA",
        Rule::CertAuthority,
        "TCB signing certificate: basicConstraints",
        Refuses,
        |p| {
            constraints(&mut p.tcb, true, Some(0));
        },
    ),
    case("a root that may not sign lists", Rule::CertKeyUsage, "root certificate: keyUsage", NO_ROOT, |p| {
        usage(&mut p.root, KeyUsages::KeyCertSign.into());
    }),
    case(
        "a PCK CA that may not sign certificates",
        Rule::CertKeyUsage,
        "PCK CA certificate: keyUsage",
        NO_USAGE,
        |p| {
            usage(&mut p.pck_ca, KeyUsages::CRLSign.into());
        },
    ),
    case(
        "a PCK key that may sign certificates",
        Rule::CertKeyUsage,
        "PCK certificate: keyUsage",
        NO_USAGE,
        |p| {
            usage(&mut p.pck, KeyUsages::DigitalSignature | KeyUsages::KeyCertSign);
        },
    ),
    case(
        "a TCB signer that may not sign",
        Rule::CertKeyUsage,
        "TCB signing certificate: keyUsage",
        NO_USAGE,
        |p| {
            usage(&mut p.tcb, KeyUsages::KeyAgreement.into());
        },
    ),
    case("root with another name", Rule::CertName, "root certificate: subject CN", Refuses, |p| {
        p.root.subject = name("Kluis Root");
        p.root.issuer = name("Kluis Root");
    }),
    case("PCK with another name", Rule::CertName, "PCK certificate: subject CN", NO_NAMES, |p| {
        p.pck.subject = name("Kluis SGX Certificate");
    }),
    case(
        "TCB signer with another name",
        Rule::CertName,
        "TCB signing certificate: subject CN",
        NO_NAMES,
        |p| {
            p.tcb.subject = name("Kluis Signing");
        },
    ),
    case("the TCB signer in a PCK's place", Rule::CertName, "PCK certificate: subject CN", Refuses, |p| {
        let key = p.pck.subject_public_key_info.clone();
        p.pck = p.tcb.clone();
        p.pck.subject_public_key_info = key;
        p.signed_by.pck = |keys| &keys.root;
    }),
    case(
        "TCB signer issued by the PCK CA",
        Rule::CertIssuer,
        "TCB signing certificate: issuer",
        Refuses,
        |p| {
            p.tcb.issuer = p.pck_ca.subject.clone();
            let key_id =
                extensions(&mut p.pck).iter().find(|one| one.extn_id == oid(AKI)).unwrap().extn_value.clone();
            extensions(&mut p.tcb).iter_mut().find(|one| one.extn_id == oid(AKI)).unwrap().extn_value =
                key_id;
            p.signed_by.tcb = |keys| &keys.pck_ca;
        },
    ),
    // certificates: issuers
    case("PCK of another issuer", Rule::CertIssuer, "PCK certificate: issuer", Refuses, |p| {
        p.pck.issuer = name("Kluis SGX PCK Processor CA");
    }),
    case(
        "PCK with another issuer's key id",
        Rule::CertKeyIdentifier,
        "PCK certificate: authorityKey",
        NO_PROFILE,
        |p| {
            other_key_id(extensions(&mut p.pck));
        },
    ),
    case("PCK CA signed by a stranger", Rule::CertSignature, "PCK CA certificate: signature", Refuses, |p| {
        p.signed_by.pck_ca = |keys| &keys.stranger;
    }),
    case("PCK signed by the root", Rule::CertSignature, "PCK certificate: signature", Refuses, |p| {
        p.signed_by.pck = |keys| &keys.root;
    }),
    case(
        "TCB signer signed by a stranger",
        Rule::CertSignature,
        "TCB signing certificate: signature",
        Refuses,
        |p| {
            p.signed_by.tcb = |keys| &keys.stranger;
        },
    ),
    // certificates: extensions
    case(
        "PCK without issuer's key id",
        Rule::CertExtensionMissing,
        "PCK certificate: authorityKey",
        NO_PROFILE,
        |p| {
            remove(&mut p.pck, AKI);
        },
    ),
    case(
        "PCK without list",
        Rule::CertExtensionMissing,
        "PCK certificate: cRLDistribution",
        NO_PROFILE,
        |p| {
            remove(&mut p.pck, CRL_POINTS);
        },
    ),
    case(
        "PCK CA without key id",
        Rule::CertExtensionMissing,
        "PCK CA certificate: subjectKey",
        NO_PROFILE,
        |p| {
            remove(&mut p.pck_ca, SKI);
        },
    ),
    case(
        "PCK CA without key usage",
        Rule::CertExtensionMissing,
        "PCK CA certificate: keyUsage",
        NO_PROFILE,
        |p| {
            remove(&mut p.pck_ca, KEY_USAGE);
        },
    ),
    case(
        "TCB signer without constraints",
        Rule::CertExtensionMissing,
        "TCB signing certificate: basic",
        NO_PROFILE,
        |p| {
            remove(&mut p.tcb, CONSTRAINTS);
        },
    ),
    case(
        "root without list",
        Rule::CertExtensionMissing,
        "root certificate: cRLDistribution",
        NO_ROOT,
        |p| {
            remove(&mut p.root, CRL_POINTS);
        },
    ),
    case(
        "PCK with a key id twice",
        Rule::CertExtensionRepeated,
        "PCK certificate: subjectKey",
        NO_PROFILE,
        |p| {
            let twice = extensions(&mut p.pck).iter().find(|one| one.extn_id == oid(SKI)).unwrap().clone();
            extensions(&mut p.pck).push(twice);
        },
    ),
    case(
        "PCK with an unknown critical one",
        Rule::CertExtensionUnknown,
        "PCK certificate: extensions",
        Refuses,
        |p| {
            extensions(&mut p.pck).push(unknown(true));
        },
    ),
    // the SGX extension
    case("PCK without platform", Rule::SgxExtensionMissing, "PCK certificate: SGX extension", Refuses, |p| {
        remove(&mut p.pck, SGX);
    }),
    case(
        "five elements by the Platform CA",
        Rule::SgxExtension,
        "PCK certificate: SGX extension",
        NO_PROFILE,
        |p| {
            p.set_platform(|platform| platform.platform = None);
        },
    ),
    case(
        "a component twice",
        Rule::SgxExtension,
        "PCK certificate: SGX extension: TCB component 2",
        NO_PROFILE,
        |p| {
            // the identifier of component 2 becomes that of component 1
            patch_sgx(
                p,
                b"\x06\x0b\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01\x02\x02",
                b"\x06\x0b\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01\x02\x01",
            );
        },
    ),
    case(
        "a type that is none",
        Rule::SgxExtension,
        "PCK certificate: SGX extension: SGX type",
        NO_PROFILE,
        |p| {
            patch_sgx(p, b"\x0a\x01\x00", b"\x0a\x01\x07");
        },
    ),
    case(
        "components that are not CPUSVN's",
        Rule::SgxTcb,
        "PCK certificate: SGX extension",
        Accepts("it compares CPUSVN with TCB levels, Intel's library the components; they must agree here"),
        |p| {
            p.set_platform(|platform| platform.tcb.components = components(6));
        },
    ),
    case("a TCB below every level", Rule::TcbUnknown, "TCB info: tcbLevels", Refuses, |p| {
        p.set_platform(|platform| {
            platform.tcb.components = components(4);
            platform.tcb.cpusvn = components(4);
        });
    }),
    case("a PCESVN below every level", Rule::TcbUnknown, "TCB info: tcbLevels", Refuses, |p| {
        p.set_platform(|platform| platform.tcb.pcesvn = 2);
    }),
    case("FMSPC of another platform", Rule::FmspcMismatch, "TCB info: fmspc", Refuses, |p| {
        p.set_platform(|platform| platform.fmspc[5] ^= 1);
    }),
    case(
        "PCEID of another enclave",
        Rule::PceIdMismatch,
        "TCB info: pceId",
        Accepts("it does not compare PCEID; Intel's library does"),
        |p| {
            p.set_platform(|platform| platform.pceid = [1, 0]);
        },
    ),
    // revocation lists
    case("root CRL expired", Rule::CrlExpired, "root CRL: nextUpdate", Refuses, |p| {
        p.root_crl.next_update = Some(x509(day(5)));
    }),
    case(
        "root CRL of the future",
        Rule::CrlNotYetValid,
        "root CRL: thisUpdate",
        Accepts("it looks at nextUpdate alone"),
        |p| p.root_crl.this_update = x509(day(20)),
    ),
    case("PCK CRL expired", Rule::CrlExpired, "PCK CRL: nextUpdate", Refuses, |p| {
        p.pck_crl.next_update = Some(x509(day(5)));
    }),
    case("PCK CRL without next update", Rule::CrlFieldMissing, "PCK CRL: nextUpdate", Refuses, |p| {
        p.pck_crl.next_update = None;
    }),
    case("PCK CRL without number", Rule::CrlFieldMissing, "PCK CRL: cRLNumber", NO_PROFILE, |p| {
        crl_extensions(&mut p.pck_crl).retain(|one| one.extn_id != oid(CRL_NUMBER));
    }),
    case(
        "root CRL without key id",
        Rule::CrlFieldMissing,
        "root CRL: authorityKeyIdentifier",
        NO_PROFILE,
        |p| {
            crl_extensions(&mut p.root_crl).retain(|one| one.extn_id != oid(AKI));
        },
    ),
    case(
        "PCK CRL with another key id",
        Rule::CrlKeyIdentifier,
        "PCK CRL: authorityKeyIdentifier",
        NO_PROFILE,
        |p| {
            other_key_id(crl_extensions(&mut p.pck_crl));
        },
    ),
    case(
        "PCK CRL with an unknown critical one",
        Rule::CrlExtensionUnknown,
        "PCK CRL: extensions",
        Refuses,
        |p| {
            crl_extensions(&mut p.pck_crl).push(unknown(true));
        },
    ),
    case(
        "an entry with an unknown critical one",
        Rule::CrlExtensionUnknown,
        "PCK CRL: extensions",
        Refuses,
        |p| {
            revoke(&mut p.pck_crl, 99);
            p.pck_crl.revoked_certificates.as_mut().unwrap()[0].crl_entry_extensions =
                Some(vec![unknown(true)]);
        },
    ),
    case("PCK CRL by the root", Rule::CrlIssuer, "PCK CRL: issuer", Refuses, |p| {
        p.pck_crl = p.root_crl.clone();
        p.signed_by.pck_crl = |keys| &keys.root;
    }),
    case("PCK CRL signed by the root", Rule::CrlSignature, "PCK CRL: signature", Refuses, |p| {
        p.signed_by.pck_crl = |keys| &keys.root;
    }),
    case("root CRL signed by the PCK CA", Rule::CrlSignature, "root CRL: signature", Refuses, |p| {
        p.signed_by.root_crl = |keys| &keys.pck_ca;
    }),
    case("PCK revoked", Rule::Revoked, "PCK certificate: serialNumber", Refuses, |p| {
        revoke(&mut p.pck_crl, 3)
    }),
    case("PCK CA revoked", Rule::Revoked, "PCK CA certificate: serialNumber", Refuses, |p| {
        revoke(&mut p.root_crl, 2)
    }),
    case("TCB signer revoked", Rule::Revoked, "TCB signing certificate: serialNumber", Refuses, |p| {
        revoke(&mut p.root_crl, 4);
    }),
    case("root revoked", Rule::Revoked, "root certificate: serialNumber", Refuses, |p| {
        revoke(&mut p.root_crl, 1)
    }),
    // TCB info
    case("TCB info for TDX", Rule::CollateralId, "TCB info: id", Refuses, |p| {
        p.tcb_info.id = "TDX".to_owned()
    }),
    case(
        "TCB info of version 2",
        Rule::CollateralVersion,
        "TCB info: version",
        Accepts("it reads version 2 of TCB info too, if its fields are those of 3"),
        |p| p.tcb_info.version = 2,
    ),
    case(
        "TCB info of another type",
        Rule::TcbType,
        "TCB info: tcbType",
        Accepts("it does not look at tcbType"),
        |p| p.tcb_info.tcb_type = 1,
    ),
    case("TCB info expired", Rule::CollateralExpired, "TCB info: nextUpdate", Refuses, |p| {
        p.tcb_info.next_update = day(5);
    }),
    case("TCB info of the future", Rule::CollateralNotYetValid, "TCB info: issueDate", Refuses, |p| {
        p.tcb_info.issue_date = day(20);
    }),
    case("TCB info without levels", Rule::TcbLevels, "TCB info: tcbLevels", Refuses, |p| {
        p.tcb_info.tcb_levels.clear()
    }),
    case(
        "TCB info with two answers",
        Rule::TcbLevels,
        "TCB info: tcbLevels",
        Accepts("it takes the first; Intel's library keeps one of them too"),
        |p| {
            p.tcb_info.tcb_levels = levels(&[(5, TcbStatus::OutOfDate)]);
        },
    ),
    case("TCB info with 15 components", Rule::Encoding, "TCB info", Refuses, |p| {
        p.tcb_info_text = |text| text.replacen("{\"svn\":5},", "", 1);
    }),
    case("TCB info with a status of TDX's", Rule::Encoding, "TCB info", Refuses, |p| {
        p.tcb_info_text = |text| text.replace("UpToDate", "TDRelaunchAdvised");
    }),
    case("TCB info with a field twice", Rule::Encoding, "TCB info", Refuses, |p| {
        p.tcb_info_text = |text| text.replace("\"version\":3", "\"version\":3,\"version\":3");
    }),
    case("TCB info that is no JSON", Rule::Encoding, "TCB info", Refuses, |p| {
        p.tcb_info_text = |text| text + "}"
    }),
    case("TCB info signed by the PCK CA", Rule::CollateralSignature, "TCB info: signature", Refuses, |p| {
        p.signed_by.tcb_info = |keys| &keys.pck_ca;
    }),
    // QE identity
    case("QE identity for TDX", Rule::CollateralId, "QE identity: id", Refuses, |p| {
        p.qe_identity.id = "TD_QE".to_owned()
    }),
    case("QE identity of version 3", Rule::CollateralVersion, "QE identity: version", Refuses, |p| {
        p.qe_identity.version = 3
    }),
    case("QE identity expired", Rule::CollateralExpired, "QE identity: nextUpdate", Refuses, |p| {
        p.qe_identity.next_update = day(5);
    }),
    case("QE identity of the future", Rule::CollateralNotYetValid, "QE identity: issueDate", Refuses, |p| {
        p.qe_identity.issue_date = day(20);
    }),
    case(
        "QE identity with two answers",
        Rule::TcbLevels,
        "QE identity: tcbLevels",
        Accepts("it takes the first"),
        |p| {
            let level = p.qe_identity.tcb_levels[0].clone();
            p.qe_identity.tcb_levels.push(level);
        },
    ),
    case(
        "QE identity with its levels upside down",
        Rule::TcbLevels,
        "QE identity: tcbLevels",
        Accepts("it takes the first that is met, Intel's library the highest; here nobody has to guess"),
        |p| {
            let mut level = p.qe_identity.tcb_levels[0].clone();
            level.tcb.isvsvn = 3;
            p.qe_identity.tcb_levels.push(level);
        },
    ),
    case("QE identity without levels", Rule::TcbLevels, "QE identity: tcbLevels", Refuses, |p| {
        p.qe_identity.tcb_levels.clear();
    }),
    case("QE identity with a platform's status", Rule::TcbStatus, "QE identity: tcbStatus", Refuses, |p| {
        p.qe_identity.tcb_levels[0].tcb_status = TcbStatus::SWHardeningNeeded;
    }),
    case(
        "QE identity with another status",
        Rule::TcbStatus,
        "QE identity: tcbStatus",
        Accepts("it takes ConfigurationNeeded for a QE, and then overlooks it"),
        |p| {
            p.qe_identity.tcb_levels[0].tcb_status = TcbStatus::ConfigurationNeeded;
        },
    ),
    case(
        "QE identity signed by the root",
        Rule::CollateralSignature,
        "QE identity: signature",
        Refuses,
        |p| {
            p.signed_by.qe_identity = |keys| &keys.root;
        },
    ),
    // the quoting enclave
    case("another signer's QE", Rule::QeMrsigner, "QE report: MRSIGNER", Refuses, |p| {
        p.qe_report.mrsigner[0] ^= 1
    }),
    case("another product", Rule::QeProductId, "QE report: ISVPRODID", Refuses, |p| {
        p.qe_report.isvprodid = 2
    }),
    case("another MISCSELECT", Rule::QeMiscselect, "QE report: MISCSELECT", Refuses, |p| {
        p.qe_report.miscselect = MiscSelect::EXINFO;
    }),
    case("other attributes", Rule::QeAttributes, "QE report: attributes", Refuses, |p| {
        p.qe_report.attributes.flags.remove(AttributeFlags::PROVISIONKEY);
    }),
    case("a debug QE", Rule::QeDebug, "QE report: attributes", Refuses, |p| {
        p.qe_report.attributes.flags.insert(AttributeFlags::DEBUG);
        // even if the identity would allow it
        p.qe_identity.attributes_mask[0] &= !2;
    }),
    case("a QE below every level", Rule::QeSvn, "QE report: ISVSVN", Refuses, |p| p.qe_report.isvsvn = 1),
    case("a QE that binds nothing", Rule::QeBinding, "QE report: REPORTDATA", Refuses, |p| {
        p.qe_binds = false
    }),
    case(
        "a QE that binds more",
        Rule::QeBinding,
        "QE report: REPORTDATA",
        Accepts("it compares the first half of REPORTDATA; Intel's rules make the second half zero"),
        |p| {
            p.qe_binds = false;
            let key = p.keys.attestation.public();
            p.qe_report.reportdata = dcap::quote::qe_report_data(&key, &p.qe_auth_data);
            p.qe_report.reportdata[63] = 1;
        },
    ),
    case("short authentication data", Rule::AuthDataLength, "quote: QE authentication data", Refuses, |p| {
        p.qe_auth_data.pop();
    }),
    case(
        "QE report signed by the attestation key",
        Rule::QeReportSignature,
        "quote: QE report signature",
        Refuses,
        |p| {
            p.signed_by.qe_report = |keys| &keys.attestation;
        },
    ),
    // the quote
    case("a quote signed by the PCK key", Rule::QuoteSignature, "quote: signature", Refuses, |p| {
        p.signed_by.quote = |keys| &keys.pck;
    }),
    case("a quote of version 4", Rule::QuoteVersion, "quote: version", Refuses, |p| p.header.version = 4),
    case("a key on P-384", Rule::AttestationKeyType, "quote: attestation key type", Refuses, |p| {
        p.header.attestation_key_type = 3;
    }),
    case("another vendor's QE", Rule::QeVendor, "quote: QE vendor id", Refuses, |p| {
        p.header.qe_vendor[0] ^= 1
    }),
    case("a chain of one", Rule::ChainLength, "PCK certificate chain", Refuses, |p| {
        let bundle = p.bundle().unwrap();
        let quote = dcap::Quote::parse(&bundle.quote).unwrap();
        let CertificationData::PckChain(chain) = quote.authentication.certification else { unreachable!() };
        let text = String::from_utf8(chain).unwrap();
        let end = text.find("-----END CERTIFICATE-----\n").unwrap() + 26;
        p.certification = Some(CertificationData::PckChain(text.as_bytes()[..end].to_vec()));
    }),
    case(
        "a chain without its root",
        Rule::ChainLength,
        "PCK certificate chain",
        Accepts("it needs the certificates below the root alone"),
        |p| {
            let bundle = p.bundle().unwrap();
            let quote = dcap::Quote::parse(&bundle.quote).unwrap();
            let CertificationData::PckChain(chain) = quote.authentication.certification else {
                unreachable!()
            };
            let text = String::from_utf8(chain).unwrap();
            let end = text.rfind("-----BEGIN CERTIFICATE-----\n").unwrap();
            p.certification = Some(CertificationData::PckChain(text.as_bytes()[..end].to_vec()));
        },
    ),
    case("no chain", Rule::CertificationData, "quote: certification data", Refuses, |p| {
        p.certification = Some(CertificationData::Ppid(platform().ppid, raw_tcb()));
    }),
    case(
        "a platform manifest",
        Rule::CertificationData,
        "quote: certification data",
        Accepts("it takes the chain of the collateral, whatever the quote has"),
        |p| {
            certified(p, CertificationData::PlatformManifest(vec![1; 40]));
        },
    ),
    case(
        "PPID of another platform",
        Rule::CertificationMismatch,
        "quote: certification data",
        Accepts("it takes the chain of the collateral without comparing"),
        |p| {
            certified(p, CertificationData::Ppid([0x12; 16], raw_tcb()));
        },
    ),
    case(
        "CPUSVN of another TCB",
        Rule::CertificationMismatch,
        "quote: certification data",
        Accepts("the same"),
        |p| {
            let tcb = RawTcb { cpusvn: components(9), ..raw_tcb() };
            certified(p, CertificationData::EncryptedPpid3072(Box::new([9; 384]), tcb));
        },
    ),
    case(
        "a leaf of another chain",
        Rule::CertificationMismatch,
        "quote: certification data",
        Accepts("the same"),
        |p| {
            let bundle = p.bundle().unwrap();
            let leaf = bundle.collateral.tcb_info_issuer_chain;
            let end = leaf.find("-----END CERTIFICATE-----\n").unwrap() + 26;
            certified(p, CertificationData::PckLeaf(leaf.as_bytes()[..end].to_vec()));
        },
    ),
];

#[test]
fn one_broken_rule_each() {
    let mut wrong = Vec::new();
    for case in CASES {
        let mut parts = Parts::default();
        (case.change)(&mut parts);
        let bundle = parts.bundle().unwrap();
        match bundle.verify() {
            Err(refusal) if refusal.rule == case.rule && refusal.to_string().starts_with(case.field) => {
                assert!(!refusal.to_string().contains('\n'));
            }
            other => {
                wrong.push(format!("{}: {:?}, not {:?}", case.name, other.map(|_| "accepted"), case.rule))
            }
        }
        let theirs = judge(&bundle);
        if theirs.is_ok() != matches!(case.judge, Accepts(_)) {
            wrong.push(format!("{}: the judge says {:?}", case.name, theirs.map(|_| "accepted")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let accepted = CASES.iter().filter(|case| matches!(case.judge, Accepts(_))).count();
    println!("{} cases, of which the judge accepts {accepted}", CASES.len());
    assert!(CASES.len() >= 40);
}

/// Documents list the cases that the judge accepts, with the reasons.
#[test]
fn the_documents_say_where_we_are_stricter() {
    let text = include_str!("../../../docs/quotes.md");
    for case in CASES {
        if let Accepts(why) = case.judge {
            let row = format!("| {} | `{}` |", case.name, case.rule.name());
            assert!(text.contains(&row), "docs/quotes.md lacks a row that begins: {row} {why} |");
        }
    }
}

/// Without a change nothing is wrong, for both.
#[test]
fn the_unchanged_platform_is_accepted() {
    let bundle = Parts::default().bundle().unwrap();
    bundle.verify().unwrap();
    judge(&bundle).unwrap();
}

/// The certification data that lead to a certificate, with and without the chain beside.
#[test]
fn certification_data_of_all_types() {
    let chain_leaf = {
        let bundle = Parts::default().bundle().unwrap();
        let quote = dcap::Quote::parse(&bundle.quote).unwrap();
        let CertificationData::PckChain(chain) = quote.authentication.certification else { unreachable!() };
        let text = String::from_utf8(chain).unwrap();
        let end = text.find("-----END CERTIFICATE-----\n").unwrap() + 26;
        text.as_bytes()[..end].to_vec()
    };
    let all = [
        CertificationData::Ppid(platform().ppid, raw_tcb()),
        CertificationData::EncryptedPpid2048(Box::new([1; 256]), raw_tcb()),
        CertificationData::EncryptedPpid3072(Box::new([1; 384]), raw_tcb()),
        CertificationData::PckLeaf(chain_leaf),
    ];
    for certification in all {
        let mut parts = Parts::default();
        certified(&mut parts, certification);
        let bundle = parts.bundle().unwrap();
        bundle.verify().unwrap();
        judge(&bundle).unwrap();
        parts.chain_in_collateral = false;
        assert_eq!(parts.bundle().unwrap().verify().unwrap_err().rule, Rule::CertificationData);
    }
}

#[test]
fn a_foreign_root_is_named() {
    let bundle = Parts::default().bundle().unwrap();
    let intel = dcap::Root::intel();
    let refusal = dcap::verify(&bundle.quote, &bundle.collateral, &intel, bundle.at).unwrap_err();
    assert_eq!(refusal.rule, Rule::ForeignRoot);
    assert!(
        refusal.what.contains("Kluis SGX Root CA") && refusal.what.contains("Intel SGX Root CA"),
        "{refusal}"
    );

    // a root of the same name and another key
    let mut parts = Parts::default();
    parts.keys.root = dcap::key::PrivateKey::from_bytes(&[9; 32]).unwrap();
    let point = parts.keys.root.public().sec1();
    parts.root.subject_public_key_info.subject_public_key = der::asn1::BitString::from_bytes(&point).unwrap();
    let other = parts.bundle().unwrap().root;
    let root = dcap::Root::from_der(&other).unwrap();
    let refusal = dcap::verify(&bundle.quote, &bundle.collateral, &root, bundle.at).unwrap_err();
    assert_eq!(refusal.rule, Rule::ForeignRoot);

    // the quote's chain alone ends elsewhere
    let mut mixed = Parts::default();
    let CertificationData::PckChain(chain) =
        dcap::Quote::parse(&parts.bundle().unwrap().quote).unwrap().authentication.certification
    else {
        unreachable!()
    };
    mixed.certification = Some(CertificationData::PckChain(chain));
    assert_eq!(mixed.bundle().unwrap().verify().unwrap_err().rule, Rule::ForeignRoot);
}

/// A root that was issued anew, with the same name and key, is the same root; so is a PCK CA.
#[test]
fn renewed_certificates_are_followed() {
    let old = Parts::default().bundle().unwrap();
    let mut parts = Parts::default();
    parts.root.serial_number = SerialNumber::new(&[77; 16]).unwrap();
    parts.pck_ca.serial_number = SerialNumber::new(&[78; 16]).unwrap();
    let new = parts.bundle().unwrap();
    for (quote, collateral, root) in [
        (&new.quote, &old.collateral, &old.root),
        (&old.quote, &new.collateral, &old.root),
        (&old.quote, &old.collateral, &new.root),
    ] {
        dcap::verify(quote, collateral, &dcap::Root::from_der(root).unwrap(), old.at).unwrap();
    }
    // of the same name, and not by the root's key
    let mut forged = Parts::default();
    forged.signed_by.pck_ca = |keys| &keys.stranger;
    let quote = forged.bundle().unwrap().quote;
    let refusal = dcap::verify(&quote, &old.collateral, &dcap::Root::from_der(&old.root).unwrap(), old.at);
    assert_eq!(refusal.unwrap_err().rule, Rule::CertSignature);
}
