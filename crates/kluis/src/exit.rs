//! Exit codes and errors of the command (*docs/exit-codes.md*).

use agent_proto::ExitStatus;
use dcap::{Class, Rule};
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;

/// It worked.
pub(crate) const OK: u8 = 0;
/// `doctor`: `kluis run` cannot work here.
pub(crate) const NOT_ABLE: u8 = 1;
/// `demo`: something did not hold.
pub(crate) const UNMET: u8 = 1;
/// Bad input: usage, a file, a size.
pub(crate) const BAD_INPUT: u8 = 2;
/// `attest quote`: no enclave answers, or nothing that shows that it is one.
pub(crate) const NO_ENCLAVE: u8 = 23;
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
    /// `demo`: something does not hold that should.
    #[error("{0}")]
    Unmet(String),
    /// `attest`: a quote is refused.
    #[error("{message}")]
    Refused {
        /// What is refused, by which rule.
        message: String,
        /// The rule's code: [`of_refusal`].
        code: u8,
    },
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
            Self::Unmet(_) => UNMET,
            Self::Refused { code, .. } => *code,
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

/// The exit code of `attest` for a rule that a quote breaks: one for each thing that the
/// caller may want to tell apart.
pub(crate) fn of_refusal(rule: Rule) -> u8 {
    match rule {
        Rule::Truncated => 11,
        Rule::Oversized => 12,
        Rule::ForeignRoot => 15,
        Rule::SoftwarePlatform => 18,
        Rule::TcbNotAccepted => 19,
        Rule::Debug => 20,
        Rule::Mrenclave | Rule::Mrsigner | Rule::ProductId | Rule::SecurityVersion => 21,
        Rule::ReportData => 22,
        other => match other.class() {
            Class::Malformed => 10,
            Class::Unsupported => 13,
            Class::Untrusted => 14,
            Class::Expired => 16,
            Class::Revoked => 17,
            // all of them have one above
            Class::Policy => BAD_INPUT,
        },
    }
}

/// The same for a rule that a server's certificate breaks.
pub(crate) fn of_certificate(rule: ratls::Rule) -> u8 {
    use ratls::Rule::{
        Chain, Encoding, Evidence, EvidenceMissing, Expired, KeyHash, Nonce, NotYetValid, Oversized,
        Signature,
    };
    match rule {
        Encoding | Evidence => 10,
        Oversized => of_refusal(Rule::Oversized),
        Chain | Signature => 14,
        NotYetValid | Expired => 16,
        KeyHash | Nonce => of_refusal(Rule::ReportData),
        EvidenceMissing => NO_ENCLAVE,
    }
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
    fn refusals_have_codes_of_their_own() {
        let codes: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|&rule| of_refusal(rule)).collect();
        assert_eq!(codes, (10..=22).collect());
        let document = include_str!("../../../docs/exit-codes.md");
        for code in codes.into_iter().chain([NO_ENCLAVE]) {
            assert!(
                document.contains(&format!("| {code} | `attest` |")),
                "{code} is not in docs/exit-codes.md"
            );
        }
    }

    #[test]
    fn errors_have_their_codes() {
        assert_eq!(Error::bad("x").code(), 2);
        assert_eq!(Error::failed("x").code(), 125);
    }
}
