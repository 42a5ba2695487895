//! Makes quotes of enclaves' reports on this machine.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use quoting::{ATTESTATION_KEY, FOLDER, Provisioned, Quoter};
use sgx_abi::Report;
use zerocopy::{FromBytes, IntoBytes};

const USAGE: &str = "\
usage: kluis-quote [--key FILE] [--folder FOLDER] REPORT > quote
       kluis-quote [--key FILE] [--folder FOLDER] --target-info > target
       kluis-quote [--folder FOLDER] --certifier > target | --pck-key | --certify REPORT

  REPORT         file with an enclave's REPORT (432 bytes; - for standard input), made for
                 the target that --target-info writes
  --target-info  TARGETINFO of the quoting enclave (512 bytes)
  --key FILE     where the sealed attestation key is kept (/var/lib/kluis/attestation-key);
                 a new one is made if it is not there, or of an earlier security version
  --folder       what the machine is provisioned with (/usr/share/kluis/attestation)
  --certifier    TARGETINFO of the provisioning-certification enclave
  --pck-key      its public key, x and y, in hexadecimal
  --certify      its signature of the quoting enclave's REPORT; it signs no other's

The quote is of version 3 with the PCK certificate's chain. Exit codes: 1 an enclave refuses
the report, 2 anything else.";

/// Why the program ends.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let error = match run() {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    eprintln!("kluis-quote: {error}");
    let refused =
        error.downcast_ref::<quoting::QuotingError>().is_some_and(|error| error.refusal().is_some());
    ExitCode::from(if refused { 1 } else { 2 })
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut rest: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mut key, mut folder) = (ATTESTATION_KEY, FOLDER);
    while let [option, value, ..] = rest[..] {
        match option {
            "--key" => key = value,
            "--folder" => folder = value,
            _ => break,
        }
        rest.drain(..2);
    }
    let from = Provisioned::at(folder);
    let open = || {
        let quoter = Quoter::open(&from, Path::new(key))?;
        if let Some(why) = quoter.replaced() {
            eprintln!("kluis-quote: {key}: {why}; there is a new one");
        }
        Ok::<_, quoting::QuotingError>(quoter)
    };
    match rest[..] {
        ["--target-info"] => write(open()?.target_info().as_bytes()),
        ["--certifier"] => write(from.certifier()?.target_info()?.as_bytes()),
        ["--pck-key"] => {
            let hex: String = from.certifier()?.pck_key()?.iter().map(|byte| format!("{byte:02x}")).collect();
            write(format!("{hex}\n").as_bytes())
        }
        ["--certify", file] => write(&from.certifier()?.certify(&read(file)?)?),
        [file] if file == "-" || !file.starts_with('-') => {
            let report = read(file)?;
            write(&open()?.quote(&report)?)
        }
        _ => Err(USAGE.into()),
    }
}

/// Reads a REPORT.
fn read(file: &str) -> Result<Report, Failure> {
    let mut bytes = Vec::new();
    // one byte more shows that it is too long
    let most = size_of::<Report>() as u64 + 1;
    let read = match file {
        "-" => io::stdin().lock().take(most).read_to_end(&mut bytes),
        file => fs::File::open(file).and_then(|from| from.take(most).read_to_end(&mut bytes)),
    };
    read.map_err(|e| format!("cannot read the report {file}: {e}"))?;
    let wrong = || format!("{file} is no report: it has {} bytes or more, a REPORT 432", bytes.len());
    Ok(Report::read_from_bytes(&bytes).map_err(|_| wrong())?)
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    Ok(out.write_all(bytes).and_then(|()| out.flush())?)
}
