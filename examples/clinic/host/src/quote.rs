//! Quotes of the machine's quoting enclave, by the program that the machine has for that.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::Failure;

const PROGRAM: &str = "kluis-quote";

/// TARGETINFO of the quoting enclave.
///
/// # Errors
/// The program cannot be started, or says no.
pub(crate) fn target() -> Result<Vec<u8>, Failure> {
    run("--target-info", &[])
}

/// A quote of a report that was made for it.
///
/// # Errors
/// As of [`target`].
pub(crate) fn of(report: &[u8]) -> Result<Vec<u8>, Failure> {
    run("-", report)
}

fn run(argument: &str, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |e| format!("cannot start {PROGRAM}, which a machine with an EPC has: {e}");
    let piped = Stdio::piped;
    let mut child = Command::new(PROGRAM)
        .arg(argument)
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .map_err(failed)?;
    // closed with it; one that has ended early says why
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    Ok(output.stdout)
}
