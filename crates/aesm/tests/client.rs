//! What an unmodified program with `aesm-client` gets.

mod support;

use aesm::AttestationKeyId;
use aesm_client::unix::AesmClientExt;
use aesm_client::{AesmClient, AesmError, Error, QuoteType};
use dcap::TcbStatus;
use sgx_abi::{Report, Targetinfo};
use support::{
    Platform, Service, application, application_report, hash, is_for, structure, target_of, verdict,
};
use zerocopy::IntoBytes;

fn ours(client: &AesmClient) -> Vec<u8> {
    let mut ids = client.get_supported_att_key_ids().expect("the identifiers");
    assert_eq!(ids.len(), 1);
    ids.remove(0)
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> AesmError {
    match result.expect_err("refused") {
        Error::AesmCode(code) => code,
        other => panic!("{other}"),
    }
}

#[test]
fn a_quote_end_to_end() {
    let service = Service::start();
    let client = AesmClient::with_path(service.socket());
    client.try_connect().expect("it listens");
    let ours = ours(&client);
    // programs look for ECDSA with P-256 at this place
    assert_eq!(ours[154..158], [2, 0, 0, 0]);

    let intels = AttestationKeyId::INTEL_QE3.as_bytes().to_vec();
    assert_ne!(ours, intels);
    for id in [ours, intels] {
        let info = client.init_quote_ex(id.clone()).expect("initialized");
        let target: Targetinfo = structure(info.target_info());
        assert_eq!(target, Platform.target_info());

        let report = application_report();
        let nonce = [0x17; 16];
        let got = client.get_quote_ex(id, report.as_bytes().to_vec(), None, nonce.to_vec()).expect("a quote");
        let verdict = verdict(got.quote());
        assert_eq!(verdict.report, application());
        assert_eq!(verdict.tcb.status, TcbStatus::UpToDate);
        assert_eq!(info.pub_key_id(), &verdict.qe_report.reportdata[..32]);

        // the enclave that asked sees that the quote is the quoting enclave's
        let qe: Report = structure(got.qe_report());
        assert!(is_for(&target_of(&application()), &qe));
        assert_eq!(qe.body.mrenclave, verdict.qe_report.mrenclave);
        assert_eq!(qe.body.reportdata[..32], hash(&[&nonce, got.quote()]));
        assert_eq!(qe.body.reportdata[32..], [0; 32]);
    }
}

#[test]
fn a_report_that_was_changed_gets_no_quote() {
    let service = Service::start();
    let client = AesmClient::with_path(service.socket());
    let mut report = application_report().as_bytes().to_vec();
    report[320] ^= 1;
    let refused = code(client.get_quote_ex(ours(&client), report, None, vec![0; 16]));
    assert!(matches!(refused, AesmError::InvalidReport_47), "{refused:?}");
}

#[test]
fn keys_of_other_enclaves_are_refused() {
    let service = Service::start();
    let client = AesmClient::with_path(service.socket());
    let mut id = ours(&client);
    let refused = code(client.init_quote_ex(id[1..].to_vec()));
    assert!(matches!(refused, AesmError::ParameterError_3), "{refused:?}");
    for at in [0, 4, 6, 54, 154] {
        id[at] ^= 1;
        let refused = code(client.init_quote_ex(id.clone()));
        assert!(matches!(refused, AesmError::UnsupportedAttKeyId_38), "{at}: {refused:?}");
        let report = application_report().as_bytes().to_vec();
        let refused = code(client.get_quote_ex(id.clone(), report, None, vec![0; 16]));
        assert!(matches!(refused, AesmError::UnsupportedAttKeyId_38), "{at}: {refused:?}");
        id[at] ^= 1;
    }
}

#[test]
fn programs_that_want_epid_hear_that_there_is_none() {
    let service = Service::start();
    let client = AesmClient::with_path(service.socket());
    let refused = code(client.init_quote());
    assert!(matches!(refused, AesmError::ServiceUnavailable_30), "{refused:?}");
    let report = application_report().as_bytes().to_vec();
    // with a revocation list longer than all else
    let refused =
        code(client.get_quote(report, vec![0; 16], vec![7; 300_000], QuoteType::Linkable, vec![0; 16]));
    assert!(matches!(refused, AesmError::ServiceUnavailable_30), "{refused:?}");
}
