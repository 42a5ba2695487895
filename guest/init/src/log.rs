//! The kernel log as this program's log: `/dev/kmsg`, which also reaches the
//! console.

use std::fs::OpenOptions;
use std::io::Write;

/// Severity of a line, as `syslog(2)` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something failed and a person should know.
    Error = 3,
    /// A normal step worth a line.
    Notice = 5,
}

/// Writes one line to the kernel log, or to standard error where there is no
/// `/dev/kmsg`. Failing to log is not an error.
pub fn line(level: Level, text: &str) {
    // one write is one record; the kernel cuts records at about 1000 bytes
    let record = format!("<{}>kluis-init: {text}\n", level as u8);
    let written = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut kmsg| kmsg.write_all(record.as_bytes()));
    if written.is_err() {
        let _ = writeln!(std::io::stderr(), "kluis-init: {text}");
    }
}

/// Logs an error.
pub fn error(text: impl AsRef<str>) {
    line(Level::Error, text.as_ref());
}

/// Logs a normal step.
pub fn notice(text: impl AsRef<str>) {
    line(Level::Notice, text.as_ref());
}
