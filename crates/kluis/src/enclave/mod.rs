//! `kluis enclave`: from a new project to an enclave that runs in a machine.
//!
//! * [`args`]: the command line
//! * [`new`]: a project, with the [`sdk`] that travels in this program
//! * [`project`]: what cargo knows of one; [`build`]: programs and enclaves of it;
//!   [`encrypted`]: the same as ciphertext
//! * [`sign`], [`keys`]: signatures; [`inspect`]: what an enclave is
//! * [`run`]: its host program, or its tests, in a machine; [`debug`]: gdb inside

pub(crate) mod args;
mod build;
mod debug;
mod encrypted;
mod inspect;
pub(crate) mod keys;
mod new;
mod project;
mod run;
pub(crate) mod sdk;
mod sign;

use crate::exit::Error;
use args::EnclaveCommand;
use std::path::Path;

/// Does what was asked; machines are on the platform in `platform`.
///
/// # Errors
/// It cannot be done.
pub(crate) fn main(command: &EnclaveCommand, platform: &Path, json: bool) -> Result<u8, Error> {
    match command {
        EnclaveCommand::New { name } => new::main(name, json),
        EnclaveCommand::Build(args) => build::main(args, json),
        EnclaveCommand::Sign(args) => sign::main(args, json),
        EnclaveCommand::Inspect { what, signer } => inspect::main(what, signer.as_deref(), json),
        EnclaveCommand::Run { signer, build, run } => {
            run::main(signer.as_deref(), build, run, platform, json)
        }
        EnclaveCommand::Test { filter, nocapture, build, run } => {
            run::test(filter.as_deref(), *nocapture, build, run, platform, json)
        }
        EnclaveCommand::Debug { what, build, run } => debug::main(what, build, run, platform, json),
    }
}
