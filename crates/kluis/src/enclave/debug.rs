//! `kluis enclave debug`: gdb in an enclave of the project.
//!
//! The machine's process is confined and starts nothing. So this one starts it, in a process
//! group of its own so that gdb has the terminal to itself, and gdb, once the machine's has
//! told that the enclave is there ([`Found`]).

use super::args::{BuildArgs, DebugArgs};
use super::build::{self, Built, Purpose};
use super::project::Project;
use super::run;
use crate::cli::RunArgs;
use crate::exit::{self, Error};
use crate::run::enclave::{Found, Order};
use crate::run::signals::Forward;
use crate::{host, units};
use signal_hook::consts::{SIGINT, SIGQUIT};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Functions that `step` passes over: nobody looks for a fault there.
const SKIPPED: &str = "^(core|alloc|serde|postcard|enclave|enclave_interface)::";
/// Where an enclave of the SDK takes a call of its interface.
const DISPATCH: &str = "enclave_dispatch";

/// Builds the project, and runs its host program with gdb in an enclave.
///
/// # Errors
/// It cannot be built or debugged, or there is no machine.
pub(super) fn main(
    what: &DebugArgs,
    args: &BuildArgs,
    run: &RunArgs,
    platform: &Path,
    json: bool,
) -> Result<u8, Error> {
    let purpose = if what.release { Purpose::Use } else { Purpose::Debug };
    if let Some(run) = machine(run)? {
        return run::host_in_machine(&run, &Project::find(args.project.as_deref())?, purpose, platform, json);
    }
    if run.reboot || run.tty || run.gdb.is_some_and(|gdb| !gdb.waits) {
        return Err(Error::bad(
            "the debugger of an enclave has the terminal, and is waited for: leave out --reboot, --tty and ,nowait",
        ));
    }
    if run.gdb.is_none() && !host::in_path(&what.debugger) {
        return Err(Error::bad(format!(
            "there is no {}: install gdb, or have one of yours come to a port, as with --gdb 127.0.0.1:1234",
            what.debugger.display()
        )));
    }
    let epc = run::epc(run)?;
    let project = Project::find(args.project.as_deref())?;
    let program = run::host(&project)?;
    let chosen = chosen(&project, what.enclave.as_deref())?;
    let built = build::enclaves(&project, args, purpose)?;
    let enclave = &built[chosen];
    if !enclave.debug {
        return Err(Error::bad(format!(
            "the enclave {} is one for production, which no debugger looks into: say `debug = true` under \
             [package.metadata.enclave], or leave out --release",
            enclave.name
        )));
    }
    run::fits(&built, epc)?;
    build::host(&project, program, args, purpose)?;
    // cargo's folder soon has another of that name
    let symbols = enclave.stream.with_extension("elf");
    build::copy_program(&enclave.program, &symbols)?;
    let debugger = Debugger { program: what.debugger.clone(), symbols, breaks: what.breaks.clone() };
    attend(enclave, &project, &debugger, run.gdb.is_none())
}

/// What the machine's own process runs, if this is that.
fn machine(run: &RunArgs) -> Result<Option<RunArgs>, Error> {
    if !Order::is_given() {
        return Ok(None);
    }
    let mut run = run.clone();
    if run.gdb.is_none() {
        run.gdb = Some(units::gdb("0").map_err(Error::failed)?);
    }
    Ok(Some(run))
}

/// Which enclave of the project.
fn chosen(project: &Project, name: Option<&str>) -> Result<usize, Error> {
    let names = || project.enclaves.iter().map(|enclave| &*enclave.name).collect::<Vec<_>>().join(", ");
    match (&project.enclaves[..], name) {
        ([_], None) => Ok(0),
        (_, None) => Err(Error::bad(format!("the project has several enclaves: name one of {}", names()))),
        (all, Some(name)) => all
            .iter()
            .position(|enclave| enclave.name == name)
            .ok_or_else(|| Error::bad(format!("{name} is no enclave of the project: it has {}", names()))),
    }
}

/// Runs the machine, and gdb if it is to be `started`; the host program's exit code.
fn attend(enclave: &Built, project: &Project, debugger: &Debugger, started: bool) -> Result<u8, Error> {
    let fail = |e: io::Error| Error::failed(format!("cannot start the machine: {e}"));
    let in_gdb = Arc::new(AtomicBool::new(false));
    let at_terminal = in_gdb.clone();
    // while gdb is there the terminal's signals are meant for it
    let of_gdb = move |signal| matches!(signal, SIGINT | SIGQUIT) && at_terminal.load(Ordering::SeqCst);
    let signals = Forward::start(of_gdb).map_err(fail)?;
    let (mut machine, told) = start(enclave).map_err(fail)?;
    signals.to(Some(&machine));
    let mut line = String::new();
    let read = BufReader::new(told).read_line(&mut line);
    let found = read.ok().and_then(|_| serde_json::from_str::<Found>(&line).ok());
    let done = match found {
        Some(found) if found.debug => debugger.come(project, &found, started, &in_gdb),
        found => Err(Error::bad(not_there(&enclave.name, found.is_some()))),
    };
    if done.is_err() && found.is_some() {
        // it waits for nobody else
        let _ = machine.kill();
    }
    let status = machine.wait().map_err(fail)?;
    signals.to(None);
    match (done, exit::of_process(status)) {
        (Ok(()), code) => Ok(code),
        // the machine was stopped, or there was none, as it has said itself
        (Err(_), code @ (exit::BAD_INPUT | exit::TIMEOUT | exit::FAILED | exit::SIGNAL..))
            if found.is_none() =>
        {
            Ok(code)
        }
        // the host program has failed, and may have told why
        (Err(e), code) if found.is_none() && code != exit::OK => {
            eprintln!("kluis: {e}");
            Ok(code)
        }
        (Err(e), _) => Err(e),
    }
}

/// Why there is nothing to debug.
fn not_there(enclave: &str, for_production: bool) -> String {
    if for_production {
        return format!(
            "the host program has loaded {enclave} with a signature for production, which no debugger looks into: \
             have it take the one that lies beside the enclave, {enclave}.sig"
        );
    }
    format!(
        "the host program has not loaded the debug enclave {enclave}: have it take the files beside it, with \
         Options::allow_debug(cfg!(debug_assertions))"
    )
}

/// Starts the machine's process; on the other end it tells [`Found`].
fn start(enclave: &Built) -> io::Result<(Child, File)> {
    let (reading, writing) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&reading, rustix::io::FdFlags::CLOEXEC)?;
    let mut command = Command::new("/proc/self/exe");
    command
        .args(std::env::args_os().skip(1))
        .envs(Order::environment(writing.as_raw_fd(), &enclave.mrenclave))
        .stdin(Stdio::null())
        .process_group(0);
    Ok((command.spawn()?, File::from(reading)))
}

/// A gdb, and what it is to know.
struct Debugger {
    program: PathBuf,
    /// The enclave's program.
    symbols: PathBuf,
    breaks: Vec<String>,
}

impl Debugger {
    /// gdb comes to the enclave and goes; or, if it is not to be started, is waited for.
    fn come(
        &self,
        project: &Project,
        found: &Found,
        started: bool,
        in_gdb: &AtomicBool,
    ) -> Result<(), Error> {
        let arguments = self.arguments(&build::folders(project), found);
        if !started {
            let words: Vec<String> = arguments.iter().map(|word| shell_word(word)).collect();
            eprintln!(
                "kluis: the enclave is at {:#x}; the machine waits for gdb at {}, which has full control of it:\n{} {}",
                found.base,
                found.gdb,
                shell_word(&self.program.to_string_lossy()),
                words.join(" ")
            );
            return Ok(());
        }
        in_gdb.store(true, Ordering::SeqCst);
        let done = Command::new(&self.program).args(arguments).status();
        in_gdb.store(false, Ordering::SeqCst);
        done.map_err(|e| Error::failed(format!("cannot start {}: {e}", self.program.display())))?;
        Ok(())
    }

    fn arguments(&self, folders: &[(PathBuf, &'static str)], found: &Found) -> Vec<String> {
        let mut commands = vec![
            format!("target remote {}", found.gdb),
            // pages of code that nobody has touched yet are not in the guest's page tables
            "set trust-readonly-sections on".into(),
            "set confirm off".into(),
            format!("add-symbol-file {} -o {:#x}", gdb_word(&self.symbols.to_string_lossy()), found.base),
            "set confirm on".into(),
            format!("skip -rfu {SKIPPED}"),
        ];
        for (folder, name) in folders {
            commands.push(format!("set substitute-path {name} {}", gdb_word(&folder.to_string_lossy())));
        }
        let breaks: Vec<&str> = self.breaks.iter().map(String::as_str).collect();
        let breaks = if breaks.is_empty() { &[DISPATCH][..] } else { &breaks };
        commands.extend(breaks.iter().map(|place| format!("break {place}")));
        commands.push("continue".into());
        let words = commands.into_iter().flat_map(|command| ["-ex".into(), command]);
        std::iter::once("-q".into()).chain(words).collect()
    }
}

/// A word of a gdb command's argument.
fn gdb_word(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gdb_is_told() {
        let found = Found { base: 0x7f00_0000_0000, debug: true, gdb: ([127, 0, 0, 1], 1234).into() };
        let debugger = Debugger {
            program: "gdb".into(),
            symbols: "/p q/it's \"x\".elf".into(),
            breaks: vec!["main.rs:1".into(), "f".into()],
        };
        let folders = [("/home/c".into(), "/cargo"), ("/p q".into(), "/project")];
        let words = debugger.arguments(&folders, &found);
        let said = words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ");
        for part in [
            "-q -ex 'target remote 127.0.0.1:1234' ",
            r#" 'add-symbol-file "/p q/it'\''s \"x\".elf" -o 0x7f0000000000' "#,
            r#" 'set substitute-path /project "/p q"' "#,
            " -ex 'break main.rs:1' -ex 'break f' -ex continue",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let debugger = Debugger { breaks: Vec::new(), ..debugger };
        assert!(debugger.arguments(&folders, &found).ends_with(&[
            "-ex".into(),
            "break enclave_dispatch".into(),
            "-ex".into(),
            "continue".into()
        ]));
    }
}
