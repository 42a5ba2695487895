//! Serves a vault, and keeps its sealed state: the newest, before anybody hears of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use enclave_channel::{PublicKey, Sealed};
use enclave_host::transport::{Endpoint, Limits, Server};
use enclave_host::{Enclave, Files, Options};
use vault_interface::{Challenge, Closed, Desk, VaultClient};

const USAGE: &str = "\
usage: vault-host FOLDER ENDPOINT

Serves the vault whose sealed state is FOLDER/vault.sealed, at ENDPOINT: vsock:7000, or
tcp:0.0.0.0:7000 behind a published port. The first start makes it, for the owner whose
public key is in FOLDER/owner.";

type Failure = Box<dyn std::error::Error>;

/// What serves the clients.
struct Host {
    enclave: Enclave,
    /// Where the state is; states are kept in the order in which they were made.
    state: Mutex<PathBuf>,
}

impl Host {
    fn open(folder: &Path) -> Result<(Self, PublicKey), Failure> {
        let enclave = Enclave::load(Files::read("vault.sgxs", "vault.sig")?, Options::new())?;
        let file = folder.join("vault.sealed");
        if !file.exists() {
            let owner = folder.join("owner");
            let text =
                fs::read_to_string(&owner).map_err(|e| format!("cannot read {}: {e}", owner.display()))?;
            let owner = text.trim().parse().map_err(|e| format!("{}: {e}", owner.display()))?;
            keep(&file, &VaultClient(&enclave).create(owner)??)?;
        }
        let state = fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let key = VaultClient(&enclave).open(&state)?.map_err(|e| format!("{}: {e}", file.display()))?;
        Ok((Self { enclave, state: Mutex::new(file) }, key))
    }

    fn try_answer(&self, from: PublicKey, challenge: Challenge, request: Sealed) -> Result<Sealed, Failure> {
        let file = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = VaultClient(&self.enclave).answer(from, challenge, request)??;
        if let Some(state) = answer.state {
            keep(&file, &state).map_err(|e| format!("cannot keep the vault's state: {e}"))?;
        }
        Ok(answer.response)
    }
}

/// Writes a file as a whole.
fn keep(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(new, file)
}

impl Desk for Host {
    fn challenge(&self) -> Challenge {
        VaultClient(&self.enclave).challenge().unwrap_or_else(|error| {
            eprintln!("vault-host: {error}");
            // one that no request is good for
            [0; 32]
        })
    }

    fn answer(&self, from: PublicKey, challenge: Challenge, request: Sealed) -> Result<Sealed, Closed> {
        self.try_answer(from, challenge, request).map_err(|failure| {
            failure.downcast::<Closed>().map_or_else(
                |failure| {
                    eprintln!("vault-host: {failure}");
                    Closed::Host
                },
                |closed| *closed,
            )
        })
    }
}

fn run(folder: &Path, endpoint: &Endpoint) -> Result<(), Failure> {
    let (host, key) = Host::open(folder)?;
    let server = Server::bind(endpoint, Limits::default())?;
    println!("vault {key}");
    server.serve(|function, arguments| host.dispatch(function, arguments))
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
            eprintln!("vault-host: {error}");
            ExitCode::FAILURE
        }
    }
}
