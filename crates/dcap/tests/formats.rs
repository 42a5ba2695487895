//! Formats: what is read is written again as it was, whatever is cut off is refused, and what
//! is read and not verified says so by name.

use dcap::pki::{Certificate, Crl, PckExtension, Role, Root, SgxType};
use dcap::quote::{Body, CertificationData, Quote, RawTcb, TeeType};
use dcap::testing::Parts;
use dcap::{Class, Collateral, Rule, Trusted};

const TDX1: &[u8] = include_bytes!("../testdata/tdx1/quote.bin");
const TDX15EX: &[u8] = include_bytes!("../testdata/tdx15ex/quote.bin");
const PLATFORM: &[u8] = include_bytes!("../testdata/platform-extension.der");

fn trusted() -> Trusted {
    let bundle = Parts::default().bundle().unwrap();
    Trusted::new(&bundle.collateral, &Root::from_der(&bundle.root).unwrap(), bundle.at).unwrap()
}

#[test]
fn quotes_of_trust_domains_are_read_and_refused_by_name() {
    for (bytes, version, name) in
        [(TDX1, 4, "trust domain (TDX 1.0)"), (TDX15EX, 5, "trust domain (TDX 1.5, extended)")]
    {
        let quote = Quote::parse(bytes).unwrap();
        assert_eq!((quote.header.version, quote.header.tee_type), (version, TeeType::Tdx));
        assert_eq!(quote.body.name(), name);
        assert_eq!(quote.authentication.certification.kind(), 5);
        // what follows is the rest of somebody's buffer
        let written = quote.to_bytes().unwrap();
        assert!(bytes.starts_with(&written) && bytes[written.len()..].iter().all(|&byte| byte == 0));
        let refusal = trusted().verify(&quote).unwrap_err();
        assert_eq!((refusal.rule, refusal.rule.class()), (Rule::TeeType, Class::Unsupported));
        assert!(refusal.to_string().contains(name), "{refusal}");

        // its parts are where they should be: the signature verifies
        let signed = quote.signed_bytes();
        assert!(quote.authentication.attestation_key.signed(&signed, &quote.authentication.signature));
        let judge = dcap_qvl::quote::Quote::parse(bytes).unwrap();
        let Body::TrustDomain(report) = &quote.body else { unreachable!() };
        let theirs = judge.report.as_td10().unwrap();
        assert_eq!((report.mrtd, report.reportdata), (theirs.mr_td, theirs.report_data));
        assert_eq!(report.rtmr[3], theirs.rt_mr3);
    }
}

/// Every version with every body it can have, and every kind of certification data.
#[test]
fn all_forms_are_written_as_they_are_read() {
    let ours = Quote::parse(&Parts::default().bundle().unwrap().quote).unwrap();
    let tcb = RawTcb { cpusvn: [1; 16], pcesvn: 0x203, pceid: [4, 5] };
    let certifications = [
        CertificationData::Ppid([1; 16], tcb.clone()),
        CertificationData::EncryptedPpid2048(Box::new([2; 256]), tcb.clone()),
        CertificationData::EncryptedPpid3072(Box::new([3; 384]), tcb),
        CertificationData::PckLeaf(b"leaf".to_vec()),
        CertificationData::PckChain(b"chain".to_vec()),
        CertificationData::PlatformManifest(vec![7; 100]),
    ];
    let Body::TrustDomain(extended) = Quote::parse(TDX15EX).unwrap().body else { unreachable!() };
    let mut td15 = extended.clone();
    td15.extended = None;
    let mut td10 = td15.clone();
    td10.td15 = None;
    let bodies =
        [ours.body.clone(), Body::TrustDomain(td10), Body::TrustDomain(td15), Body::TrustDomain(extended)];
    let mut forms = 0;
    for version in 3..=5 {
        for (i, body) in bodies.iter().enumerate() {
            // version 3 is for enclaves, version 4 knows the first form of TDX
            if i > [0, 1, 3][version - 3] {
                continue;
            }
            for certification in &certifications {
                let mut quote = ours.clone();
                quote.header.version = version as u16;
                quote.header.tee_type = if i == 0 { TeeType::Sgx } else { TeeType::Tdx };
                quote.body = body.clone();
                quote.authentication.certification = certification.clone();
                let bytes = quote.to_bytes().unwrap();
                assert_eq!(Quote::parse(&bytes).unwrap(), quote);
                assert_eq!(
                    dcap_qvl::quote::Quote::parse(&bytes).unwrap().header.version,
                    quote.header.version
                );
                forms += 1;
                if forms % 5 == 0 {
                    for length in 0..bytes.len() {
                        let refusal = Quote::parse(&bytes[..length]).unwrap_err();
                        assert_eq!(refusal.rule, Rule::Truncated, "{length}: {refusal}");
                    }
                }
                let trailing = Quote::parse(&[&bytes[..], &[0, 1, 0]].concat()).unwrap_err();
                assert_eq!(trailing.rule, Rule::Trailing);
            }
        }
    }
    assert_eq!(forms, 6 * (1 + 2 + 4));
}

#[test]
fn what_is_no_quote_is_refused_by_name() {
    let good = Parts::default().bundle().unwrap().quote;
    let changed = |at: usize, bytes: &[u8]| {
        let mut quote = good.clone();
        quote[at..at + bytes.len()].copy_from_slice(bytes);
        Quote::parse(&quote).unwrap_err().rule
    };
    assert_eq!(changed(0, &[2]), Rule::QuoteVersion);
    assert_eq!(changed(0, &[6]), Rule::QuoteVersion);
    // version 3 knows no trust domains
    assert_eq!(changed(4, &[0x81]), Rule::TeeType);
    assert_eq!(changed(432, &[0xff, 0xff, 0xff, 0xff]), Rule::Truncated);
    assert_eq!(changed(432, &[0, 0, 0, 0]), Rule::Trailing);
    assert_eq!(changed(1012, &[0xff, 0xff]), Rule::Truncated);
    assert_eq!(changed(1046, &[6]), Rule::CertificationData);
    assert_eq!(changed(1046, &[8]), Rule::CertificationData);
    assert_eq!(changed(1046, &[1]), Rule::Trailing);
    assert_eq!(changed(1048, &[0xff, 0xff, 0xff, 0x7f]), Rule::Truncated);
    assert_eq!(Quote::parse(&[3; 65_537]).unwrap_err().rule, Rule::Oversized);
}

/// Intel's own extension, of the Platform CA, byte for byte.
#[test]
fn the_sgx_extension_is_written_as_intel_does() {
    let extension = PckExtension::parse(PLATFORM).unwrap();
    assert_eq!(extension.fmspc, [0x00, 0x60, 0x6a, 0, 0, 0]);
    assert_eq!(extension.tcb.components, extension.tcb.cpusvn);
    assert_eq!(extension.sgx_type, SgxType::Scalable);
    assert!(extension.platform.is_some());
    assert_eq!(extension.to_der().unwrap(), PLATFORM);
    for length in 0..PLATFORM.len() {
        assert_eq!(PckExtension::parse(&PLATFORM[..length]).unwrap_err().rule, Rule::SgxExtension);
    }
}

#[test]
fn oversized_and_broken_files_are_refused() {
    assert_eq!(Certificate::parse(Role::Pck, &[0; 17_000]).unwrap_err().rule, Rule::Oversized);
    assert_eq!(Crl::parse(Role::Root, &vec![0; 5 << 20]).unwrap_err().rule, Rule::Oversized);
    assert_eq!(Collateral::from_json(&" ".repeat(17 << 20)).unwrap_err().rule, Rule::Oversized);
    assert_eq!(Collateral::from_json("{}").unwrap_err().rule, Rule::Encoding);
    let mut collateral = Parts::default().bundle().unwrap().collateral;
    assert_eq!(Collateral::from_json(&collateral.to_json()), Ok(collateral.clone()));
    collateral.tcb_info = " ".repeat(2 << 20);
    let bundle = Parts::default().bundle().unwrap();
    let refusal = dcap::verify(&bundle.quote, &collateral, &Root::from_der(&bundle.root).unwrap(), bundle.at);
    assert_eq!(refusal.unwrap_err().rule, Rule::Oversized);
    for bytes in [&[][..], &[0x30], &[0x30, 0x80, 0, 0], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(Certificate::parse(Role::Root, bytes).unwrap_err().rule, Rule::Encoding);
        assert_eq!(Crl::parse(Role::Root, bytes).unwrap_err().rule, Rule::Encoding);
    }
}

/// What the service answers, taken apart and put together.
#[test]
fn answers_of_the_service() {
    use dcap::collateral::{QeIdentity, Signed, TcbInfo};
    let collateral = Collateral::from_json(include_str!("../testdata/real1/collateral.json")).unwrap();
    let signed = collateral.signed_tcb_info();
    let body = signed.to_body("tcbInfo");
    assert_eq!(Signed::from_body(&body, "tcbInfo").unwrap(), signed);
    // Intel writes what we write
    assert_eq!(serde_json::to_string(&TcbInfo::parse(&signed.text).unwrap()).unwrap(), signed.text);
    let identity = collateral.signed_qe_identity();
    assert_eq!(serde_json::to_string(&QeIdentity::parse(&identity.text).unwrap()).unwrap(), identity.text);
    for bad in
        ["", "[]", "{\"tcbInfo\":{}}", "{\"tcbInfo\":{},\"signature\":\"0g\"}", "{\"signature\":\"00\"}"]
    {
        assert_eq!(Signed::from_body(bad, "tcbInfo").unwrap_err().rule, Rule::Encoding, "{bad}");
    }
}

/// Documents name every rule.
#[test]
fn the_documents_list_every_rule() {
    let text = include_str!("../../../docs/quotes.md");
    for rule in Rule::ALL {
        assert!(text.contains(&format!("`{}`", rule.name())), "docs/quotes.md lacks {}", rule.name());
    }
}
