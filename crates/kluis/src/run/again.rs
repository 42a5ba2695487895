//! `--reboot`: the machine starts again when the guest resets it. A machine's
//! process is confined and starts nothing, so one beside it does: this program
//! once more for each life of the machine, with a pipe on which a reset is told.

use crate::exit::Error;
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::thread;

/// Names the pipe to the process of one life.
const PIPE: &str = "KLUIS_REBOOT_PIPE";
/// What is written there at a reset.
const RESET: u8 = b'R';

/// The way to tell who started this life that the guest has reset the machine.
pub(super) struct Again(File);

impl Again {
    /// This process's, if it is one of several lives; it then ends with its starter.
    ///
    /// # Errors
    /// The starter is gone.
    pub(super) fn inherited() -> Result<Option<Again>, Error> {
        let Some(number) = std::env::var_os(PIPE) else { return Ok(None) };
        let path = std::path::Path::new("/proc/self/fd").join(number);
        let fail = |e: io::Error| Error::failed(format!("cannot tell of a reset: {e}"));
        let pipe = File::options().write(true).open(path).map_err(fail)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| fail(e.into()))?;
        Ok(Some(Again(pipe)))
    }

    /// The machine was reset.
    pub(super) fn tell(mut self) {
        // nobody listens any more: then nobody starts it again
        let _ = self.0.write_all(&[RESET]);
    }
}

/// Runs this command in a process of its own for as long as that ends with a reset;
/// gives the last one's exit code.
///
/// # Errors
/// It cannot be started.
pub(super) fn supervise() -> Result<u8, Error> {
    let fail = |e: io::Error| Error::failed(format!("cannot start the machine: {e}"));
    // Signals of the terminal reach both; those sent to this process are passed on.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2]).map_err(fail)?;
    let handle = signals.handle();
    let (current, running) = std::sync::mpsc::channel::<Option<Pid>>();
    let forward = thread::Builder::new().name("signals".into()).spawn(move || {
        let mut child = None;
        for signal in signals.forever() {
            child = running.try_iter().last().unwrap_or(child);
            let from_terminal =
                matches!(signal, SIGINT | SIGQUIT) && rustix::termios::isatty(rustix::stdio::stdin());
            if let (Some(pid), Some(signal), false) = (child, Signal::from_named_raw(signal), from_terminal) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    });
    let forward = forward.map_err(fail)?;
    let code = loop {
        let (mut child, mut pipe) = start().map_err(fail)?;
        let _ = current.send(Some(Pid::from_child(&child)));
        let mut told = Vec::new();
        // ends when the child does
        pipe.read_to_end(&mut told).map_err(fail)?;
        let status = child.wait().map_err(fail)?;
        let _ = current.send(None);
        if told != [RESET] {
            let of_signal = |signal: i32| 128 + signal;
            break status.code().or(status.signal().map(of_signal)).unwrap_or(crate::exit::FAILED.into());
        }
    };
    handle.close();
    let _ = forward.join();
    Ok(u8::try_from(code).unwrap_or(crate::exit::FAILED))
}

fn start() -> io::Result<(Child, File)> {
    // the writing end is inherited
    let (reading, writing) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&reading, rustix::io::FdFlags::CLOEXEC)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(PIPE, writing.as_raw_fd().to_string());
    Ok((command.spawn()?, File::from(reading)))
}
