//! From requests to responses.

use prost::Message;
use zerocopy::{FromBytes, IntoBytes};

use crate::key_id;
use crate::request::{self, Request};
use crate::response::{self, Response};
use crate::{AttestationKeyId, Code, Failure, QeReportInfo, Quoting};

/// Answers a message as it came from the stream. `log` hears why there is no quote, unless
/// it is for the program's own mistake.
pub fn answer_bytes(message: &[u8], quoting: &dyn Quoting, log: &dyn Fn(&str)) -> Vec<u8> {
    let response = match Request::decode(message) {
        Ok(request) => answer(&request, quoting, log),
        Err(_) => refusal(None, Code::MESSAGE),
    };
    response.encode_to_vec()
}

/// Answers a request. `log` is as in [`answer_bytes`].
pub fn answer(request: &Request, quoting: &dyn Quoting, log: &dyn Fn(&str)) -> Response {
    use request::Body;
    let done = match &request.body {
        Some(Body::InitQuoteEx(body)) => init_quote(body, quoting),
        Some(Body::GetQuoteSizeEx(body)) => quote_size(body, quoting),
        Some(Body::GetQuoteEx(body)) => quote(body, quoting),
        Some(Body::SelectAttKeyId(body)) => select(body, quoting),
        Some(Body::GetSupportedAttKeyIdNum(_)) => Ok(key_ids_count()),
        Some(Body::GetSupportedAttKeyIds(body)) => key_ids(body, quoting),
        // EPID, and launch control by a launch enclave
        _ => refuse(Code::SERVICE_UNAVAILABLE),
    };
    match done {
        Ok(body) => Response { body: Some(body) },
        Err(Refused(code, cause)) => {
            if let Some(cause) = cause {
                log(&cause);
            }
            refusal(request.body.as_ref(), code)
        }
    }
}

/// A code, and what is to be logged about it.
struct Refused(Code, Option<String>);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        // which any program can bring about as often as it likes
        let programs = matches!(failure.code, Code::INVALID_REPORT | Code::UNABLE_TO_GENERATE_QE_REPORT);
        Self(failure.code, (!programs).then(|| failure.to_string()))
    }
}

fn refuse<T>(code: Code) -> Result<T, Refused> {
    Err(Refused(code, None))
}

type Done = Result<response::Body, Refused>;

fn init_quote(request: &request::InitQuoteEx, quoting: &dyn Quoting) -> Done {
    known(request.att_key_id.as_deref(), quoting)?;
    let Some(wants_id) = request.b_pub_key_id else { return refuse(Code::PARAMETER) };
    let initialized = quoting.init()?;
    let id = initialized.public_key_id;
    if wants_id && request.buf_size != Some(id.len() as u64) {
        return refuse(Code::PARAMETER);
    }
    Ok(response::Body::InitQuoteEx(response::InitQuoteEx {
        error_code: Code::SUCCESS.0,
        target_info: Some(initialized.target_info.as_bytes().to_vec()),
        pub_key_id_size: Some(id.len() as u64),
        pub_key_id: wants_id.then(|| id.to_vec()),
    }))
}

fn quote_size(request: &request::GetQuoteSizeEx, quoting: &dyn Quoting) -> Done {
    known(request.att_key_id.as_deref(), quoting)?;
    Ok(response::Body::GetQuoteSizeEx(response::GetQuoteSizeEx {
        error_code: Code::SUCCESS.0,
        quote_size: Some(size(quoting)?),
    }))
}

fn quote(request: &request::GetQuoteEx, quoting: &dyn Quoting) -> Done {
    known(request.att_key_id.as_deref(), quoting)?;
    let report = structure(request.report.as_deref())?;
    let info = match request.qe_report_info.as_deref() {
        Some(bytes) => Some(structure::<QeReportInfo>(Some(bytes))?),
        None => None,
    };
    // a quote that the program could not take is not made
    let size = size(quoting)?;
    if request.buf_size.is_none_or(|there| there < size) {
        return refuse(Code::PARAMETER);
    }
    let quoted = quoting.quote(&report, info.as_ref().map(|info| &info.challenge))?;
    let info = match (info, quoted.qe_report) {
        (Some(info), Some(report)) => Some(QeReportInfo { report, ..info }.as_bytes().to_vec()),
        (None, _) => None,
        (Some(_), None) => return refuse(Code::UNABLE_TO_GENERATE_QE_REPORT),
    };
    Ok(response::Body::GetQuoteEx(response::GetQuoteEx {
        error_code: Code::SUCCESS.0,
        quote: Some(quoted.quote),
        qe_report_info: info,
    }))
}

fn select(request: &request::SelectAttKeyId, quoting: &dyn Quoting) -> Done {
    let selected = match request.att_key_id_list.as_deref() {
        None => quoting.key_id()?,
        Some(bytes) => {
            let Some(ids) = key_id::list(bytes) else { return refuse(Code::PARAMETER) };
            let ours = quoting.key_id()?;
            let Some(id) = ids.iter().find(|id| is_ours(id, &ours)) else {
                return refuse(Code::UNSUPPORTED_ATT_KEY_ID);
            };
            id.clone()
        }
    };
    Ok(response::Body::SelectAttKeyId(response::SelectAttKeyId {
        error_code: Code::SUCCESS.0,
        selected_att_key_id: Some(selected.as_bytes().to_vec()),
    }))
}

fn key_ids_count() -> response::Body {
    response::Body::GetSupportedAttKeyIdNum(response::GetSupportedAttKeyIdNum {
        error_code: Code::SUCCESS.0,
        att_key_id_num: Some(1),
    })
}

fn key_ids(request: &request::GetSupportedAttKeyIds, quoting: &dyn Quoting) -> Done {
    if request.buf_size != Some(AttestationKeyId::SIZE as u32) {
        return refuse(Code::PARAMETER);
    }
    Ok(response::Body::GetSupportedAttKeyIds(response::GetSupportedAttKeyIds {
        error_code: Code::SUCCESS.0,
        att_key_ids: Some(quoting.key_id()?.as_bytes().to_vec()),
    }))
}

/// The size of quotes as messages say it.
fn size(quoting: &dyn Quoting) -> Result<u32, Refused> {
    Ok(u32::try_from(quoting.quote_size()?).unwrap_or(u32::MAX))
}

/// Refuses an identifier that is neither our key's nor Intel's.
fn known(id: Option<&[u8]>, quoting: &dyn Quoting) -> Result<(), Refused> {
    let id = structure(id)?;
    if is_ours(&id, &quoting.key_id()?) { Ok(()) } else { refuse(Code::UNSUPPORTED_ATT_KEY_ID) }
}

fn is_ours(id: &AttestationKeyId, ours: &AttestationKeyId) -> bool {
    id.same_enclave(ours) || id.same_enclave(&AttestationKeyId::INTEL_QE3)
}

/// A structure in a message: there, and of its length.
fn structure<T: FromBytes>(bytes: Option<&[u8]>) -> Result<T, Refused> {
    bytes.and_then(|bytes| T::read_from_bytes(bytes).ok()).ok_or(Refused(Code::PARAMETER, None))
}

/// The response to this request that says nothing but a code.
fn refusal(request: Option<&request::Body>, Code(error_code): Code) -> Response {
    macro_rules! same_as_request {
        ($($name:ident)*) => {
            match request {
                $(Some(request::Body::$name(_)) => {
                    let mut refusal = response::$name::default();
                    refusal.error_code = error_code;
                    response::Body::$name(refusal)
                })*
                None => response::Body::UnsupportedRequest(response::UnsupportedRequest { error_code }),
            }
        };
    }
    let body = same_as_request!(
        InitQuote GetQuote GetLaunchToken ReportAttestationError GetWhiteListSize GetWhiteList
        GetExtendedEpidGroupId SwitchExtendedEpidGroup Register InitQuoteEx GetQuoteSizeEx GetQuoteEx
        CheckUpdateStatus SelectAttKeyId GetSupportedAttKeyIdNum GetSupportedAttKeyIds
    );
    Response { body: Some(body) }
}
