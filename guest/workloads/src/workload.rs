//! What a workload is, and the helpers they share.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// What kind of work dominates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Integer computation, branches, calls, memory.
    Integer,
    /// Floating point, vectors, the C library's string functions.
    Fp,
    /// System calls, faults, processes.
    Os,
    /// Shell scripts under busybox: a mixture of all.
    Busybox,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Integer => "integer",
            Class::Fp => "fp",
            Class::Os => "os",
            Class::Busybox => "busybox",
        })
    }
}

/// Why a run gave no time.
#[derive(Debug)]
pub enum Failure {
    /// The machine computed something else than the known answer.
    Wrong {
        /// The known answer.
        expected: String,
        /// What came out.
        got: String,
    },
    /// A system call or a program failed.
    Os {
        /// What was attempted.
        what: &'static str,
        /// The system's word on it.
        error: std::io::Error,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Wrong { expected, got } => write!(f, "expected {expected}, got {got}"),
            Failure::Os { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl Failure {
    /// A failed system call, with `errno`.
    pub fn last_os(what: &'static str) -> Failure {
        Failure::Os { what, error: std::io::Error::last_os_error() }
    }
}

/// How a workload is run.
#[derive(Clone, Copy)]
pub enum Body {
    /// In this process; gets the iteration count, gives the time of the work
    /// without its preparation.
    Native(fn(u64) -> Result<Duration, Failure>),
    /// A script for busybox's shell with the answer of one iteration.
    Script {
        /// Its text. `$1` is the iteration count, `$BB` the busybox.
        text: &'static str,
        /// The line every iteration prints.
        answer: &'static str,
    },
}

/// One workload: fixed work and a known answer.
#[derive(Clone, Copy)]
pub struct Workload {
    /// Name on the command line and in the output.
    pub name: &'static str,
    /// Its class.
    pub class: Class,
    /// One line for people.
    pub about: &'static str,
    /// Iterations at scale 1: 10–30 ms on a 2020s x86-64 server processor.
    pub iterations: u64,
    /// The work.
    pub body: Body,
}

impl Workload {
    /// Whether the workload runs under busybox's shell.
    pub fn needs_busybox(&self) -> bool {
        matches!(self.body, Body::Script { .. })
    }

    /// Runs `iterations` iterations and verifies the answer.
    pub fn run(&self, iterations: u64, busybox: Option<&Path>) -> Result<Duration, Failure> {
        match self.body {
            Body::Native(f) => f(iterations),
            Body::Script { text, answer } => {
                let busybox = busybox.unwrap_or(Path::new("/bin/busybox"));
                crate::busybox::run(busybox, text, answer, iterations)
            }
        }
    }
}

/// `Ok` if the machine computed the known answer.
pub fn check<T: PartialEq + fmt::Debug>(expected: T, got: T) -> Result<(), Failure> {
    if expected == got {
        return Ok(());
    }
    Err(Failure::Wrong { expected: format!("{expected:x?}"), got: format!("{got:x?}") })
}

/// Marsaglia's 64-bit xorshift (13, 7, 17).
pub fn xorshift(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ (x << 17)
}

/// The seed of every pseudo-random input.
pub const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
