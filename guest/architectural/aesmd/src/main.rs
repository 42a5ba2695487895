//! AESM in a guest: programs connect to its usual socket and get quotes of their enclaves.
//! It makes the socket, or is started with it: `--inetd` says that standard input is the
//! socket that clients connect to, as inetd's servers have it that wait, and systemd's with
//! `StandardInput=socket`.
//!
//! The architectural enclaves are loaded when the first program asks, so that a machine in
//! which nobody does boots without them. Nothing here is trusted.
#![forbid(unsafe_code)]

mod service;

use std::io::{Write, stdin};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use service::Service;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listener = match arguments.as_slice() {
        [] => aesm::listen(aesm::SOCKET.as_ref()).map_err(|why| why.to_string()),
        [option] if option == "--inetd" => handed(),
        _ => {
            log("usage: aesmd [--inetd]: it serves /var/run/aesmd/aesm.socket, or the socket that is its \
                 standard input, until it is ended");
            return ExitCode::from(2);
        }
    };
    match listener {
        Ok(listener) => aesm::serve(&listener, &Service::default(), &log),
        Err(why) => {
            log(&why);
            ExitCode::FAILURE
        }
    }
}

/// The socket that is standard input.
fn handed() -> Result<UnixListener, String> {
    let listener = stdin().as_fd().try_clone_to_owned().map(UnixListener::from);
    let listener = listener.map_err(|why| format!("cannot use standard input: {why}"))?;
    match listener.local_addr() {
        Ok(address) if address.as_pathname().is_some() => Ok(listener),
        _ => Err("standard input is no socket with a name: leave out --inetd".to_owned()),
    }
}

/// Says what is wrong with the service: one write, with the severity in front, is one record
/// of the kernel's log and of systemd's.
fn log(what: &str) {
    let _ = std::io::stderr().write_all(format!("<3>aesmd: {what}\n").as_bytes());
}
