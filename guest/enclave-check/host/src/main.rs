//! Tries an enclave and its runtime step by step.
//!
//! ```text
//! enclave-check SGXS SIG check       what the runtime offers
//! enclave-check SGXS SIG sgx2        what takes SGX2; for an enclave with `exinfo`
//! enclave-check SGXS SIG fill N      N bytes of heap, twice, of which the machine may have less EPC
//! enclave-check SGXS SIG full        other enclaves take the EPC: what it says then
//! enclave-check SGXS SIG production  a production enclave tells nothing; a debug one is refused
//! enclave-check SGXS SIG lost        waits for a line on its input, then finds the EPC lost
//! enclave-check SGXS SIG inside      stays inside until somebody ends it
//! enclave-check SGXS SIG load        nothing more than that
//! enclave-check SGXS SIG load HEX    the same, of this signer alone
//! enclave-check SGXS SIG nobody      the same, as a user without rights
//! enclave-check SGXS SIG report T FILE  a report for the TARGETINFO in the file T
//! enclave-check SGXS SIG seal FILE   seals by both policies
//! enclave-check SGXS SIG unseal FILE unseals what another run has sealed
//! enclave-check SGXS SIG encrypted KEY [lie]   an encrypted one, with its key file
//! enclave-check SGXS SIG unlock KEY [SEALED]   loads it with a key file, or a sealed key
//! enclave-check SGXS SIG tls PORT    serves TLS that ends inside; the quote comes from its input
//! enclave-check SGXS SIG attack N S  a malicious host, N rounds, random numbers from seed S
//! enclave-check SGXS SIG bench N     round trips per second; `bench N --json` as JSON
//! ```
//!
//! Each step prints a line that ends with `ok`, or what went wrong; the exit code is 0 if
//! all are ok.

mod attack;
mod bench;
mod encrypted;
mod full;
mod good;
mod raw;
mod seal;
mod tls;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use check_interface::{CheckClient, Outside, Percent};
use enclave_host::{Enclave, Files, Options};

/// What this host does for the enclave.
struct Honest;

/// For calls from within calls.
static ENCLAVE: OnceLock<Arc<Enclave>> = OnceLock::new();

impl Outside for Honest {
    fn answer(&self, question: &str) -> String {
        format!("{question} is answered")
    }

    fn percentage(&self) -> Percent {
        Percent::try_from(42).expect("less than a hundred")
    }

    fn nothing(&self) {}

    fn nest(&self, depth: u32) -> u32 {
        ENCLAVE.get().and_then(|enclave| CheckClient(&**enclave).nest(depth).ok()).unwrap_or(0)
    }

    fn echo(&self, data: &[u8]) -> Vec<u8> {
        data.to_vec()
    }
}

/// The outcome of one step.
fn step(what: &str, holds: bool) -> Result<(), String> {
    println!("{what}: {}", if holds { "ok" } else { "FAILED" });
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn options() -> Options {
    Options::new()
        .allow_debug(true)
        .ocalls(|function, arguments| Honest.dispatch(function, arguments))
        .print(|text| println!("{text}"))
}

fn load(files: &Files) -> Result<Arc<Enclave>, String> {
    Enclave::load(files.clone(), options()).map(Arc::new).map_err(|e| e.to_string())
}

/// Loads it if it is of the signer with this MRSIGNER.
fn load_of(files: &Files, signer: &str) -> Result<(), String> {
    let digits: Option<Vec<_>> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(signer.get(at..at + 2)?, 16).ok()).collect();
    let signer = digits.and_then(|bytes| bytes.try_into().ok()).ok_or("no MRSIGNER")?;
    Enclave::load(files.clone(), options().signer(signer)).map_err(|e| e.to_string())?;
    println!("loaded");
    Ok(())
}

/// Has a report made for the enclave of that TARGETINFO; its data are what `DATA` says.
fn report(files: &Files, target: &str, file: &str) -> Result<(), String> {
    const DATA: [u8; 64] = *b"what an enclave has to say to whoever is far away: 64 characters";
    let target = std::fs::read(target).map_err(|e| e.to_string())?;
    let report = CheckClient(&*load(files)?).report(&target, &DATA).map_err(|e| e.to_string())?;
    std::fs::write(file, report.ok_or("no TARGETINFO")?).map_err(|e| e.to_string())
}

/// Becomes a user who may not use the device.
fn as_nobody() -> Result<(), String> {
    // SAFETY: neither has preconditions; this is the only thread.
    let done = unsafe { libc::setgid(65534) == 0 && libc::setuid(65534) == 0 };
    if done { Ok(()) } else { Err("cannot be nobody".into()) }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [stream, signature, command @ ..] = &args[..] else { return usage() };
    let files = match Files::read(stream, signature) {
        Ok(files) => files,
        Err(error) => {
            println!("FAILED: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = match command {
        ["check"] => good::check(&files),
        ["sgx2"] => good::sgx2(&files),
        ["fill", bytes] if bytes.parse::<u64>().is_ok() => {
            good::fill(&files, bytes.parse().unwrap_or_default())
        }
        ["full"] => full::full(&files),
        ["production"] => good::production(&files),
        ["lost"] => good::lost(&files),
        ["inside"] => good::inside(&files),
        ["load"] => load(&files).map(|_| println!("loaded")),
        ["load", signer] => load_of(&files, signer),
        ["nobody"] => as_nobody().and_then(|()| load(&files)).map(|_| println!("loaded")),
        ["encrypted", key] => encrypted::check(&files, stream, key, false),
        ["encrypted", key, "lie"] => encrypted::check(&files, stream, key, true),
        ["unlock", key] => encrypted::unlock(&files, key, None),
        ["unlock", key, sealed] => encrypted::unlock(&files, key, Some(sealed)),
        ["report", target, file] => report(&files, target, file),
        ["seal", file] => seal::seal(&files, file),
        ["unseal", file] => seal::unseal(&files, file),
        ["tls", port] if port.parse::<u16>().is_ok() => tls::serve(&files, port.parse().unwrap_or_default()),
        ["attack", rounds, seed] if rounds.parse::<u32>().is_ok() && seed.parse::<u64>().is_ok() => {
            attack::attack(&files, rounds.parse().unwrap_or_default(), seed.parse().unwrap_or_default())
        }
        ["bench", rounds] if rounds.parse::<u32>().is_ok() => {
            bench::bench(&files, rounds.parse().unwrap_or_default(), false)
        }
        ["bench", rounds, "--json"] if rounds.parse::<u32>().is_ok() => {
            bench::bench(&files, rounds.parse().unwrap_or_default(), true)
        }
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: enclave-check SGXS SIG check|sgx2|fill N|full|production|lost|inside|load [HEX]|nobody|report TARGET FILE|seal FILE|unseal FILE|encrypted KEY [lie]|unlock KEY [SEALED]|tls PORT|attack N S|bench N [--json]"
    );
    ExitCode::from(2)
}
