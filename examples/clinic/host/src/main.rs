//! The host program of the clinic. It does what is asked for on its input, a line each, and
//! answers with a line of JSON: what a host does for an enclave, and what one tries that is
//! curious, with all the rights of the machine's root.

mod desk;
mod peek;
mod quote;
mod serve;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use desk::Desk;
use serde_json::json;

const USAGE: &str = "\
usage: clinic-host < requests > answers

Requests, a line each:
  load NAME [SIGNATURE]  loads NAME.sgxs with the signature NAME.sig or another, and the key
                         NAME.key if it is encrypted, which is kept sealed from then on; a debug
                         enclave too
  certify FILE           has a key for TLS made inside, and a quote of its report, which goes
                         into FILE as well
  listen ENDPOINT        lets clients come in there: tcp:0.0.0.0:7000 or vsock:7000
  serve                  serves the next of them
  peek                   looks at the enclave's memory, by all ways that root has
  records FILE           has the enclave read encrypted records
  results FILE           has the enclave write the encrypted table there
  seal FILE, unseal FILE the key of records, for after a restart

Each is answered by a line of JSON: {\"ok\": ...} or {\"error\": \"why\"}.";

/// Why something is not done.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clinic-host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut desk = Desk::default();
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match desk.answer(&words) {
            Ok(done) => json!({ "ok": done }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
