//! What the end of a run means: an exit code, and words for people.

use super::session::End;
use super::stats::{Ending, seconds};
use crate::exit;
use agent_proto::ExitStatus;
use machine::Outcome;
use std::time::Duration;

/// What is known beside the end itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Circumstances {
    /// A command was given, so that the machine's end is not what was wanted.
    pub(crate) command: bool,
    /// People and programs were connected to the guest: its agent was ready, or
    /// it is on the serial port.
    pub(crate) connected: bool,
    /// The guest's kernel said that it panicked.
    pub(crate) panicked: bool,
    /// The initial RAM disk is the user's own.
    pub(crate) own_initrd: bool,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
}

/// The meaning of an end.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Exit code.
    pub(crate) code: u8,
    /// For programs, with a line of cause for people.
    pub(crate) ending: Ending,
    /// More for people: the state of a processor.
    pub(crate) details: Option<String>,
    /// The guest's last words on the console are of interest.
    pub(crate) show_console: bool,
}

impl Verdict {
    fn new(code: u8, kind: &'static str) -> Self {
        let ending = Ending { kind, code: None, signal: None, message: None };
        Self { code, ending, details: None, show_console: false }
    }

    fn failed(kind: &'static str, message: impl Into<String>) -> Self {
        let mut verdict = Self::new(exit::FAILED, kind);
        verdict.ending.message = Some(message.into());
        verdict.show_console = true;
        verdict
    }

    /// What `end` means.
    pub(crate) fn of(end: End, known: &Circumstances) -> Self {
        match end {
            End::Command(status) => {
                let mut verdict = Self::new(exit::of_command(status), "command");
                match status {
                    ExitStatus::Code(code) => verdict.ending.code = Some(code),
                    ExitStatus::Signal(signal) => verdict.ending.signal = Some(signal.into()),
                }
                verdict
            }
            End::TimedOut => {
                let mut verdict = Self::new(exit::TIMEOUT, "timeout");
                let after = known.timeout.map(|t| format!(" after {}", seconds(t))).unwrap_or_default();
                let mut message = format!("stopped{after} (--timeout)");
                if !known.connected {
                    message += "; the guest's agent was not ready by then";
                    if known.own_initrd {
                        message += ": is it in your initrd?";
                    }
                }
                verdict.ending.message = Some(message);
                verdict
            }
            End::Signal(signal) => {
                let mut verdict = Self::new(exit::of_signal(signal), "signal");
                verdict.ending.signal = Some(signal);
                verdict
            }
            // a command did not end by itself: as if it was told to terminate
            End::Quit if known.command => Self::new(exit::SIGNAL + 15, "stopped"),
            End::Quit => Self::new(exit::OK, "stopped"),
            End::Saved => Self::new(exit::OK, "snapshot"),
            End::Broken(why) => Self::failed("failure", why),
            End::Machine(outcome) => Self::of_machine(outcome, known),
        }
    }

    fn of_machine(outcome: Outcome, known: &Circumstances) -> Self {
        let before = match (known.connected, known.own_initrd) {
            (true, _) => "before the command ended",
            (false, false) => "before its agent was ready",
            (false, true) => "before an agent was ready: a command needs Kluis's agent in the initrd",
        };
        match outcome {
            Outcome::PowerOff | Outcome::Reset if known.panicked => {
                Self::failed("machine", "the guest's kernel panicked; see its last lines")
            }
            Outcome::PowerOff | Outcome::Reset if known.connected && !known.command => {
                Self::new(exit::OK, "machine")
            }
            Outcome::PowerOff => {
                Self::failed("machine", format!("the guest switched the machine off {before}"))
            }
            Outcome::Reset => Self::failed("machine", format!("the guest reset the machine {before}")),
            Outcome::DebugExit(status) => Self::new(exit::of_debug_exit(status), "debug-exit"),
            Outcome::Stopped => Self::failed("machine", "the machine was stopped"),
            Outcome::TripleFault(report) => {
                let mut verdict = Self::failed(
                    "machine",
                    "triple fault: the guest could not handle an exception; its state follows",
                );
                verdict.details = Some(report);
                verdict
            }
            Outcome::Failed(why) => Self::failed("machine", why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(end: End, known: &Circumstances) -> u8 {
        Verdict::of(end, known).code
    }

    #[test]
    fn every_end_has_its_code() {
        let command = Circumstances { command: true, connected: true, ..Circumstances::default() };
        let shell = Circumstances { connected: true, ..Circumstances::default() };
        let booting = Circumstances::default();
        assert_eq!(code(End::Command(ExitStatus::Code(7)), &command), 7);
        assert_eq!(code(End::Command(ExitStatus::Signal(11)), &command), 139);
        assert_eq!(code(End::TimedOut, &command), 124);
        assert_eq!(code(End::Signal(2), &command), 130);
        assert_eq!(code(End::Signal(15), &booting), 143);
        assert_eq!(code(End::Machine(Outcome::DebugExit(3)), &shell), 7);
        assert_eq!(code(End::Quit, &shell), 0);
        assert_eq!(code(End::Saved, &command), 0);
        assert_eq!(code(End::Quit, &command), 143);
        assert_eq!(code(End::Broken("x".into()), &command), 125);
        for outcome in [Outcome::PowerOff, Outcome::Reset] {
            assert_eq!(code(End::Machine(outcome.clone()), &shell), 0);
            assert_eq!(code(End::Machine(outcome.clone()), &command), 125);
            assert_eq!(code(End::Machine(outcome.clone()), &booting), 125);
            let panicked = Circumstances { panicked: true, ..shell };
            assert_eq!(code(End::Machine(outcome), &panicked), 125);
        }
        for outcome in [Outcome::Stopped, Outcome::TripleFault("rip 0".into()), Outcome::Failed("x".into())] {
            let verdict = Verdict::of(End::Machine(outcome), &shell);
            assert!(verdict.code == 125 && verdict.show_console && verdict.ending.message.is_some());
        }
    }

    #[test]
    fn triple_fault_comes_with_the_state() {
        let end = End::Machine(Outcome::TripleFault("rip 12".into()));
        assert_eq!(Verdict::of(end, &Circumstances::default()).details.as_deref(), Some("rip 12"));
    }

    #[test]
    fn missing_agent_is_hinted_at() {
        let known = Circumstances { command: true, own_initrd: true, ..Circumstances::default() };
        for end in [End::TimedOut, End::Machine(Outcome::PowerOff)] {
            let message = Verdict::of(end, &known).ending.message.unwrap();
            assert!(message.contains("initrd"), "{message}");
        }
    }
}
