//! The command around the store: it keeps the files, and passes messages to the counter.

mod outside;

use enclave_host::{Enclave, Files, Options};
use outside::Keeper;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use store_interface::{Outside, ShelfClient};

const USAGE: &str = "usage: store-host FOLDER COUNTER create PUBLIC | COMMAND | nothing
FOLDER: of the store's files; COUNTER: address and port of the counter
create: makes a store that believes the counter with this public key, in hexadecimal
COMMAND: put KEY VALUE | get KEY | remove KEY | keys; KEY has no blanks
without one: reads commands from standard input, one a line; ends with 1 if one was refused";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("store-host: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked; whether nothing was refused.
fn run() -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, counter, command @ ..] = &arguments[..] else { return Err(USAGE.into()) };
    let keeper = Keeper::new(folder, counter);
    let options = Options::new().ocalls(move |function, arguments| keeper.dispatch(function, arguments));
    let enclave = Enclave::load(Files::read("store.sgxs", "store.sig")?, options)?;
    let shelf = ShelfClient(&enclave);
    let file = Path::new(folder).join("key.sealed");
    if let [create, public] = command
        && create == "create"
    {
        if file.exists() {
            return Err(format!("{} is a store already", folder).into());
        }
        let sealed = shelf.create(&bytes(public).ok_or(USAGE)?)??;
        replace(&file, &sealed)?;
        println!("made a store in {folder}");
        return Ok(true);
    }
    let sealed = fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let opened = shelf.open(&sealed)??;
    eprintln!("{} commits; its counter is {}", opened.commits, hex(&opened.counter));
    if !command.is_empty() {
        return obey(&shelf, &command.join(" "));
    }
    let mut all = true;
    for line in std::io::stdin().lines() {
        all &= obey(&shelf, &line?)?;
    }
    Ok(all)
}

/// Does one command; whether it was not refused.
fn obey(shelf: &ShelfClient<&Enclave>, line: &str) -> Result<bool, Box<dyn Error>> {
    let done = match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["put", key, value] => shelf.put(key, value)?.map(|()| format!("{key} is kept")),
        ["get", key] => shelf.get(key)?.map(|value| value.unwrap_or_else(|| format!("there is no {key}"))),
        ["remove", key] => shelf.remove(key)?.map(|()| format!("{key} is gone")),
        ["keys"] => shelf.keys()?.map(|keys| keys.join(" ")),
        _ => return Err(format!("{line:?} is no command\n{USAGE}").into()),
    };
    match &done {
        Ok(said) => println!("{said}"),
        Err(refusal) => println!("refused: {refusal}"),
    }
    Ok(done.is_ok())
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file so that after a crash it is there as a whole, or not at all.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = fs::File::create(&new)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(new, file)
}
