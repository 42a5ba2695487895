//! The command around the signer: it keeps what the enclave has sealed, and passes orders.

use enclave_host::{Enclave, Files, Options};
use signer_interface::{Payment, Policy, SignerClient};
use std::error::Error;
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: signer-host create FOLDER EACH TOTAL | sign FOLDER
create: a key that signs payments of up to EACH cents, and TOTAL in all
sign: reads payments from standard input, one a line: CENTS PAYEE; leaves FOLDER/order-N
      and order-N.sig; ends with 1 if one was refused";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("signer-host: {error}");
            ExitCode::from(2)
        }
    }
}

/// Does what was asked; whether nothing was refused.
fn run() -> Result<bool, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let load = || Enclave::load(Files::read("signer.sgxs", "signer.sig")?, Options::new());
    match arguments[..] {
        ["create", folder, each, total] => {
            let (folder, policy) = (Path::new(folder), Policy { each: each.parse()?, total: total.parse()? });
            let file = folder.join("key.sealed");
            if file.exists() {
                return Err(format!("{} is a key already", file.display()).into());
            }
            let key = SignerClient(&load()?).create(policy)?;
            replace(&folder.join("key.pub"), &key.public)?;
            replace(&file, &key.sealed)?;
            Ok(true)
        }
        ["sign", folder] => sign(&load()?, Path::new(folder)),
        _ => Err(USAGE.into()),
    }
}

fn sign(enclave: &Enclave, folder: &Path) -> Result<bool, Box<dyn Error>> {
    let file = folder.join("key.sealed");
    let mut sealed = fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let mut all = true;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (cents, payee) = line.split_once(' ').ok_or(USAGE)?;
        let payment = Payment { payee: payee.into(), cents: cents.parse()? };
        match SignerClient(enclave).sign(&sealed, payment)? {
            Ok(signed) => {
                // the order counts from when the new state is there: it is written last
                let number = signed.order.split([' ', ':']).nth(1).ok_or("the order has no number")?;
                replace(&folder.join(format!("order-{number}.sig")), &signed.signature)?;
                replace(&folder.join(format!("order-{number}")), signed.order.as_bytes())?;
                replace(&file, &signed.sealed)?;
                print!("signed {}", signed.order);
                sealed = signed.sealed;
            }
            Err(refusal) => {
                println!("refused {line}: {refusal}");
                all = false;
            }
        }
    }
    Ok(all)
}

/// Writes a file so that after a crash it is the old one or the new one.
fn replace(file: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    let mut out = fs::File::create(&new)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(new, file)
}
