//! The counter: it runs where the store's host has no say, knows of each store the number of
//! its last commit and the hash of the state after it, and signs what it says.
//!
//! Anybody may ask, and may count a store on: that keeps its owner from it, as a host can
//! anyway by losing the files, and has nobody believe an old state.

mod ledger;

use ledger::Ledger;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use store_interface::counter::Request;
use zerocopy::{FromBytes, IntoBytes};

const USAGE: &str = "usage: store-counter FOLDER ADDRESS
FOLDER: its key and its numbers, made if need be; the file `public` in it is for those who
make stores. ADDRESS: where it listens, such as 127.0.0.1:7070; port 0 for any";

/// How long whoever asks may take for it.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("store-counter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, address] = &arguments[..] else { return Err(USAGE.into()) };
    let mut ledger = Ledger::open(Path::new(folder))?;
    let listener = TcpListener::bind(address).map_err(|e| format!("cannot listen at {address}: {e}"))?;
    println!("listening at {}", listener.local_addr()?);
    loop {
        // one after the other: each is short
        let (stream, from) = listener.accept()?;
        if let Err(error) = serve(stream, &mut ledger) {
            eprintln!("store-counter: {from}: {error}");
        }
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream, ledger: &mut Ledger) -> Result<(), Box<dyn Error>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; size_of::<Request>()];
    stream.read_exact(&mut request)?;
    let request = Request::read_from_bytes(&request).map_err(|_| "no request")?;
    Ok(stream.write_all(ledger.answer(&request)?.as_bytes())?)
}
