//! Requests to the service that makes quotes: [`aesm`]. What it reads in them, the parser of
//! `aesm-client` must find there too, by a second list of Intel's field numbers.

use aesm::request::{self, Request};
use aesm::response::Response;
use aesm::{
    AttestationKeyId, Challenge, Failure, Initialized, QeReportInfo, Quoted, Quoting, answer_bytes, frame,
};
use prost::Message;
use protobuf::UnknownValueRef as Value;
use sgx_abi::{Report, Targetinfo};

/// Of what kind a field is.
#[derive(Clone, Copy)]
enum Kind {
    Bool,
    U32,
    U64,
    Bytes,
}
use Kind::{Bool, Bytes, U32, U64};

/// The requests of Intel's `messages.proto`, each with its fields.
const REQUESTS: [(u32, &[(u32, Kind)]); 16] = [
    (1, &[(9, U32)]),
    (2, &[(1, Bytes), (2, U32), (3, Bytes), (4, Bytes), (5, Bytes), (6, U32), (7, Bool), (9, U32)]),
    (3, &[(1, Bytes), (2, Bytes), (3, Bytes), (9, U32)]),
    (4, &[(1, Bytes), (2, U32), (3, U32), (9, U32)]),
    (10, &[(9, U32)]),
    (11, &[(1, U32), (9, U32)]),
    (12, &[(9, U32)]),
    (13, &[(1, U32), (9, U32)]),
    (14, &[(1, Bytes), (2, U32), (9, U32)]),
    (15, &[(1, Bytes), (3, Bool), (4, U64), (9, U32)]),
    (16, &[(1, Bytes), (9, U32)]),
    (17, &[(1, Bytes), (2, Bytes), (3, Bytes), (4, U32), (9, U32)]),
    (18, &[(1, Bytes), (2, U32), (3, U32), (9, U32)]),
    (19, &[(1, Bytes), (2, U32)]),
    (21, &[(9, U32)]),
    (22, &[(1, U32), (9, U32)]),
];

/// A message on its stream, or as it is.
pub fn aesm_messages(data: &[u8]) {
    if let Ok(message) = frame::read(&mut &data[..], frame::MAX_REQUEST) {
        let mut written = Vec::new();
        frame::write(&mut written, &message).expect("a vector takes all");
        assert!(data.starts_with(&written));
        answered(&message);
    }
    answered(data);
}

/// Has a message answered; the code of the response.
pub fn answered(message: &[u8]) -> u32 {
    let response = answer_bytes(message, &Echo, &|what| panic!("logged: {what}"));
    let asked = read(message);
    let [(number, body)] = &bodies(&response)[..] else { panic!("one response") };
    // a request is answered in the field that belongs to it
    match asked {
        Some(asked) => assert_eq!(*number, asked),
        None => assert_eq!(*number, 20),
    }
    let Some(Value::Varint(code)) = last(body, 1) else { panic!("without a code") };
    let again = Response::decode(&response[..]).expect("of our own making");
    assert_eq!(again.encode_to_vec(), response);
    code as u32
}

/// Reads a request, and has it judged: which it is, if it is one.
fn read(message: &[u8]) -> Option<u32> {
    let request = Request::decode(message).ok()?;
    request.body.as_ref()?;
    // what we have understood, and what there is
    let [(number, ours)] = &bodies(&request.encode_to_vec())[..] else { panic!("one request") };
    let theirs = bodies(message);
    if let [(only, theirs)] = &theirs[..] {
        assert_eq!(only, number);
        let (_, fields) = REQUESTS.iter().find(|(request, _)| request == number).expect("in the list");
        for &(field, kind) in *fields {
            let theirs = last(theirs, field).map(|value| match (kind, value) {
                (Bool, Value::Varint(value)) => Value::Varint(u64::from(value != 0)),
                (U32, Value::Varint(value)) => Value::Varint(u64::from(value as u32)),
                (U64, Value::Varint(value)) => Value::Varint(value),
                (Bytes, Value::LengthDelimited(bytes)) => Value::LengthDelimited(bytes),
                (_, other) => panic!("field {field} of request {number} is {other:?}"),
            });
            assert_eq!(last(ours, field), theirs, "field {field} of request {number}");
        }
    }
    Some(*number)
}

type Fields = protobuf::well_known_types::empty::Empty;

/// A message as the judge reads it: fields by number, with no notion of what they mean.
fn fields(message: &[u8]) -> Fields {
    protobuf::Message::parse_from_bytes(message).expect("the judge reads it")
}

/// The known bodies in a message, by their number; several of one number are one.
fn bodies(message: &[u8]) -> Vec<(u32, Fields)> {
    let there = fields(message);
    let known = REQUESTS.iter().map(|&(number, _)| number).chain([20]);
    let of = |number: u32| {
        let parts: Vec<_> = values(&there, number)
            .map(|value| match value {
                Value::LengthDelimited(bytes) => bytes,
                other => panic!("body {number} is {other:?}"),
            })
            .collect();
        (!parts.is_empty()).then(|| (number, fields(&parts.concat())))
    };
    known.filter_map(of).collect()
}

fn values(fields: &Fields, number: u32) -> impl Iterator<Item = Value<'_>> {
    let all = protobuf::Message::unknown_fields(fields).iter();
    all.filter(move |(field, _)| *field == number).map(|(_, value)| value)
}

/// The value that counts: the last.
fn last(fields: &Fields, number: u32) -> Option<Value<'_>> {
    values(fields, number).last()
}

/// Says that any report is good, and makes a quote of nothing else.
struct Echo;

impl Quoting for Echo {
    fn key_id(&self) -> Result<AttestationKeyId, Failure> {
        Ok(AttestationKeyId::ecdsa([0x4b; 32], 1))
    }

    fn init(&self) -> Result<Initialized, Failure> {
        Ok(Initialized { target_info: Targetinfo::default(), public_key_id: [7; 32] })
    }

    fn quote_size(&self) -> Result<usize, Failure> {
        Ok(size_of::<Report>())
    }

    fn quote(&self, report: &Report, challenge: Option<&Challenge>) -> Result<Quoted, Failure> {
        let quote = zerocopy::IntoBytes::as_bytes(report).to_vec();
        Ok(Quoted { quote, qe_report: challenge.map(|_| Report::default()) })
    }
}

/// Requests of the kinds that are served, and some others.
pub fn requests() -> Vec<Vec<u8>> {
    use request::*;
    let id = zerocopy::IntoBytes::as_bytes(&AttestationKeyId::INTEL_QE3).to_vec();
    let timeout = Some(30_000_000);
    let (att_key_id, buf_size) = (Some(id.clone()), Some(8192));
    let bodies = [
        Body::InitQuote(InitQuote { timeout }),
        Body::GetQuote(GetQuote {
            report: Some(vec![1; 432]),
            quote_type: Some(1),
            spid: Some(vec![0; 16]),
            nonce: Some(vec![2; 16]),
            qe_report: Some(true),
            buf_size,
            sig_rl: None,
            timeout,
        }),
        Body::GetLaunchToken(GetLaunchToken {
            mr_enclave: Some(vec![3; 32]),
            mr_signer: Some(vec![4; 384]),
            se_attributes: Some(vec![4; 16]),
            timeout,
        }),
        Body::CheckUpdateStatus(CheckUpdateStatus { update_info_size: Some(12), ..Default::default() }),
        Body::Register(Register { buf: Some(vec![5; 9]), data_type: Some(0), timeout }),
        Body::InitQuoteEx(InitQuoteEx {
            att_key_id: att_key_id.clone(),
            b_pub_key_id: Some(true),
            buf_size: Some(32),
            timeout,
        }),
        Body::GetQuoteSizeEx(GetQuoteSizeEx { att_key_id: att_key_id.clone(), timeout }),
        Body::GetQuoteEx(GetQuoteEx {
            report: Some(vec![6; 432]),
            att_key_id,
            qe_report_info: Some(vec![7; QeReportInfo::SIZE]),
            buf_size,
            timeout,
        }),
        Body::SelectAttKeyId(SelectAttKeyId {
            att_key_id_list: Some([&[0, 0, 0, 0, 1, 0, 0, 0][..], &id].concat()),
            timeout,
        }),
        Body::GetSupportedAttKeyIdNum(GetSupportedAttKeyIdNum { timeout }),
        Body::GetSupportedAttKeyIds(GetSupportedAttKeyIds { buf_size: Some(256), timeout }),
    ];
    bodies.into_iter().map(|body| Request { body: Some(body) }.encode_to_vec()).collect()
}

/// The same, and on their stream.
pub fn seeds() -> Vec<Vec<u8>> {
    let framed = requests().into_iter().map(|request| {
        let mut stream = Vec::new();
        frame::write(&mut stream, &request).expect("a vector takes all");
        stream
    });
    requests().into_iter().chain(framed).collect()
}
