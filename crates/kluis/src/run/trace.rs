//! `--trace sgx`: a line for every ENCLS and ENCLU leaf.

use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use sgx::Package;
use sgx::trace::Record;

use crate::exit::Error;

/// Where the lines go: a file, or standard error.
///
/// # Errors
/// The file cannot be made.
pub(super) fn output(path: Option<&Path>) -> Result<Box<dyn Write + Send>, Error> {
    let Some(path) = path else { return Ok(Box::new(LineWriter::new(io::stderr()))) };
    let fail = |e| Error::bad(format!("--trace cannot write {}: {e}; check the path", path.display()));
    Ok(Box::new(LineWriter::new(File::create(path).map_err(fail)?)))
}

/// Writes a line for every leaf to `out` from now on.
pub(super) fn start(package: &Package, out: Box<dyn Write + Send>) {
    let out = Mutex::new(out);
    package.trace.set_sink(Some(Box::new(move |record| {
        // on the processor's own thread
        let cpu = thread::current().name().unwrap_or_default().to_owned();
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        // nobody reads it any more: the guest need not care
        let _ = writeln!(out, "{cpu} {}", line(record));
    })));
}

fn line(record: &Record) -> String {
    let [rbx, rcx, rdx] = record.inputs;
    let leaf = record.leaf;
    let mut line =
        format!("{:#x} {leaf} rbx={rbx:#x} rcx={rcx:#x} rdx={rdx:#x}: {}", record.rip, record.result);
    if let Some(rule) = record.rule {
        line += &format!(" [{}: not so that {}]", rule.name, rule.text);
    }
    line
}
