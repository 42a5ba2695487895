//! `kluis attest`: what a quote says, and whether it is to be believed.
//!
//! * [`args`]: its command line
//! * [`quote`]: `quote`; [`endpoint`]: where an enclave answers
//! * [`verify`]: `verify`; [`trust`]: the root and the collateral it goes by
//! * [`inspect`]: `inspect`; [`report`]: what all tell

pub(crate) mod args;
pub(crate) mod endpoint;
mod inspect;
mod quote;
mod report;
mod trust;
mod verify;

use crate::exit::Error;
use args::AttestCommand;
use dcap::Time;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Does what was asked; `platform` is the folder of the user's own.
///
/// # Errors
/// It cannot be done, or the quote is refused.
pub(crate) fn main(command: &AttestCommand, platform: &Path, json: bool) -> Result<u8, Error> {
    match command {
        AttestCommand::Quote(args) => quote::main(args, json),
        AttestCommand::Verify(args) => verify::main(args, platform, json),
        AttestCommand::Inspect { file } => inspect::main(file, json),
    }
}

/// The bytes of a file, up to one more than there may be.
fn read(file: &Path, most: usize) -> Result<Vec<u8>, Error> {
    let fail = |e| Error::bad(format!("cannot read {}: {e}", file.display()));
    let mut bytes = Vec::new();
    File::open(file).and_then(|open| open.take(most as u64 + 1).read_to_end(&mut bytes)).map_err(fail)?;
    Ok(bytes)
}

/// The time of verification, or of issue.
pub(crate) fn now() -> Result<Time, Error> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    Time::from_unix(seconds)
        .ok_or_else(|| Error::bad("the host's clock is beyond the year 9999: give --at TIME"))
}
