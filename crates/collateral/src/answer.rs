//! What a platform's maker says to a question at a time, with the headers of both services.

use crate::question::{DataSet, Form, Question};
use crate::{Problem, query};
use dcap::{Time, hex};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use manufacturer::{FMSPC, Issued, Manufacturer, ManufacturerError};
use platform::CpuSvn;
use provisioning::{PCE_ID, PCE_SVN};

/// A body with its type, and headers of the services' own.
struct Said {
    kind: &'static str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
}

/// The answer to a question at a time.
///
/// # Errors
/// The platform is beyond what certificates can say. What there is not is an answer.
pub fn answer(
    question: &Question,
    maker: &Manufacturer,
    at: Time,
) -> Result<Response<Vec<u8>>, ManufacturerError> {
    Ok(match said(question, maker, at)? {
        Ok(said) => response(StatusCode::OK, said),
        Err(problem) => refusal(&problem),
    })
}

/// The response to a request that has no answer.
pub fn refusal(problem: &Problem) -> Response<Vec<u8>> {
    let body = format!("{}\n", problem.text).into_bytes();
    let mut response =
        response(problem.status, Said { kind: "text/plain; charset=utf-8", body, headers: Vec::new() });
    if problem.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

fn response(status: StatusCode, said: Said) -> Response<Vec<u8>> {
    let mut response = Response::new(said.body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(said.kind));
    for (name, value) in said.headers {
        // hexadecimal digits, words and what is percent-encoded
        headers.insert(name, HeaderValue::try_from(value).expect("visible characters"));
    }
    response
}

fn said(
    question: &Question,
    maker: &Manufacturer,
    at: Time,
) -> Result<Result<Said, Problem>, ManufacturerError> {
    let issued = || maker.issued(at);
    Ok(match *question {
        Question::PckCertificate { cpusvn, pcesvn, pceid } => {
            pck_certificate(maker, &issued()?, cpusvn, pcesvn, pceid)?
        }
        Question::PckCrl(form) => {
            let collateral = issued()?.collateral;
            let chain = query::encode(&collateral.pck_crl_issuer_chain);
            Ok(list(&collateral.pck_crl, form, vec![("sgx-pck-crl-issuer-chain", chain)]))
        }
        Question::RootCrl(form) => Ok(list(&issued()?.collateral.root_ca_crl, form, Vec::new())),
        Question::TcbInfo { fmspc, .. } if fmspc != FMSPC => {
            let ours = hex::encode(&FMSPC).to_uppercase();
            Err(Problem::none(format!("there is no TCB info here but for the FMSPC {ours}")))
        }
        Question::TcbInfo { set, .. } => {
            let issued = issued()?;
            current(&issued, set).map(|()| {
                let chain = query::encode(&issued.collateral.tcb_info_issuer_chain);
                let body = issued.collateral.signed_tcb_info().to_body("tcbInfo");
                document(body, vec![("tcb-info-issuer-chain", chain)])
            })
        }
        Question::QeIdentity(set) => {
            let issued = issued()?;
            current(&issued, set).map(|()| {
                let chain = query::encode(&issued.collateral.qe_identity_issuer_chain);
                let body = issued.collateral.signed_qe_identity().to_body("enclaveIdentity");
                document(body, vec![("sgx-enclave-identity-issuer-chain", chain)])
            })
        }
        Question::Fmspcs { all } => {
            let ours = hex::encode(&FMSPC).to_uppercase();
            let body =
                if all { format!("[{{\"fmspc\":\"{ours}\",\"platform\":\"Kluis\"}}]") } else { "[]".into() };
            Ok(document(body, Vec::new()))
        }
    })
}

/// The certificate for a raw TCB: that of its very CPUSVN. The service knows one platform and
/// takes every quoting enclave for one of its; a certificate that is another's helps nobody,
/// for signatures do not fit it.
fn pck_certificate(
    maker: &Manufacturer,
    issued: &Issued,
    cpusvn: [u8; 16],
    pcesvn: u16,
    pceid: [u8; 2],
) -> Result<Result<Said, Problem>, ManufacturerError> {
    let none =
        || Problem::none("this platform has, and had, no such TCB: cpusvn, pcesvn and pceid are of another");
    let svn = CpuSvn::from_bytes(&cpusvn).filter(|_| pcesvn >= PCE_SVN && pceid == PCE_ID);
    let Some(svn) = svn else { return Ok(Err(none())) };
    let Some(certificate) = maker.pck(svn)? else { return Ok(Err(none())) };
    let tcbm = [&cpusvn[..], &PCE_SVN.to_le_bytes()].concat();
    let headers = vec![
        ("sgx-pck-certificate-issuer-chain", query::encode(&issued.collateral.pck_crl_issuer_chain)),
        ("sgx-tcbm", hex::encode(&tcbm).to_uppercase()),
        ("sgx-fmspc", hex::encode(&FMSPC).to_uppercase()),
        ("sgx-pck-certificate-ca-type", "platform".into()),
    ];
    let body = dcap::pki::to_pem([certificate.der()]).into_bytes();
    Ok(Ok(Said { kind: "application/x-pem-file", body, headers }))
}

/// Refuses any set of TCB levels but the one that there is.
fn current(issued: &Issued, set: DataSet) -> Result<(), Problem> {
    let now = issued.evaluation_data_number;
    match set {
        DataSet::Number(number) if number < now => Err(Problem {
            status: StatusCode::GONE,
            text: format!("the set of TCB levels is number {now} by now"),
        }),
        DataSet::Number(number) if number > now => {
            Err(Problem::none(format!("the set of TCB levels is number {now}; there is no later one")))
        }
        _ => Ok(()),
    }
}

fn document(json: String, headers: Vec<(&'static str, String)>) -> Said {
    Said { kind: "application/json", body: json.into_bytes(), headers }
}

/// A revocation list in a form; hexadecimal digits have no end of line, for some clients
/// take all of the body for digits.
fn list(der: &[u8], form: Form, headers: Vec<(&'static str, String)>) -> Said {
    let (kind, body) = match form {
        Form::Hex => ("text/plain", hex::encode(der).into_bytes()),
        Form::Der => ("application/pkix-crl", der.to_vec()),
        Form::Pem => ("application/x-pem-file", dcap::pki::crl_to_pem(der).into_bytes()),
    };
    Said { kind, body, headers }
}
