//! `kluis enclave run` and `test`: a program of the project in a machine of its own.

use super::args::BuildArgs;
use super::build::{self, Built, Purpose};
use super::keys;
use super::project::{HOST_CRATE, Host, Project};
use crate::cli::RunArgs;
use crate::exit::Error;
use crate::run::{HostTerminal, Plan};
use crate::units;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Where the folder with the enclaves is in the guest.
const FOLDER: &str = "/enclave";

/// The program that runs the tests of enclaves.
const RUNNER: [(&str, &str); 2] = [
    ("Cargo.toml", include_str!("template/runner/Cargo.toml.in")),
    ("src/main.rs", include_str!("template/runner/main.rs.in")),
];
/// Its name.
const RUNNER_NAME: &str = "enclave-test-runner";

/// Builds the project, and runs its host program.
///
/// # Errors
/// It cannot be built, is not of `signer`, or there is no machine.
pub(super) fn main(
    signer: Option<&str>,
    args: &BuildArgs,
    run: &RunArgs,
    platform: &Path,
    json: bool,
) -> Result<u8, Error> {
    let epc = epc(run)?;
    let signer = signer.map(keys::mrsigner).transpose()?;
    let project = Project::find(args.project.as_deref())?;
    let built = build::enclaves(&project, args, Purpose::Use)?;
    if let Some(expected) = &signer {
        built.iter().try_for_each(|enclave| keys::is_of(&enclave.name, &enclave.mrsigner, expected))?;
    }
    fits(&built, epc)?;
    build::host(&project, host(&project)?, args, Purpose::Use)?;
    host_in_machine(run, &project, Purpose::Use, platform, json)
}

/// The project's host program.
///
/// # Errors
/// There is none.
pub(super) fn host(project: &Project) -> Result<&Host, Error> {
    project.host.as_ref().ok_or_else(|| {
        Error::bad(format!("the project has no host program: add a package that uses {HOST_CRATE}"))
    })
}

/// Runs the host program, which is built, in a machine.
///
/// # Errors
/// There is no machine.
pub(super) fn host_in_machine(
    run: &RunArgs,
    project: &Project,
    purpose: Purpose,
    platform: &Path,
    json: bool,
) -> Result<u8, Error> {
    let arguments = run.command.clone();
    in_machine(run, &purpose.output(project), &host(project)?.name, arguments, platform, json)
}

/// Builds the enclaves with their tests, and runs those whose name has `filter` in it. With
/// `nocapture` what they print is shown as it comes.
///
/// # Errors
/// As of [`main`].
pub(super) fn test(
    filter: Option<&str>,
    nocapture: bool,
    args: &BuildArgs,
    run: &RunArgs,
    platform: &Path,
    json: bool,
) -> Result<u8, Error> {
    if !run.command.is_empty() {
        return Err(Error::bad("tests take no command: give a part of their names before the options"));
    }
    let epc = epc(run)?;
    let project = Project::find(args.project.as_deref())?;
    let built = build::enclaves(&project, args, Purpose::Test)?;
    fits(&built, epc)?;
    let output = project.test_output();
    runner(&project, args, &output)?;
    let mut arguments: Vec<OsString> = nocapture.then(|| "--nocapture".into()).into_iter().collect();
    arguments.push(filter.unwrap_or_default().into());
    arguments.extend(built.iter().map(|enclave| OsString::from(format!("{}.sgxs", enclave.name))));
    in_machine(run, &output, RUNNER_NAME, arguments, platform, json)
}

/// Builds the program that runs tests, with the project's own `enclave-host` and lock file.
fn runner(project: &Project, args: &BuildArgs, output: &Path) -> Result<(), Error> {
    let host_crate = project.host.as_ref().and_then(|host| host.host_crate.clone()).ok_or_else(|| {
        Error::bad(format!(
            "the project has no host program that uses {HOST_CRATE} by its path: tests need it"
        ))
    })?;
    let folder = project.cargo_target().join("test-runner");
    for (path, text) in RUNNER {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(|e| build::cannot("make", parent, &e))?;
        let text = text.replace("{{enclave-host}}", &host_crate.display().to_string());
        build::write(&path, text.as_bytes())?;
    }
    let lock = project.root.join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock")).map_err(|e| build::cannot("copy", &lock, &e))?;
    let mut cargo = build::build(project, args, &[build::STATIC.into()]);
    cargo.current_dir(&folder);
    build::done(cargo)?;
    build::copy_program(&build::programs(project).join(RUNNER_NAME), &output.join(RUNNER_NAME))
}

/// Runs a program that lies in `folder`, there, in a machine.
fn in_machine(
    run: &RunArgs,
    folder: &Path,
    program: &str,
    arguments: Vec<OsString>,
    platform: &Path,
    json: bool,
) -> Result<u8, Error> {
    let mut run = run.clone();
    run.share.insert(0, share(folder)?);
    // the shell goes to the folder; then it is the program
    let enter = format!("cd {FOLDER} && exec ./\"$0\" \"$@\"");
    run.command = ["sh", "-c", &enter, program].map(OsString::from).to_vec();
    run.command.extend(arguments);
    crate::run::main(&run, platform, json)
}

fn share(folder: &Path) -> Result<units::Share, Error> {
    let text = format!("{}:{FOLDER}:ro", folder.display());
    units::share(&text).map_err(|e| Error::bad(format!("the folder {text} {e}")))
}

/// Bytes of EPC that the machine will have; `None` if it comes from a snapshot. Whatever
/// is wrong with it is told before anything is built.
pub(super) fn epc(run: &RunArgs) -> Result<Option<Epc>, Error> {
    if run.snapshot.is_some() {
        return Ok(None);
    }
    let nobody = HostTerminal { interactive: false, size: (0, 0), term: Vec::new() };
    // with a command, as it will have
    let with_command = RunArgs { command: vec!["sh".into()], ..run.clone() };
    let plan = Plan::new(&with_command, &nobody)?;
    let machine = plan.size.map_or("the machine", |size| size.name);
    Ok(Some(Epc { machine, bytes: plan.epc, memory: plan.memory }))
}

/// What a machine has.
pub(super) struct Epc {
    machine: &'static str,
    bytes: u64,
    memory: u64,
}

/// Whether the enclaves fit the machine: beyond its EPC, Linux exchanges pages.
pub(super) fn fits(built: &[Built], epc: Option<Epc>) -> Result<(), Error> {
    let Some(epc) = epc else { return Ok(()) };
    for enclave in built {
        let (name, takes) = (&enclave.name, units::bytes(enclave.memory));
        let has = units::bytes(epc.bytes);
        if enclave.memory > epc.bytes.saturating_add(epc.memory / 2) {
            return Err(Error::bad(format!(
                "the enclave {name} takes {takes}, {} has an EPC of {has} and {} of memory to swap to: EADD would \
                 find no page; choose a larger --size, or less heap",
                epc.machine,
                units::bytes(epc.memory)
            )));
        }
        if enclave.memory > epc.bytes {
            eprintln!(
                "kluis: the enclave {name} takes {takes}, {} has an EPC of {has}: Linux will swap its pages (EWB, \
                 ELDU), which is slow; choose a larger --size",
                epc.machine
            );
        }
    }
    Ok(())
}
