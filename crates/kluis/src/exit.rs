//! Exit codes and errors of the command (*docs/exit-codes.md*).

use agent_proto::ExitStatus;
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;

/// It worked.
pub(crate) const OK: u8 = 0;
/// `doctor`: `kluis run` cannot work here.
pub(crate) const NOT_ABLE: u8 = 1;
/// Bad input: usage, a file, a size.
pub(crate) const BAD_INPUT: u8 = 2;
/// `--timeout` passed.
pub(crate) const TIMEOUT: u8 = 124;
/// Kluis or the machine failed.
pub(crate) const FAILED: u8 = 125;
/// Added to the number of a signal.
pub(crate) const SIGNAL: u8 = 128;

/// Why the command cannot do what it was asked: one line with cause and
/// remedy, sometimes with details below it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// What the user gave cannot be used.
    #[error("{0}")]
    Bad(String),
    /// Kluis, the host or the machine failed.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Bad input.
    pub(crate) fn bad(cause: impl Display) -> Self {
        Self::Bad(cause.to_string())
    }

    /// A failure.
    pub(crate) fn failed(cause: impl Display) -> Self {
        Self::Failed(cause.to_string())
    }

    /// The host gives no thread.
    pub(crate) fn no_thread(cause: std::io::Error) -> Self {
        Self::Failed(format!("cannot start a thread: {cause}"))
    }

    /// Its exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Bad(_) => BAD_INPUT,
            Self::Failed(_) => FAILED,
        }
    }
}

impl From<image::ImageError> for Error {
    fn from(e: image::ImageError) -> Self {
        Self::failed(e)
    }
}

/// The exit code that stands for the end of the guest's command, as shells have
/// it.
pub(crate) fn of_command(status: ExitStatus) -> u8 {
    match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal(signal) => of_signal(i32::from(signal)),
    }
}

/// The exit code of a guest that wrote `status` to the debug-exit port: never zero,
/// as QEMU's.
pub(crate) fn of_debug_exit(status: u32) -> u8 {
    (status << 1) as u8 | 1
}

/// The exit code of a process that did this one's work.
pub(crate) fn of_process(status: std::process::ExitStatus) -> u8 {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.or_else(|| status.signal().map(of_signal)).unwrap_or(FAILED)
}

/// The exit code for an end by a signal.
pub(crate) fn of_signal(signal: i32) -> u8 {
    // Linux has 64 signals
    SIGNAL + (signal.clamp(0, 64) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_end_as_in_a_shell() {
        for code in [0, 1, 7, 124, 125, 127, 255] {
            assert_eq!(of_command(ExitStatus::Code(code)), code);
        }
        assert_eq!(of_command(ExitStatus::Signal(9)), 137);
        assert_eq!(of_command(ExitStatus::Signal(15)), 143);
        assert_eq!(of_command(ExitStatus::Signal(64)), 192);
        // what the protocol would not let through does not overflow either
        assert_eq!(of_command(ExitStatus::Signal(255)), 192);
    }

    #[test]
    fn debug_exits_are_odd() {
        for (status, code) in [(0, 1), (1, 3), (0x2a, 85), (0x7f, 255), (0x80, 1), (u32::MAX, 255)] {
            assert_eq!(of_debug_exit(status), code);
        }
    }

    #[test]
    fn errors_have_their_codes() {
        assert_eq!(Error::bad("x").code(), 2);
        assert_eq!(Error::failed("x").code(), 125);
    }
}
