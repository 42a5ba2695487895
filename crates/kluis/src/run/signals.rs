//! The host's signals: as events, or passed on to a process that runs the machine.

use super::session::Event;
use crate::exit::Error;
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::{Handle, Signals};
use std::fs;
use std::io;
use std::process::Child;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Sends an event for each signal from now on. Signals that whoever started
/// this process told it to ignore (`nohup`, a shell's background job) stay
/// ignored. With `terminal` that includes what concerns a raw terminal.
///
/// # Errors
/// The host refuses.
pub(crate) fn watch(terminal: bool, events: Sender<Event>) -> Result<(), Error> {
    let ignored = ignored();
    let mut wanted = vec![SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP];
    if terminal {
        wanted.push(SIGWINCH);
    }
    wanted.retain(|signal| ignored >> (signal - 1) & 1 == 0);
    let fail = |e| Error::failed(format!("cannot watch for signals: {e}"));
    let mut signals = Signals::new(wanted).map_err(fail)?;
    let forward = move || {
        for signal in signals.forever() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(forward).map_err(fail)?;
    Ok(())
}

/// Passes this process's signals on to a child, until dropped.
pub(crate) struct Forward {
    to: Arc<Mutex<Option<Pid>>>,
    handle: Handle,
}

impl Forward {
    /// Begins, with no child yet; a signal for which `keep` holds is not passed on.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn start(keep: impl Fn(i32) -> bool + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])?;
        let (handle, to) = (signals.handle(), Arc::new(Mutex::new(None)));
        let child = to.clone();
        let forward = move || {
            for signal in signals.forever() {
                let child = *child.lock().unwrap_or_else(PoisonError::into_inner);
                if let (Some(pid), Some(signal), false) =
                    (child, Signal::from_named_raw(signal), keep(signal))
                {
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(forward)?;
        Ok(Self { to, handle })
    }

    /// To this child from now on, or to none.
    pub(crate) fn to(&self, child: Option<&Child>) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = child.map(Pid::from_child);
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// The set of signals that are ignored, bit N-1 for signal N (*proc(5)*,
/// `SigIgn`).
fn ignored() -> u64 {
    parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

fn parse(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ignored_signals_are_read() {
        assert_eq!(super::parse("Name:\tx\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(super::parse("Name:\tx\n"), 0);
        // Rust programs ignore SIGPIPE (13)
        assert_eq!(super::ignored() >> 12 & 1, 1);
    }
}
