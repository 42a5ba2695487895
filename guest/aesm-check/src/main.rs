//! Gets a quote inside a guest with the `aesm-client` crate, which finds the service by
//! itself.
//!
//! ```text
//! aesm-check ID target > TARGETINFO
//! aesm-check ID quote REPORT > QUOTE
//! aesm-check ID epid
//! ```
//!
//! ID is `own`, the attestation key that the service says it has, or `intel`, that of Intel's
//! quoting enclave. `quote` also checks that the quoting enclave vouches for the quote with a
//! report for the enclave that asked. `epid` asks for what no machine has today. Exit codes: 0
//! done, 1 refused, with the client's words; 2 bad usage.

use aesm_client::AesmClient;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::process::ExitCode;

/// `SGX_QL_ALG_ECDSA_P256`, and where a key's identifier has it.
const ECDSA_P256: [u8; 4] = [2, 0, 0, 0];
const ALGORITHM: std::ops::Range<usize> = 154..158;

/// MRSIGNER of Intel's quoting enclave, which programs have built in.
const INTEL: [u8; 32] = [
    0x8c, 0x4f, 0x57, 0x75, 0xd7, 0x96, 0x50, 0x3e, 0x96, 0x13, 0x7f, 0x77, 0xc6, 0x8a, 0x82, 0x9a, 0x00,
    0x56, 0xac, 0x8d, 0xed, 0x70, 0x14, 0x0b, 0x08, 0x1b, 0x09, 0x44, 0x90, 0xc5, 0x7b, 0xff,
];

/// Where a REPORT's REPORTDATA begin.
const REPORTDATA: usize = 320;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [id @ ("own" | "intel"), "target"] => target(id),
        [id @ ("own" | "intel"), "quote", report] => quote(id, report),
        [_, "epid"] => AesmClient::new().init_quote().map(drop).map_err(|e| e.to_string()),
        _ => {
            eprintln!("usage: aesm-check own|intel target|quote REPORT|epid");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("aesm-check: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The identifier of the attestation key.
fn key_id(id: &str) -> Result<Vec<u8>, String> {
    let ids = AesmClient::new().get_supported_att_key_ids().map_err(|e| e.to_string())?;
    let mut own = ids.into_iter().find(|id| id[ALGORITHM] == ECDSA_P256).ok_or("no key of ECDSA")?;
    if id == "intel" {
        own[6..38].copy_from_slice(&INTEL);
    }
    Ok(own)
}

fn target(id: &str) -> Result<(), String> {
    let quoting = AesmClient::new().init_quote_ex(key_id(id)?).map_err(|e| e.to_string())?;
    write(quoting.target_info())
}

fn quote(id: &str, report: &str) -> Result<(), String> {
    let report = std::fs::read(report).map_err(|e| format!("cannot read {report}: {e}"))?;
    let nonce = [0x4e; 16];
    let got = AesmClient::new()
        .get_quote_ex(key_id(id)?, report, None, nonce.to_vec())
        .map_err(|e| e.to_string())?;
    let vouched = Sha256::new().chain_update(nonce).chain_update(got.quote()).finalize();
    if got.qe_report().get(REPORTDATA..REPORTDATA + 32) != Some(&vouched[..]) {
        return Err("the quoting enclave does not vouch for the quote".to_owned());
    }
    write(got.quote())
}

fn write(bytes: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| e.to_string())
}
