//! `--reboot`: the machine starts again when the guest resets it. A machine's
//! process is confined and starts nothing, so one beside it does: this program
//! once more for each life of the machine, with a pipe on which a reset is told.

use super::signals::Forward;
use crate::exit::Error;
use rustix::process::Signal;
use signal_hook::consts::{SIGINT, SIGQUIT};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, Command};

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
    let from_terminal =
        |signal| matches!(signal, SIGINT | SIGQUIT) && rustix::termios::isatty(rustix::stdio::stdin());
    let signals = Forward::start(from_terminal).map_err(fail)?;
    loop {
        let (mut child, mut pipe) = start().map_err(fail)?;
        signals.to(Some(&child));
        let mut told = Vec::new();
        // ends when the child does
        pipe.read_to_end(&mut told).map_err(fail)?;
        let status = child.wait().map_err(fail)?;
        signals.to(None);
        if told != [RESET] {
            return Ok(crate::exit::of_process(status));
        }
    }
}

fn start() -> io::Result<(Child, File)> {
    // the writing end is inherited
    let (reading, writing) = rustix::pipe::pipe()?;
    rustix::io::fcntl_setfd(&reading, rustix::io::FdFlags::CLOEXEC)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1)).env(PIPE, writing.as_raw_fd().to_string());
    Ok((command.spawn()?, File::from(reading)))
}
