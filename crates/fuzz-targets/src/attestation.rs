//! Quotes, certificates and collateral of anybody's making: [`dcap`]. What it reads and what
//! it accepts, `dcap-qvl` must read and accept alike.

use dcap::collateral::{QeIdentity, Signed, TcbInfo};
use dcap::pki::{Certificate, Crl, PckExtension, Role, certificates_from_pem};
use dcap::quote::{Body, TeeType};
use dcap::testing::{Bundle, Object, Parts};
use dcap::{Collateral, Policy, Quote, Refusal, Root, TcbStatus};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::quote::Report;
use dcap_qvl::verify::QuoteVerifier;

use crate::input::Input;

/// What is read, or nothing; a refusal is one line, and not an endless one.
fn read<T>(result: Result<T, Refusal>) -> Option<T> {
    result
        .inspect_err(|refusal| {
            let text = refusal.to_string();
            assert!(!text.contains(char::is_control), "{text}");
        })
        .ok()
}

/// A quote of any version.
pub fn dcap_quote(data: &[u8]) {
    let Some(quote) = read(Quote::parse(data)) else { return };
    let written = quote.to_bytes().expect("what was read can be written");
    assert!(data.starts_with(&written) && data[written.len()..].iter().all(|&byte| byte == 0));
    assert!(written.starts_with(&quote.signed_bytes()));

    let theirs = match dcap_qvl::quote::Quote::parse(data) {
        Ok(theirs) => theirs,
        // it knows neither trust domains in version 3 nor P-384 keys
        Err(_) if quote.header.attestation_key_type != 2 => return,
        Err(error) => panic!("the judge reads no such quote: {error}"),
    };
    assert_eq!(theirs.header.version, quote.header.version);
    assert_eq!(theirs.header.is_sgx(), quote.header.tee_type == TeeType::Sgx);
    assert_eq!(theirs.header.user_data, quote.header.user_data);
    let reportdata = match theirs.report {
        Report::SgxEnclave(report) => report.report_data,
        Report::TD10(report) => report.report_data,
        Report::TD15(report) => report.base.report_data,
        Report::TD15Ex(report) => report.base.base.report_data,
    };
    assert_eq!(
        reportdata,
        match &quote.body {
            Body::Enclave(report) => report.reportdata,
            Body::TrustDomain(report) => report.reportdata,
        }
    );
    let authentication = theirs.auth_data.into_v3();
    assert_eq!(authentication.ecdsa_signature, quote.authentication.signature);
    assert_eq!(authentication.qe_auth_data.data, quote.authentication.qe_auth_data);
    assert_eq!(authentication.certification_data.cert_type, quote.authentication.certification.kind());
}

/// A certificate of each role, a revocation list, the SGX extension, a chain of text.
pub fn dcap_pki(data: &[u8]) {
    for role in [Role::Root, Role::PckCa, Role::Pck, Role::TcbSigning] {
        let Some(certificate) = read(Certificate::parse(role, data)) else { continue };
        assert_eq!(certificate.der(), data);
        let theirs = dcap_qvl::intel::parse_pck_extension(data);
        if role == Role::Pck
            && let Some(ours) = read(certificate.pck_extension())
        {
            let theirs = theirs.expect("the judge reads it");
            assert_eq!(theirs.ppid, ours.ppid);
            assert_eq!((theirs.cpu_svn, theirs.pce_svn), (ours.tcb.cpusvn, ours.tcb.pcesvn));
            assert_eq!((theirs.fmspc, theirs.pce_id), (ours.fmspc, ours.pceid.to_vec()));
            assert_eq!(theirs.sgx_type, ours.sgx_type as u64);
            assert_eq!(theirs.smt_enabled, ours.platform.map(|platform| platform.smt_enabled));
        }
    }
    for role in [Role::Root, Role::PckCa] {
        read(Crl::parse(role, data));
    }
    if let Some(extension) = read(PckExtension::parse(data)) {
        let written = extension.to_der().expect("what was read can be written");
        assert_eq!(PckExtension::parse(&written), Ok(extension));
    }
    read(Root::from_der(data));
    read(Root::from_pem(data));
    if let Some(chain) = read(certificates_from_pem(data, "chain")) {
        let text = dcap::pki::to_pem(chain.iter().map(Vec::as_slice));
        assert_eq!(certificates_from_pem(text.as_bytes(), "chain"), Ok(chain));
    }
}

/// Documents in JSON.
pub fn dcap_documents(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(ours) = read(TcbInfo::parse(text)) {
        let written = serde_json::to_string(&ours).expect("what was read can be written");
        assert_eq!(TcbInfo::parse(&written), Ok(ours.clone()));
        // the judge's version is a byte
        if ours.version < 256 {
            let theirs: dcap_qvl::TcbInfo = serde_json::from_str(text).expect("the judge reads it");
            assert_eq!(theirs.tcb_levels.len(), ours.tcb_levels.len());
            assert_eq!(theirs.tcb_evaluation_data_number, ours.tcb_evaluation_data_number);
        }
    }
    if let Some(ours) = read(QeIdentity::parse(text)) {
        let written = serde_json::to_string(&ours).expect("what was read can be written");
        assert_eq!(QeIdentity::parse(&written), Ok(ours.clone()));
        if ours.version < 256 {
            let theirs: dcap_qvl::QeIdentity = serde_json::from_str(text).expect("the judge reads it");
            assert_eq!((theirs.mrsigner, theirs.attributes_mask), (ours.mrsigner, ours.attributes_mask));
        }
    }
    if let Some(collateral) = read(Collateral::from_json(text)) {
        assert_eq!(Collateral::from_json(&collateral.to_json()), Ok(collateral));
        let theirs = serde_json::from_str::<QuoteCollateralV3>(text);
        theirs.expect("the judge reads it");
    }
    for name in ["tcbInfo", "enclaveIdentity"] {
        if let Some(signed) = read(Signed::from_body(text, name)) {
            assert_eq!(Signed::from_body(&signed.to_body(name), name), Ok(signed));
        }
    }
    read(Policy::from_json(text));
}

/// Changes to the signed bytes of a software platform's objects, each of which its right key
/// signs again.
pub fn dcap_bundle(data: &[u8]) {
    verdicts(data);
}

/// Verifies the changed platform with both; whether we accept it.
pub fn verdicts(data: &[u8]) -> bool {
    let mut input = Input::new(data);
    let mut changes = Vec::new();
    while !input.is_empty() && changes.len() < 16 {
        let object = input.pick(&Object::ALL);
        changes.push((object, input.u16(), input.u8(), input.u8()));
    }
    let change = |object, bytes: &mut Vec<u8>| {
        for &(_, at, kind, value) in changes.iter().filter(|change| change.0 == object) {
            let at = usize::from(at) % bytes.len().max(1);
            match kind % 8 {
                0 => bytes.insert(at, value),
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                _ if at < bytes.len() => bytes[at] = value,
                _ => (),
            }
        }
    };
    let Some(bundle) = read(Parts::default().bundle_with(&change)) else { return false };
    let Some(ours) = read(bundle.verify()) else { return false };
    if ours.tcb.status == TcbStatus::Revoked {
        // for which the judge has no verdict
        return true;
    }
    let theirs = judge(&bundle);
    assert_eq!(ours.tcb.status.to_string(), theirs.status);
    assert_eq!(ours.tcb.advisory_ids, theirs.advisory_ids);
    assert_eq!(ours.platform.ppid.to_vec(), theirs.ppid);
    true
}

fn judge(bundle: &Bundle) -> dcap_qvl::verify::VerifiedReport {
    let collateral: QuoteCollateralV3 =
        serde_json::from_str(&bundle.collateral.to_json()).expect("the judge reads it");
    let judge = QuoteVerifier::new(bundle.root.clone()).allow_debug(true);
    judge.verify(&bundle.quote, &collateral, bundle.at.unix()).expect("the judge accepts it")
}

const REAL: &[u8] = include_bytes!("../../dcap/testdata/real1/quote.bin");
const TDX1: &[u8] = include_bytes!("../../dcap/testdata/tdx1/quote.bin");
const TDX15EX: &[u8] = include_bytes!("../../dcap/testdata/tdx15ex/quote.bin");
const REAL_COLLATERAL: &str = include_str!("../../dcap/testdata/real2/collateral.json");

/// Quotes of enclaves and trust domains.
pub fn quotes() -> Vec<Vec<u8>> {
    let ours = Parts::default().bundle().map(|bundle| bundle.quote).ok();
    [REAL, TDX1, TDX15EX].map(<[u8]>::to_vec).into_iter().chain(ours).collect()
}

/// Certificates, lists and chains of Intel's and of ours.
pub fn certificates() -> Vec<Vec<u8>> {
    let mut seeds = vec![include_bytes!("../../dcap/testdata/platform-extension.der").to_vec()];
    let ours = Parts::default().bundle().map(|bundle| bundle.collateral).ok();
    for collateral in ours.into_iter().chain(Collateral::from_json(REAL_COLLATERAL).ok()) {
        for chain in [&collateral.pck_crl_issuer_chain, &collateral.tcb_info_issuer_chain] {
            seeds.extend(certificates_from_pem(chain.as_bytes(), "chain").into_iter().flatten());
        }
        seeds.extend([collateral.root_ca_crl, collateral.pck_crl]);
        seeds.push(collateral.pck_crl_issuer_chain.into_bytes());
    }
    for quote in quotes().iter().filter_map(|quote| Quote::parse(quote).ok()) {
        if let dcap::quote::CertificationData::PckChain(chain) = quote.authentication.certification {
            seeds.extend(certificates_from_pem(&chain, "chain").into_iter().flatten().take(1));
        }
    }
    seeds
}

/// Documents of Intel's and of ours.
pub fn documents() -> Vec<Vec<u8>> {
    let mut seeds = vec![br#"{"min_isv_svn":2,"accept_tcb":["UpToDate"]}"#.to_vec()];
    let ours = Parts::default().bundle().map(|bundle| bundle.collateral).ok();
    for collateral in ours.into_iter().chain(Collateral::from_json(REAL_COLLATERAL).ok()) {
        seeds.push(collateral.to_json().into_bytes());
        seeds.push(collateral.signed_tcb_info().to_body("tcbInfo").into_bytes());
        seeds.push(collateral.signed_qe_identity().to_body("enclaveIdentity").into_bytes());
        seeds.extend([collateral.tcb_info.into_bytes(), collateral.qe_identity.into_bytes()]);
    }
    seeds
}

/// Changes that change nothing that counts: what enclaves say, digits of dates and texts.
pub fn changes() -> Vec<Vec<u8>> {
    let position = |object| Object::ALL.iter().position(|one| *one == object).unwrap_or_default() as u8;
    let report = position(Object::Report);
    vec![
        vec![],
        // a byte of REPORTDATA, and one of MRENCLAVE
        vec![report, 0x60, 1, 3, 9, report, 0x41, 0, 3, 7],
        // a byte of the quoting enclave's MRENCLAVE, which nobody asks for
        vec![position(Object::QeReport), 0x41, 0, 3, 7],
    ]
}
