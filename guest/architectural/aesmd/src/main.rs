//! AESM in a guest: programs connect to its usual socket and get quotes of their enclaves.
//!
//! The architectural enclaves are loaded when the first program asks, so that a machine in
//! which nobody does boots without them. Nothing here is trusted.
#![forbid(unsafe_code)]

mod service;

use std::io::Write;
use std::process::ExitCode;

use service::Service;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        log("takes no arguments: it serves /var/run/aesmd/aesm.socket until it is ended");
        return ExitCode::from(2);
    }
    match aesm::listen(aesm::SOCKET.as_ref()) {
        Ok(listener) => aesm::serve(&listener, &Service::default(), &log),
        Err(why) => {
            log(&why.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the service: one write, with the severity in front, is one record
/// of the kernel's log and of systemd's.
fn log(what: &str) {
    let _ = std::io::stderr().write_all(format!("<3>aesmd: {what}\n").as_bytes());
}
