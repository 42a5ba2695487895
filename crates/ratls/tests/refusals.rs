//! Servers that are not believed, each for one rule.

mod common;

use std::sync::Arc;

use common::{Enclave, config_at, handshake, quoted, software};
use dcap::collateral::TcbStatus;
use dcap::issue::sign;
use dcap::key::PrivateKey;
use dcap::policy::Digest;
use dcap::testing::{Parts, day, levels};
use dcap::{Policy, Root};
use der::asn1::{BitString, OctetString};
use der::{Decode, Encode};
use enclave_tls::evidence::{Claims, EVIDENCE, Evidence, LEGACY_QUOTE, report_data};
use ratls::certificate::Format;
use ratls::{Refusal, Verifier, refusal_of};
use sgx_abi::AttributeFlags;
use x509_cert::ext::Extension;
use x509_cert::time::Time as X509Time;
use x509_cert::{Certificate, TbsCertificate};

/// What a handshake with a server fails for.
#[track_caller]
fn refused(enclave: &Enclave, verifier: Verifier, at: dcap::Time, rule: &str) {
    let error = handshake(&Arc::new(config_at(verifier, at)), &enclave.server).map(drop).unwrap_err();
    let refusal = refusal_of(&error).unwrap_or_else(|| panic!("{error}"));
    assert_eq!(refusal.rule(), rule, "{refusal}");
    assert!(refusal.to_string().ends_with(&format!("[{rule}]")), "{refusal}");
}

#[test]
fn the_policy_is_asked() {
    let enclave = Enclave::new(|_| ());
    let at = enclave.bundle.at;
    let report = Parts::default().report;
    let exact = Policy {
        mrenclave: Some(Digest(report.mrenclave)),
        mrsigner: Some(Digest(report.mrsigner)),
        isv_prod_id: Some(report.isvprodid),
        min_isv_svn: Some(report.isvsvn),
        ..software()
    };
    handshake(&Arc::new(config_at(enclave.verifier(exact.clone()), at)), &enclave.server).unwrap();
    for (rule, policy) in [
        ("software-platform", Policy { accept_software_platform: false, ..exact.clone() }),
        ("mrenclave", Policy { mrenclave: Some(Digest([1; 32])), ..exact.clone() }),
        ("mrsigner", Policy { mrsigner: Some(Digest([1; 32])), ..exact.clone() }),
        ("product-id", Policy { isv_prod_id: Some(report.isvprodid + 1), ..exact.clone() }),
        ("security-version", Policy { min_isv_svn: Some(report.isvsvn + 1), ..exact.clone() }),
    ] {
        refused(&enclave, enclave.verifier(policy), at, rule);
    }
    let debug = Enclave::new(|parts| parts.report.attributes.flags |= AttributeFlags::DEBUG);
    refused(&debug, debug.verifier(exact.clone()), at, "debug");
    let accepting = Policy { accept_debug: true, ..exact };
    handshake(&Arc::new(config_at(debug.verifier(accepting), at)), &debug.server).unwrap();
}

#[test]
fn platforms_and_times_are() {
    let enclave = Enclave::new(|_| ());
    let at = enclave.bundle.at;
    let foreign = Verifier::new(Root::intel(), enclave.bundle.collateral.clone(), software());
    refused(&enclave, foreign, at, "foreign-root");
    let old =
        Enclave::new(|parts| parts.tcb_info.tcb_levels = levels(&[(5, TcbStatus::OutOfDate)])[1..].into());
    refused(&old, old.verifier(software()), at, "tcb-not-accepted");
    // collateral of 30 days, at the time of the connection
    refused(&enclave, enclave.verifier(software()), day(31), "crl-expired");
    let revoked =
        Enclave::new(|parts| parts.tcb_info.tcb_levels = levels(&[(5, TcbStatus::Revoked)])[1..].into());
    refused(&revoked, revoked.verifier(software()), at, "tcb-revoked");
}

#[test]
fn a_nonce_is() {
    let enclave = Enclave::new(|_| ());
    let verifier = |nonce: &[u8]| enclave.verifier(software()).nonce(nonce);
    refused(&enclave, verifier(b"another"), enclave.bundle.at, "nonce");
    let attested = verifier(b"nonce").verify(enclave.server.certificate(), enclave.bundle.at).unwrap();
    assert_eq!(attested.nonce.as_deref(), Some(&b"nonce"[..]));
}

/// A certificate by somebody with a key of their own, after one of an enclave's.
struct Forger {
    enclave: Enclave,
    key: PrivateKey,
}

impl Forger {
    fn new() -> Self {
        Self { enclave: Enclave::new(|_| ()), key: PrivateKey::from_bytes(&[9; 32]).unwrap() }
    }

    /// Signs what is changed of the enclave's certificate, with the key that is in it then.
    fn make(&self, change: impl FnOnce(&mut TbsCertificate)) -> Vec<u8> {
        let mut tbs = Certificate::from_der(self.enclave.server.certificate()).unwrap().tbs_certificate;
        let point = self.key.public().sec1();
        tbs.subject_public_key_info.subject_public_key = BitString::from_bytes(&point).unwrap();
        change(&mut tbs);
        sign(&tbs.to_der().unwrap(), &self.key).unwrap()
    }

    fn verify(&self, certificate: &[u8]) -> Result<Format, Refusal> {
        let verifier = self.enclave.verifier(software());
        verifier.verify(certificate, self.enclave.bundle.at).map(|attested| attested.format)
    }

    /// Evidence of a key, with a quote of these report data.
    fn evidence(&self, claims: &[u8], reported: [u8; 64]) -> Vec<u8> {
        Evidence { quote: &quoted(&|_| (), reported).quote, claims }.write()
    }
}

fn spki(tbs: &TbsCertificate) -> Vec<u8> {
    tbs.subject_public_key_info.to_der().unwrap()
}

/// Puts a value into the extension, or a new one.
fn set(tbs: &mut TbsCertificate, id: der::asn1::ObjectIdentifier, value: Vec<u8>) {
    let extensions = tbs.extensions.as_mut().unwrap();
    let extn_value = OctetString::new(value).unwrap();
    match extensions.iter_mut().find(|extension| extension.extn_id == id) {
        Some(extension) => extension.extn_value = extn_value,
        None => extensions.push(Extension { extn_id: id, critical: false, extn_value }),
    }
}

fn remove(tbs: &mut TbsCertificate, id: der::asn1::ObjectIdentifier) {
    tbs.extensions.as_mut().unwrap().retain(|extension| extension.extn_id != id);
}

type Change = fn(&Forger, &mut TbsCertificate);

#[test]
fn quotes_of_others_speak_for_no_key() {
    let forger = Forger::new();
    // what a platform's quote makes good, whoever wrote the certificate
    let good: [(Format, Change); 3] = [
        (Format::Interoperable, |forger, tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            set(tbs, EVIDENCE, forger.evidence(&claims, report_data(&claims)));
        }),
        (Format::Interoperable, |forger, tbs| {
            use sha2::{Digest, Sha512};
            let key_hash = Sha512::digest(spki(tbs)).to_vec();
            let algorithm = enclave_tls::evidence::HashAlgorithm::Sha512;
            let claims = Claims { algorithm, key_hash, nonce: None }.write();
            set(tbs, EVIDENCE, forger.evidence(&claims, report_data(&claims)));
        }),
        (Format::Legacy, |_, tbs| {
            remove(tbs, EVIDENCE);
            set(tbs, LEGACY_QUOTE, quoted(&|_| (), report_data(&spki(tbs))).quote);
        }),
    ];
    for (format, change) in good {
        assert_eq!(forger.verify(&forger.make(|tbs| change(&forger, tbs))), Ok(format));
    }

    let bad: [(&str, Change); 14] = [
        // the enclave's evidence as it is
        ("key-hash", |_, _| ()),
        // its quote, with claims of the forger's
        ("report-data", |forger, tbs| {
            let claims = Claims::of_key(&spki(tbs), Some(b"nonce".to_vec())).write();
            let quote = &forger.enclave.bundle.quote;
            set(tbs, EVIDENCE, Evidence { quote, claims: &claims }.write());
        }),
        // a quote in one format, taken for the other
        ("report-data", |forger, tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            set(tbs, EVIDENCE, forger.evidence(&claims, report_data(&spki(tbs))));
        }),
        ("report-data", |forger, tbs| {
            remove(tbs, EVIDENCE);
            set(tbs, LEGACY_QUOTE, forger.enclave.bundle.quote.clone());
        }),
        // good in the older format, but judged by the newer
        ("key-hash", |_, tbs| set(tbs, LEGACY_QUOTE, quoted(&|_| (), report_data(&spki(tbs))).quote)),
        // more than the hash in REPORTDATA
        ("report-data", |forger, tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            let mut reported = report_data(&claims);
            reported[63] = 1;
            set(tbs, EVIDENCE, forger.evidence(&claims, reported));
        }),
        ("evidence-missing", |_, tbs| remove(tbs, EVIDENCE)),
        ("evidence-missing", |_, tbs| tbs.extensions = None),
        ("evidence-encoding", |_, tbs| set(tbs, EVIDENCE, vec![])),
        ("evidence-encoding", |forger, tbs| set(tbs, EVIDENCE, forger.enclave.bundle.quote.clone())),
        ("evidence-encoding", |_, tbs| {
            let extensions = tbs.extensions.as_mut().unwrap();
            extensions
                .push(extensions.iter().find(|extension| extension.extn_id == EVIDENCE).unwrap().clone());
        }),
        ("truncated", |_, tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            set(tbs, EVIDENCE, Evidence { quote: b"", claims: &claims }.write());
        }),
        ("quote-signature", |_, tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            let mut quote = quoted(&|_| (), [0; 64]).quote;
            quote[368..432].copy_from_slice(&report_data(&claims));
            set(tbs, EVIDENCE, Evidence { quote: &quote, claims: &claims }.write());
        }),
        ("ratls-signature", |forger, tbs| {
            // signed by the forger, about the enclave's key
            *tbs = Certificate::from_der(forger.enclave.server.certificate()).unwrap().tbs_certificate;
        }),
    ];
    for (rule, change) in bad {
        let refusal = forger.verify(&forger.make(|tbs| change(&forger, tbs))).unwrap_err();
        assert_eq!(refusal.rule(), rule, "{refusal}");
    }
}

#[test]
fn certificates_that_are_none_and_dates_are_refused() {
    let forger = Forger::new();
    let good = forger.enclave.server.certificate();
    assert_eq!(forger.verify(good), Ok(Format::Interoperable));
    let rule = |bytes: &[u8]| forger.verify(bytes).unwrap_err().rule();
    assert_eq!(rule(&vec![0; ratls::certificate::MAX_CERTIFICATE + 1]), "oversized");
    assert_eq!(rule(&[good, &[0]].concat()), "encoding");
    for cut in [0, 1, 4, 100, good.len() - 1] {
        assert_eq!(rule(&good[..cut]), "encoding");
    }
    // each byte counts: of what is signed, of the signature, of the frame around them
    for at in (0..good.len()).step_by(7) {
        let mut changed = good.to_vec();
        changed[at] ^= 0x20;
        assert!(["encoding", "ratls-signature"].contains(&rule(&changed)), "{at}");
    }

    let time = |n| {
        X509Time::try_from(std::time::UNIX_EPOCH + std::time::Duration::from_secs(day(n).unix())).unwrap()
    };
    let dated = |from, until| {
        forger.make(|tbs| {
            let claims = Claims::of_key(&spki(tbs), None).write();
            set(tbs, EVIDENCE, forger.evidence(&claims, report_data(&claims)));
            (tbs.validity.not_before, tbs.validity.not_after) = (time(from), time(until));
        })
    };
    assert_eq!(forger.verify(&dated(10, 10)), Ok(Format::Interoperable));
    assert_eq!(rule(&dated(11, 12)), "cert-not-yet-valid");
    assert_eq!(rule(&dated(8, 9)), "cert-expired");
}

#[test]
fn certificates_of_authorities_are_not_asked_for() {
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{CertificateDer, UnixTime};
    let enclave = Enclave::new(|_| ());
    let verifier = enclave.verifier(software());
    let certificate = CertificateDer::from(enclave.server.certificate().to_vec());
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(enclave.bundle.at.unix()));
    let name = "enclave".try_into().unwrap();
    let verify =
        |chain: &[CertificateDer<'_>]| verifier.verify_server_cert(&certificate, chain, &name, &[], now);
    assert!(verify(&[]).is_ok());
    let error = verify(std::slice::from_ref(&certificate)).unwrap_err();
    assert_eq!(refusal_of(&error).unwrap().rule(), "ratls-chain");
}
