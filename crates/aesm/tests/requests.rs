//! Each request and its response, field by field.

mod support;

use aesm::request::{self, Request};
use aesm::response::{self, Response};
use aesm::{AttestationKeyId, Challenge, Code, Failure, Initialized, QeReportInfo, Quoted, Quoting};
use prost::Message;
use sgx_abi::{Report, Targetinfo};
use std::cell::RefCell;
use support::{Platform, application_report, hash, is_for, structure};
use zerocopy::IntoBytes;

fn quiet(what: &str) {
    panic!("logged: {what}");
}

fn answer(body: request::Body) -> response::Body {
    aesm::answer(&Request { body: Some(body) }, &Platform, &quiet).body.expect("a response")
}

fn own_id() -> AttestationKeyId {
    Platform.key_id().expect("known")
}

fn ours() -> Option<Vec<u8>> {
    Some(own_id().as_bytes().to_vec())
}

fn init(request: request::InitQuoteEx) -> response::InitQuoteEx {
    match answer(request::Body::InitQuoteEx(request)) {
        response::Body::InitQuoteEx(response) => response,
        other => panic!("{other:?}"),
    }
}

fn quote(request: request::GetQuoteEx) -> response::GetQuoteEx {
    match answer(request::Body::GetQuoteEx(request)) {
        response::Body::GetQuoteEx(response) => response,
        other => panic!("{other:?}"),
    }
}

fn select(list: Option<Vec<u8>>) -> response::SelectAttKeyId {
    let request = request::SelectAttKeyId { att_key_id_list: list, timeout: None };
    match answer(request::Body::SelectAttKeyId(request)) {
        response::Body::SelectAttKeyId(response) => response,
        other => panic!("{other:?}"),
    }
}

/// The number of the one field that a message has, and its bytes.
fn only_field(message: &[u8]) -> (u32, Vec<u8>) {
    let mut rest = message;
    let (tag, kind) = prost::encoding::decode_key(&mut rest).expect("a field");
    assert_eq!(kind, prost::encoding::WireType::LengthDelimited);
    let length = prost::encoding::decode_varint(&mut rest).expect("its length");
    assert_eq!(rest.len() as u64, length);
    (tag, rest.to_vec())
}

#[test]
fn other_services_are_not_available() {
    // whatever the request says: as bytes, and by the numbers of Intel's service
    for tag in [1, 2, 3, 4, 10, 11, 12, 13, 14, 18] {
        for body in [&[][..], &[0x48, 0xc0, 0x84, 0x3d]] {
            let mut request = Vec::new();
            prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut request);
            request.extend([&[body.len() as u8], body].concat());
            let response = aesm::answer_bytes(&request, &Platform, &quiet);
            // field 1 of each response is the code
            assert_eq!(only_field(&response), (tag, vec![8, 30]), "request {tag}");
        }
    }
}

#[test]
fn what_is_no_request_is_answered_all_the_same() {
    let code = |bytes: &[u8]| only_field(&aesm::answer_bytes(bytes, &Platform, &quiet));
    // nothing; a session of the platform services that are no more; one of times to come
    for unknown in [&[][..], &[0x2a, 0], &[0xba, 2, 1, 7]] {
        assert_eq!(code(unknown), (20, vec![8, 30]), "{unknown:?}");
    }
    // an end within a field; a length beyond the end; a number where there should be bytes
    for garbage in [&[0x7a][..], &[0x7a, 5, 0], &[0x78, 1], &[0xff; 16]] {
        assert_eq!(code(garbage), (20, vec![8, 22]), "{garbage:?}");
    }
}

#[test]
fn the_key_identifier_comes_when_its_buffer_has_its_size() {
    let request =
        request::InitQuoteEx { att_key_id: ours(), b_pub_key_id: Some(false), ..Default::default() };
    let size = init(request.clone());
    assert_eq!((size.error_code, size.pub_key_id_size, &size.pub_key_id), (0, Some(32), &None));
    assert_eq!(structure::<Targetinfo>(&size.target_info.expect("the target")), Platform.target_info());

    for buf_size in [None, Some(31), Some(33), Some(u64::MAX)] {
        let refused = init(request::InitQuoteEx { b_pub_key_id: Some(true), buf_size, ..request.clone() });
        assert_eq!(refused, response::InitQuoteEx { error_code: 3, ..Default::default() });
    }
    let got = init(request::InitQuoteEx { b_pub_key_id: Some(true), buf_size: Some(32), ..request.clone() });
    assert_eq!(got.pub_key_id.as_deref().map(<[u8]>::len), Some(32));

    // which of the two is meant has to be said
    assert_eq!(init(request::InitQuoteEx { b_pub_key_id: None, ..request.clone() }).error_code, 3);
    assert_eq!(init(request::InitQuoteEx { att_key_id: None, ..request }).error_code, 3);
}

#[test]
fn a_quote_without_a_challenge_has_no_report() {
    let size = match answer(request::Body::GetQuoteSizeEx(request::GetQuoteSizeEx {
        att_key_id: ours(),
        timeout: None,
    })) {
        response::Body::GetQuoteSizeEx(response::GetQuoteSizeEx { error_code: 0, quote_size }) => quote_size,
        other => panic!("{other:?}"),
    };
    let request = request::GetQuoteEx {
        report: Some(application_report().as_bytes().to_vec()),
        att_key_id: ours(),
        qe_report_info: None,
        buf_size: size,
        timeout: None,
    };
    let got = quote(request.clone());
    assert_eq!((got.error_code, &got.qe_report_info), (0, &None));
    assert_eq!(got.quote.map(|quote| quote.len() as u32), size);

    // larger buffers do no harm; smaller ones get nothing
    assert_eq!(quote(request::GetQuoteEx { buf_size: Some(u32::MAX), ..request.clone() }).error_code, 0);
    let refused = |request| {
        let response = quote(request);
        assert_eq!(response, response::GetQuoteEx { error_code: response.error_code, ..Default::default() });
        Code(response.error_code)
    };
    let less = size.map(|size| size - 1);
    assert_eq!(refused(request::GetQuoteEx { buf_size: less, ..request.clone() }), Code::PARAMETER);
    assert_eq!(refused(request::GetQuoteEx { buf_size: None, ..request.clone() }), Code::PARAMETER);
    assert_eq!(refused(request::GetQuoteEx { report: None, ..request.clone() }), Code::PARAMETER);
    for wrong in [vec![], vec![0; 431], vec![0; 433]] {
        let request = request::GetQuoteEx { report: Some(wrong), ..request.clone() };
        assert_eq!(refused(request), Code::PARAMETER);
    }
    for wrong in [vec![], vec![0; 959], vec![0; 961]] {
        let request = request::GetQuoteEx { qe_report_info: Some(wrong), ..request.clone() };
        assert_eq!(refused(request), Code::PARAMETER);
    }
}

#[test]
fn a_challenge_comes_back_with_the_report() {
    let target = Targetinfo { measurement: [9; 32], ..Targetinfo::default() };
    let challenge = Challenge { nonce: [3; 16], target: target.clone() };
    let got = quote(request::GetQuoteEx {
        report: Some(application_report().as_bytes().to_vec()),
        att_key_id: ours(),
        qe_report_info: Some([challenge.as_bytes(), &[0xff; 432]].concat()),
        buf_size: Some(u32::MAX),
        timeout: None,
    });
    let info: QeReportInfo = structure(&got.qe_report_info.expect("asked for"));
    assert_eq!(info.challenge, challenge);
    assert!(is_for(&target, &info.report));
    assert_eq!(info.report.body.reportdata[..32], hash(&[&[3; 16], &got.quote.expect("a quote")]));
}

#[test]
fn of_a_verifiers_keys_the_first_that_is_ours_is_selected() {
    let (own, intels) = (own_id(), AttestationKeyId::INTEL_QE3);
    let stranger = AttestationKeyId::ecdsa([1; 32], 1);
    let list = |ids: &[&AttestationKeyId]| {
        let mut bytes = [&[0; 4][..], &(ids.len() as u32).to_le_bytes()].concat();
        ids.iter().for_each(|id| bytes.extend(id.as_bytes()));
        Some(bytes)
    };
    let selected = |list| {
        let response = select(list);
        assert_eq!(response.error_code, 0);
        structure::<AttestationKeyId>(&response.selected_att_key_id.expect("one"))
    };
    assert_eq!(selected(None), own);
    assert_eq!(selected(list(&[&own])), own);
    assert_eq!(selected(list(&[&stranger, &intels, &own])), intels);
    assert_eq!(select(list(&[&stranger])).error_code, Code::UNSUPPORTED_ATT_KEY_ID.0);
    for odd in [Some(vec![]), Some(vec![0; 8]), Some(vec![0; 263]), list(&[])] {
        assert_eq!(select(odd).error_code, Code::PARAMETER.0);
    }
}

#[test]
fn identifiers_come_in_a_buffer_of_their_size() {
    for (buf_size, code) in [(Some(256), 0), (Some(255), 3), (Some(512), 3), (None, 3)] {
        let request = request::GetSupportedAttKeyIds { buf_size, timeout: None };
        let response::Body::GetSupportedAttKeyIds(got) =
            answer(request::Body::GetSupportedAttKeyIds(request))
        else {
            panic!("another response");
        };
        assert_eq!(got.error_code, code);
        assert_eq!(got.att_key_ids.is_some(), code == 0);
    }
}

/// A quoting enclave that cannot.
struct Broken(Code);

impl Broken {
    fn failure<T>(&self) -> Result<T, Failure> {
        Err(Failure { code: self.0, cause: "it is broken".to_owned() })
    }
}

impl Quoting for Broken {
    fn key_id(&self) -> Result<AttestationKeyId, Failure> {
        Platform.key_id()
    }
    fn init(&self) -> Result<Initialized, Failure> {
        self.failure()
    }
    fn quote_size(&self) -> Result<usize, Failure> {
        Ok(5)
    }
    fn quote(&self, _: &Report, _: Option<&Challenge>) -> Result<Quoted, Failure> {
        self.failure()
    }
}

#[test]
fn what_is_wrong_with_the_service_is_logged_and_what_programs_do_wrong_is_not() {
    let requests = [
        request::Body::InitQuoteEx(request::InitQuoteEx {
            att_key_id: ours(),
            b_pub_key_id: Some(false),
            ..Default::default()
        }),
        request::Body::GetQuoteEx(request::GetQuoteEx {
            att_key_id: ours(),
            report: Some(vec![0; 432]),
            buf_size: Some(5),
            ..Default::default()
        }),
    ];
    for (code, logged) in [
        (Code::ENCLAVE_LOST, "the quoting enclave was lost (AESM 46): it is broken"),
        (Code::INVALID_REPORT, ""),
    ] {
        for request in &requests {
            let log = RefCell::new(String::new());
            let request = Request { body: Some(request.clone()) };
            let response = aesm::answer(&request, &Broken(code), &|what| log.borrow_mut().push_str(what));
            let (_, body) = only_field(&Response::encode_to_vec(&response));
            assert_eq!(body, [8, code.0 as u8]);
            assert_eq!(log.into_inner(), logged);
        }
    }
}
