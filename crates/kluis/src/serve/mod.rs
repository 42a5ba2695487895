//! `kluis serve`: services on the user's own host.
//!
//! * [`args`]: the command line
//! * [`collateral`](mod@collateral): `serve collateral`

pub(crate) mod args;
mod collateral;

use crate::exit::Error;
use args::ServeCommand;
use std::path::Path;

/// Serves until told to end; `platform` is the folder of the user's own.
///
/// # Errors
/// It cannot begin.
pub(crate) fn main(command: &ServeCommand, platform: &Path, json: bool) -> Result<u8, Error> {
    match command {
        ServeCommand::Collateral(args) => collateral::main(args, platform, json),
    }
}
