//! The host of TLS that ends inside: it passes bytes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use check_interface::CheckClient;
use enclave_host::{Enclave, Files};

use crate::{load, step};

type Check<'a> = CheckClient<&'a Enclave>;

/// Prints the report, reads its quote (both a line of hexadecimal digits), and serves
/// clients, one after another, until somebody ends it.
pub fn serve(files: &Files, port: u16) -> Result<(), String> {
    let enclave = load(files)?;
    let check: Check = CheckClient(&*enclave);
    let said = |e: enclave_interface::CallError<_>| format!("{e:?}");
    step("no certificate without a key", check.tls_serve(&[0; 1000]).is_ok_and(|made| made.is_err()))?;
    let report = check.tls_report().map_err(said)??;
    let digits: String = report.iter().map(|byte| format!("{byte:02x}")).collect();
    println!("report {digits}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|e| e.to_string())?;
    let digits =
        line.trim().as_bytes().chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok());
    let quote: Vec<u8> = digits.collect::<Option<_>>().ok_or("no quote in hexadecimal digits")?;
    let mut wrong = quote.clone();
    wrong.get_mut(368..432).ok_or("the quote is too short")?.fill(0);
    step("no certificate with another's quote", check.tls_serve(&wrong).is_ok_and(|made| made.is_err()))?;
    check.tls_serve(&quote).map_err(said)??;
    let listener = TcpListener::bind(("0.0.0.0", port)).map_err(|e| e.to_string())?;
    println!("serving");
    loop {
        let (stream, _) = listener.accept().map_err(|e| e.to_string())?;
        // a client that has gone is no reason to stop
        if let Err(error) = client(&check, stream) {
            println!("a client: {error}");
        }
    }
}

/// Passes a client's bytes in, and the enclave's out.
fn client(check: &Check, mut stream: TcpStream) -> Result<(), String> {
    let mut buffer = [0; 4096];
    let mut first = true;
    loop {
        let read = stream.read(&mut buffer).map_err(|e| e.to_string())?;
        if read == 0 {
            return Err("it has gone without an end".into());
        }
        let (out, more) = check.tls_receive(first, &buffer[..read]).map_err(|e| format!("{e:?}"))??;
        stream.write_all(&out).map_err(|e| e.to_string())?;
        if !more {
            return Ok(());
        }
        first = false;
    }
}
