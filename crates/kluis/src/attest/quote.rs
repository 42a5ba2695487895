//! `kluis attest quote`: the quote that a server in an enclave shows, into a file. Nobody is
//! believed here.

use super::args::QuoteArgs;
use super::endpoint::{Endpoint, Stream};
use super::report::{Enclave, enclave_text, line};
use crate::exit::{self, Error};
use crate::whole;
use dcap::hex::encode;
use dcap::quote::Body;
use ratls::certificate::{Format, Speaks};
use ratls::{NotShown, Refusal, Rule, evidence_of};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// What is told. Of the quote nothing is verified but that it binds the server's key.
#[derive(Serialize)]
struct Report<'a> {
    endpoint: String,
    /// Where the quote is, if not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<String>,
    bytes: usize,
    verified: bool,
    /// The server has shown in the handshake that it has the key that the quote binds.
    binds_server_key: bool,
    format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
    report: Option<Enclave>,
}

/// Does what was asked.
///
/// # Errors
/// There is nobody, or no enclave that shows a quote; or the file cannot be written.
pub(super) fn main(args: &QuoteArgs, json: bool) -> Result<u8, Error> {
    let file = args.output.as_deref();
    if file.is_none() && !json && io::stdout().is_terminal() {
        return Err(Error::bad(
            "a quote is nothing for a terminal: name a file with -o FILE, or ask for --json",
        ));
    }
    let endpoint = &args.endpoint;
    let mut stream = Stream::connect(endpoint, args.timeout)?;
    let speaks = evidence_of(&mut stream).map_err(|why| not_shown(endpoint, &why))?;
    let report = Report::of(endpoint, &speaks, file)?;
    if let Some(file) = file {
        whole::write(file, &speaks.quote)
            .map_err(|e| Error::bad(format!("cannot write {}: {e}; check the path", file.display())))?;
    }
    match (file, json) {
        (_, true) => crate::print_json(&report)?,
        (Some(file), false) => crate::print(&text(&report, &file.display().to_string()))?,
        (None, false) => {
            // whoever reads the quote has no use for words in it
            eprint!("{}", text(&report, "FILE"));
            let mut out = io::stdout();
            out.write_all(&speaks.quote)
                .and_then(|()| out.flush())
                .map_err(|e| Error::failed(format!("cannot write standard output: {e}")))?;
        }
    }
    Ok(exit::OK)
}

impl<'a> Report<'a> {
    fn of(endpoint: &Endpoint, speaks: &Speaks, file: Option<&'a Path>) -> Result<Self, Error> {
        let quote = speaks.quote().map_err(|refusal| not_shown(endpoint, &refusal.into()))?;
        Ok(Self {
            endpoint: endpoint.to_string(),
            file,
            quote: file.is_none().then(|| encode(&speaks.quote)),
            bytes: speaks.quote.len(),
            verified: false,
            binds_server_key: true,
            format: match speaks.format {
                Format::Interoperable => "interoperable",
                Format::Legacy => "legacy",
            },
            nonce: speaks.nonce.as_deref().map(encode),
            report: match &quote.body {
                Body::Enclave(report) => Some(Enclave::of(report)),
                Body::TrustDomain(_) => None,
            },
        })
    }
}

fn text(report: &Report<'_>, file: &str) -> String {
    let Report { endpoint, bytes, format, .. } = report;
    let mut out =
        format!("{endpoint}: a quote of {bytes} bytes, which binds the server's key; not verified\n");
    line(&mut out, "evidence", &format!("RA-TLS, the {format} format"));
    if let Some(nonce) = &report.nonce {
        line(&mut out, "nonce", nonce);
    }
    if let Some(enclave) = &report.report {
        enclave_text(&mut out, enclave);
    }
    out + &format!(
        "Anybody can write such a quote: `kluis attest verify {file}` tells whether it is genuine.\n"
    )
}

/// Why there is no quote, in one line, with what helps.
fn not_shown(endpoint: &Endpoint, why: &NotShown) -> Error {
    let (code, remedy) = match why {
        NotShown::Refused(Refusal::Certificate { rule: Rule::EvidenceMissing, .. }) => {
            (exit::NO_ENCLAVE, "ask the enclave's own port")
        }
        NotShown::Refused(Refusal::Certificate { rule, .. }) => {
            (exit::of_certificate(*rule), "do not believe it")
        }
        NotShown::Refused(Refusal::Quote(refusal)) => (exit::of_refusal(refusal.rule), "do not believe it"),
        NotShown::Tls(_) => (exit::NO_ENCLAVE, "ask the port at which the enclave serves RA-TLS"),
        NotShown::Io(_) => (exit::NO_ENCLAVE, "see whether the enclave serves RA-TLS there already"),
    };
    Error::Refused { message: format!("{endpoint}: {why}: {remedy}"), code }
}
