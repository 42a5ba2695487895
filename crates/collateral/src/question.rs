//! What requests ask for.
//!
//! The paths and parameters are those of Intel's PCS API, version 4, and of the PCCS, which
//! has them with additions. Parameters that neither has are passed over, for clients of both
//! add some (`customParameter`).

use crate::Problem;
use crate::query::Query;
use http::{Method, StatusCode, Uri};

/// Digits of a parameter that is a quoting enclave's id, at most.
const MAX_QE_ID: usize = 260;
/// Digits of an encrypted PPID: RSA of 3072 bits.
const ENCRYPTED_PPID: usize = 768;

/// The form of a revocation list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// DER in hexadecimal digits: what the PCCS does unless told otherwise.
    Hex,
    /// DER.
    Der,
    /// PEM.
    Pem,
}

/// Which set of TCB levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSet {
    /// Today's. There is no other for those who update early.
    Current,
    /// The one of this number.
    Number(u32),
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The certificate of the PCK for a TCB.
    PckCertificate {
        /// CPUSVN.
        cpusvn: [u8; 16],
        /// ISVSVN of the provisioning-certification enclave.
        pcesvn: u16,
        /// PCEID.
        pceid: [u8; 2],
    },
    /// The revocation list of the PCK CA.
    PckCrl(Form),
    /// The revocation list of the root.
    RootCrl(Form),
    /// TCB info for a kind of platform.
    TcbInfo {
        /// FMSPC.
        fmspc: [u8; 6],
        /// Which.
        set: DataSet,
    },
    /// The identity of the quoting enclave.
    QeIdentity(DataSet),
    /// The kinds of platform that there are.
    Fmspcs {
        /// Of all segments of the market; none here belongs to one of Intel's.
        all: bool,
    },
}

impl Question {
    /// What a request asks for.
    ///
    /// # Errors
    /// It asks for nothing that there is, or not as it should.
    pub fn parse(method: &Method, target: &Uri) -> Result<Self, Problem> {
        let path = target.path();
        if path.starts_with("/tdx/") {
            return Err(Problem::none("Kluis's processors have no TDX, and so no collateral for it"));
        }
        let under = |version: &str| path.strip_prefix("/sgx/certification/")?.strip_prefix(version);
        let (resource, version) = match (under("v4/"), under("v3/")) {
            (Some(resource), _) => (resource, 4),
            (_, Some(resource)) => (resource, 3),
            _ => return Err(Problem::none("the paths here begin with /sgx/certification/v4/")),
        };
        let query = Query::parse(target.query().unwrap_or_default());
        let read: fn(&Query) -> Result<Self, Problem> = match (resource, version) {
            ("pckcert", _) => pck_certificate,
            ("pckcrl", _) => pck_crl,
            ("rootcacrl", _) => |query| form(query).map(Self::RootCrl),
            ("crl", _) => crl,
            ("tcb", 4) => tcb_info,
            ("tcb", _) => {
                return Err(Problem::none(
                    "TCB info of version 2 is not issued: use /sgx/certification/v4/tcb",
                ));
            }
            ("qe/identity", _) => |query| data_set(query).map(Self::QeIdentity),
            ("fmspcs", 4) => fmspcs,
            ("qve/identity", _) => {
                return Err(Problem::none("there is no quote verification enclave of this platform"));
            }
            ("pckcerts" | "pckcerts/config", _) => {
                return Err(Problem::none(
                    "whoever asks for all certificates names a platform by a PPID that is encrypted for Intel; \
                     ask for pckcert by qeid",
                ));
            }
            _ => {
                return Err(Problem::none(format!(
                    "there is no {resource:?} here: docs/collateral.md has the list"
                )));
            }
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            let text = "nothing can be changed here: use GET".to_owned();
            return Err(Problem { status: StatusCode::METHOD_NOT_ALLOWED, text });
        }
        read(&query?)
    }
}

/// The value of a parameter that must be there.
fn needed<'a>(query: &'a Query, name: &str) -> Result<&'a str, Problem> {
    query.get(name).ok_or_else(|| Problem::bad(format!("the parameter {name} is missing")))
}

/// The bytes of a parameter.
fn bytes<const N: usize>(query: &Query, name: &str) -> Result<[u8; N], Problem> {
    let digits = needed(query, name)?;
    dcap::hex::decode_array(digits, name)
        .map_err(|_| Problem::bad(format!("the parameter {name} is not {} hexadecimal digits", 2 * N)))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn pck_certificate(query: &Query) -> Result<Question, Problem> {
    let tcb = Question::PckCertificate {
        cpusvn: bytes(query, "cpusvn")?,
        pcesvn: u16::from_le_bytes(bytes(query, "pcesvn")?),
        pceid: bytes(query, "pceid")?,
    };
    if query.get("encrypted_ppid").is_some_and(|ppid| ppid.len() != ENCRYPTED_PPID || !is_hex(ppid)) {
        return Err(Problem::bad(format!(
            "the parameter encrypted_ppid is not {ENCRYPTED_PPID} hexadecimal digits"
        )));
    }
    match query.get("qeid") {
        Some(id) if (1..=MAX_QE_ID).contains(&id.len()) && is_hex(id) => Ok(tcb),
        Some(_) => {
            Err(Problem::bad(format!("the parameter qeid is not 1 to {MAX_QE_ID} hexadecimal digits")))
        }
        None if query.get("encrypted_ppid").is_some() => {
            Err(Problem::none("a PPID is encrypted for Intel, who alone can read it: ask by qeid"))
        }
        None => Err(Problem::bad("the parameter qeid is missing")),
    }
}

fn pck_crl(query: &Query) -> Result<Question, Problem> {
    let ca = needed(query, "ca")?;
    match ca.to_ascii_lowercase().as_str() {
        "platform" => form(query).map(Question::PckCrl),
        "processor" => {
            Err(Problem::none("this platform's PCK is certified by the Platform CA: use ca=platform"))
        }
        _ => Err(Problem::bad("the parameter ca is neither platform nor processor")),
    }
}

fn form(query: &Query) -> Result<Form, Problem> {
    match query.get("encoding").map(str::to_ascii_lowercase).as_deref() {
        None => Ok(Form::Hex),
        Some("der") => Ok(Form::Der),
        Some("pem") => Ok(Form::Pem),
        Some(_) => Err(Problem::bad("the parameter encoding is neither der nor pem")),
    }
}

/// The PCCS's way to a list by the address that certificates have for it.
fn crl(query: &Query) -> Result<Question, Problem> {
    match needed(query, "uri")? {
        manufacturer::ROOT_CRL => Ok(Question::RootCrl(Form::Der)),
        manufacturer::PCK_CRL => Ok(Question::PckCrl(Form::Der)),
        _ => Err(Problem::none("no certificate of this platform has a revocation list at that uri")),
    }
}

fn tcb_info(query: &Query) -> Result<Question, Problem> {
    Ok(Question::TcbInfo { fmspc: bytes(query, "fmspc")?, set: data_set(query)? })
}

fn data_set(query: &Query) -> Result<DataSet, Problem> {
    match (query.get("update"), query.get("tcbEvaluationDataNumber")) {
        (Some(_), Some(_)) => Err(Problem::bad("update and tcbEvaluationDataNumber exclude each other")),
        (None | Some("standard" | "early"), None) => Ok(DataSet::Current),
        (Some(_), None) => Err(Problem::bad("the parameter update is neither standard nor early")),
        (None, Some(number)) => {
            let number = Some(number).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = number.and_then(|text| text.parse().ok());
            number
                .map(DataSet::Number)
                .ok_or_else(|| Problem::bad("the parameter tcbEvaluationDataNumber is no number"))
        }
    }
}

fn fmspcs(query: &Query) -> Result<Question, Problem> {
    match query.get("platform") {
        None | Some("all") => Ok(Question::Fmspcs { all: true }),
        Some("client" | "E3" | "E5") => Ok(Question::Fmspcs { all: false }),
        Some(_) => Err(Problem::bad("the parameter platform is none of all, client, E3 and E5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(target: &str) -> Result<Question, u16> {
        let target = format!("/sgx/certification/{target}").parse().unwrap();
        Question::parse(&Method::GET, &target).map_err(|problem| problem.status.as_u16())
    }

    #[test]
    fn questions_of_both_services() {
        let fmspc = *b"KLUI\0\x01";
        let set = DataSet::Current;
        let cpusvn = std::array::from_fn(|i| u8::from(i == 0));
        let pck = Question::PckCertificate { cpusvn, pcesvn: 1, pceid: [0; 2] };
        let raw = format!("pckcert?cpusvn=01{}&pcesvn=0100&pceid=0000", "0".repeat(30));
        for (target, question) in [
            ("v4/pckcrl?ca=platform&encoding=der", Question::PckCrl(Form::Der)),
            ("v4/pckcrl?ca=PLATFORM", Question::PckCrl(Form::Hex)),
            ("v3/pckcrl?encoding=pem&ca=platform", Question::PckCrl(Form::Pem)),
            ("v4/rootcacrl", Question::RootCrl(Form::Hex)),
            ("v4/rootcacrl?customParameter=%2B", Question::RootCrl(Form::Hex)),
            ("v4/rootcacrl?encoding=der", Question::RootCrl(Form::Der)),
            (&format!("v4/crl?uri={}", manufacturer::ROOT_CRL), Question::RootCrl(Form::Der)),
            (
                &format!("v4/crl?uri={}", crate::query::encode(manufacturer::PCK_CRL)),
                Question::PckCrl(Form::Der),
            ),
            ("v4/tcb?fmspc=4b4C55490001", Question::TcbInfo { fmspc, set }),
            ("v4/tcb?fmspc=4b4C55490001&update=standard", Question::TcbInfo { fmspc, set }),
            (
                "v4/tcb?fmspc=4b4C55490001&tcbEvaluationDataNumber=7",
                Question::TcbInfo { fmspc, set: DataSet::Number(7) },
            ),
            ("v4/qe/identity?update=early", Question::QeIdentity(set)),
            ("v3/qe/identity", Question::QeIdentity(set)),
            ("v4/fmspcs", Question::Fmspcs { all: true }),
            ("v4/fmspcs?platform=E5", Question::Fmspcs { all: false }),
            (&format!("v4/{raw}&qeid=00ff"), pck.clone()),
            (&format!("v4/{raw}&qeid=00ff&encrypted_ppid={}", "0".repeat(768)), pck),
        ] {
            assert_eq!(ask(target), Ok(question), "{target}");
        }
        for (target, status) in [
            ("v4/pckcrl", 400),
            ("v4/pckcrl?ca=root", 400),
            ("v4/pckcrl?ca=processor&encoding=der", 404),
            ("v4/pckcrl?ca=platform&encoding=xml", 400),
            ("v4/rootcacrl?encoding=", 400),
            ("v4/crl", 400),
            ("v4/crl?uri=https://certificates.trustedservices.intel.com/IntelSGXRootCA.der", 404),
            ("v4/tcb", 400),
            ("v4/tcb?fmspc=4B4C5549000", 400),
            ("v4/tcb?fmspc=4B4C554900XY", 400),
            ("v4/tcb?fmspc=4B4C55490001&update=never", 400),
            ("v4/tcb?fmspc=4B4C55490001&update=early&tcbEvaluationDataNumber=1", 400),
            ("v4/tcb?fmspc=4B4C55490001&tcbEvaluationDataNumber=+1", 400),
            ("v4/tcb?fmspc=4B4C55490001&tcbEvaluationDataNumber=99999999999", 400),
            ("v3/tcb?fmspc=4B4C55490001", 404),
            ("v4/qve/identity", 404),
            ("v4/pckcerts", 404),
            ("v4/fmspcs?platform=all&platform=E3", 400),
            ("v4/fmspcs?platform=toy", 400),
            ("v4/", 404),
            ("v5/tcb", 404),
            (&format!("v4/{raw}"), 400),
            (&format!("v4/{raw}&encrypted_ppid={}", "0".repeat(768)), 404),
            (&format!("v4/{raw}&qeid=0&encrypted_ppid=00"), 400),
            (&format!("v4/{raw}&qeid={}", "0".repeat(261)), 400),
            (&format!("v4/{raw}&qeid=xy"), 400),
        ] {
            assert_eq!(ask(target), Err(status), "{target}");
        }
    }

    #[test]
    fn other_paths_and_methods() {
        let ask = |method, target: &str| {
            Question::parse(&method, &target.parse().unwrap()).map_err(|problem| problem.status.as_u16())
        };
        let crl = "/sgx/certification/v4/rootcacrl";
        assert_eq!(ask(Method::HEAD, crl), Ok(Question::RootCrl(Form::Hex)));
        // as proxies are asked
        assert_eq!(ask(Method::GET, &format!("https://localhost{crl}")), Ok(Question::RootCrl(Form::Hex)));
        assert_eq!(ask(Method::POST, crl), Err(405));
        assert_eq!(ask(Method::POST, "/sgx/registration/v1/platform"), Err(404));
        assert_eq!(ask(Method::OPTIONS, "*"), Err(404));
        assert_eq!(ask(Method::GET, "/"), Err(404));
        let tdx = "/tdx/certification/v4/tcb?fmspc=000000000000".parse().unwrap();
        let problem = Question::parse(&Method::GET, &tdx).unwrap_err();
        assert!(problem.status == 404 && problem.text.contains("TDX"), "{problem:?}");
    }
}
