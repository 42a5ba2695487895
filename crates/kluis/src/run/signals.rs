//! The host's signals as events.

use super::session::Event;
use crate::exit::Error;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals;
use std::fs;
use std::sync::mpsc::Sender;
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
