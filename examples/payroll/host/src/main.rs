//! Serves the parties of a study: makes its key, hands their records to the enclave, and
//! keeps what they have sent, as it came, for the next start.

mod archive;
mod setup;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use archive::Archive;
use enclave_channel::Sealed;
use enclave_host::interface::CallError;
use enclave_host::transport::{Endpoint, Limits, Server};
use enclave_host::{Enclave, Error, Files, Options};
use payroll_interface::study::Description;
use payroll_interface::{Chunk, Office, PayrollClient, Refusal};

const USAGE: &str = "\
usage: payroll-host FOLDER ENDPOINT

Serves the study that FOLDER/study.json describes, at ENDPOINT: tcp:0.0.0.0:7000 behind a
published port, or vsock:7000. The folder keeps the study's key, sealed, and the parties'
records, encrypted; the README tells how it begins.";

type Failure = Box<dyn std::error::Error>;

/// What serves the parties.
struct Desk {
    enclave: Enclave,
    description: Description,
    /// What they have sent, in step with what the enclave has taken.
    archive: Mutex<Archive>,
}

impl Desk {
    fn open(folder: &Path) -> Result<Self, Failure> {
        let enclave = Enclave::load(Files::read("payroll.sgxs", "payroll.sig")?, Options::new())?;
        let sealed = setup::state(folder, &enclave)?;
        let description = PayrollClient(&enclave).open(&sealed)??;
        let parties = description.study.parties.len() as u16;
        let take = |party, chunk| told(PayrollClient(&enclave).records(party, chunk));
        let archive = Archive::open(&folder.join("records"), parties, take)?;
        Ok(Self { enclave, description, archive: Mutex::new(archive) })
    }
}

/// What the enclave says; a failure of this side is for its operator to know.
fn told<T>(result: Result<Result<T, Refusal>, CallError<Error>>) -> Result<T, Refusal> {
    result.unwrap_or_else(|error| {
        eprintln!("payroll-host: {error}");
        Err(Refusal::Host)
    })
}

impl Office for Desk {
    fn study(&self) -> Description {
        self.description.clone()
    }

    fn records(&self, party: u16, chunk: Chunk) -> Result<bool, Refusal> {
        let mut archive = self.archive.lock().unwrap_or_else(|e| e.into_inner());
        if archive.has(party, &chunk) {
            return Ok(true);
        }
        // kept is what the enclave has found to be the party's
        let delivered = told(PayrollClient(&self.enclave).records(party, chunk.clone()))?;
        archive.keep(party, &chunk).map_err(|error| {
            eprintln!("payroll-host: cannot keep what party {party} sends: {error}");
            Refusal::Host
        })?;
        Ok(delivered)
    }

    fn results(&self, party: u16) -> Result<Sealed, Refusal> {
        told(PayrollClient(&self.enclave).results(party))
    }
}

fn run(folder: &Path, endpoint: &Endpoint) -> Result<(), Failure> {
    let desk = Desk::open(folder)?;
    let server = Server::bind(endpoint, Limits::default())?;
    println!("{}", desk.description.study.title);
    println!("fingerprint {}", desk.description.binding());
    server.serve(|function, arguments| desk.dispatch(function, arguments))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match &arguments[..] {
        [folder, endpoint] => {
            endpoint.parse().map_err(Failure::from).and_then(|at| run(Path::new(folder), &at))
        }
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("payroll-host: {error}");
            ExitCode::FAILURE
        }
    }
}
