//! The vault's owner, and those who read from it.

mod files;

use std::io::{Read, Write, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;

use enclave_transport::{Client, Limits};
use files::Seen;
use rand_core::OsRng;
use vault_interface::{Content, DeskClient, Envelope, Grant, MOST_BYTES, Request};

const USAGE: &str = "\
usage: vault-client key FILE                                make a key; its public half is printed
       vault-client put ENDPOINT VAULT KEY NAME READER...   keep standard input as a secret
       vault-client list ENDPOINT VAULT KEY
       vault-client remove ENDPOINT VAULT KEY NAME
       vault-client get ENDPOINT VAULT KEY NAME

ENDPOINT is unix:SOCKET or tcp:HOST:PORT, VAULT the public key that the vault's operator has
told, KEY the file of yours. A READER is a public key, with `,reads=N` and `,until=SECONDS`
(since 1970; `date -d tomorrow +%s`) if there are to be bounds. Only the owner may do other
than `get`. KEY.seen remembers how far the vault was: one that was set back is refused.";

type Failure = Box<dyn std::error::Error>;

/// Asks the vault; what it says, if it is not older than when this key last asked.
fn ask(endpoint: &str, vault: &str, key_file: &str, request: &Request) -> Result<Content, Failure> {
    let key = files::key(key_file)?;
    let vault = vault.parse().map_err(|e| format!("{vault}: {e}"))?;
    let desk = DeskClient(Client::connect(&endpoint.parse()?, Limits::default())?);
    let challenge = desk.challenge()?;
    let envelope = Envelope { own: &key, other: &vault, challenge: &challenge };
    let response = desk.answer(key.public().clone(), challenge, envelope.ask(request, &mut OsRng))??;
    let response = envelope.told(&response).ok_or("this is not the vault's response")?;
    Seen::of(key_file, &vault).check(response.changes)?;
    Ok(response.content?)
}

/// A reader as the usage has it.
fn grant(text: &str) -> Result<Grant, Failure> {
    let mut parts = text.split(',');
    let reader = parts.next().unwrap_or_default();
    let reader = reader.parse().map_err(|e| format!("{reader}: {e}"))?;
    let mut grant = Grant { reader, reads: None, until: None };
    for part in parts {
        match part.split_once('=') {
            Some(("reads", number)) => grant.reads = Some(number.parse()?),
            Some(("until", seconds)) => grant.until = Some(seconds.parse()?),
            _ => return Err(format!("{part} is neither reads=N nor until=SECONDS").into()),
        }
    }
    Ok(grant)
}

/// Standard input, as far as it can be a secret.
fn secret() -> Result<Vec<u8>, Failure> {
    let mut secret = Vec::new();
    stdin().lock().take(MOST_BYTES as u64 + 1).read_to_end(&mut secret)?;
    Ok(secret)
}

fn print(content: &Content) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match content {
        Content::Done => {}
        Content::Secret(secret) => out.write_all(secret)?,
        Content::List(entries) => {
            for (name, grants) in entries {
                writeln!(out, "{name}")?;
                for Grant { reader, reads, until } in grants {
                    let reads = reads.map_or("always".into(), |reads| format!("{reads} times"));
                    let until = until.map_or(String::new(), |until| format!(", until {until}"));
                    writeln!(out, "  {reader} {reads}{until}")?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

fn run(arguments: &[&str]) -> Result<(), Failure> {
    let (command, [endpoint, vault, key], rest) = match arguments {
        ["key", file] => return files::make_key(Path::new(file)),
        [command, endpoint, vault, key, rest @ ..] => (*command, [endpoint, vault, key], rest),
        _ => return Err(USAGE.into()),
    };
    let request = match (command, rest) {
        ("put", [name, readers @ ..]) => {
            let grants = readers.iter().map(|reader| grant(reader)).collect::<Result<_, _>>()?;
            Request::Put { name: (*name).into(), secret: secret()?, grants }
        }
        ("list", []) => Request::List,
        ("remove", [name]) => Request::Remove { name: (*name).into() },
        ("get", [name]) => Request::Get { name: (*name).into() },
        _ => return Err(USAGE.into()),
    };
    print(&ask(endpoint, vault, key, &request)?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vault-client: {error}");
            ExitCode::FAILURE
        }
    }
}
