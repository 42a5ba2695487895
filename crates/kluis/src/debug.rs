//! `kluis debug`: drills on a machine that runs.

use crate::cli::DebugCommand;
use crate::control::{self, Ask};
use crate::exit::Error;

/// Does what was asked.
///
/// # Errors
/// There is no such machine, or the drill cannot be done.
pub(crate) fn main(command: &DebugCommand, json: bool) -> Result<u8, Error> {
    let (vm, ask) = match *command {
        DebugCommand::EpcTamper { drill, page, vm } => (vm, Ask::Tamper { drill: drill.name().into(), page }),
        DebugCommand::EpcLoss { vm } => (vm, Ask::Lose),
        DebugCommand::Bus { address, length, vm } => (vm, Ask::Bus { address, length }),
    };
    control::main(vm, &ask, json)
}
