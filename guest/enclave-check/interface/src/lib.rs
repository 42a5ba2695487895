//! What the enclave of the checks does, and what it asks of its host.
#![no_std]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use enclave_interface::{Deserialize, Serialize, interface};

/// Why there is no quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum NoQuotient {
    /// The divisor is zero.
    ByZero,
    /// It does not fit.
    Overflow,
}

/// A number below a hundred, checked as it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde", try_from = "u8")]
pub struct Percent(u8);

impl TryFrom<u8> for Percent {
    type Error = &'static str;

    fn try_from(n: u8) -> Result<Self, Self::Error> {
        if n <= 100 { Ok(Self(n)) } else { Err("more than a hundred percent") }
    }
}

impl Percent {
    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

/// Registers and flags as the enclave's code finds them at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct State {
    /// RFLAGS.
    pub rflags: u64,
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 control word.
    pub control: u16,
    /// x87 tag word, as FSTENV stores it.
    pub tags: u16,
    /// FS base and GS base, relative to the enclave.
    pub bases: [u64; 2],
}

/// Sealing policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Policy {
    /// This enclave.
    Enclave,
    /// The signer.
    Signer,
}

/// What to raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Raise {
    /// UD2, which a handler steps over.
    HandledUndefined,
    /// Division by zero, which a handler gives a result.
    HandledDivide,
    /// A read of a page that is not there, whose address the handler is told (EXINFO).
    HandledPageFault,
    /// UD2 without a handler.
    Undefined,
    /// A read of the page below the stack.
    StackGuard,
    /// A panic.
    Panic,
}

/// What the enclave does.
#[interface]
pub trait Check {
    /// Nothing.
    fn nothing(&self);
    /// Gives the data back.
    fn echo(&self, data: &[u8]) -> Vec<u8>;
    /// Divides.
    fn divide(&self, a: i64, b: i64) -> Result<i64, NoQuotient>;
    /// Asks the host, and says what it answered.
    fn ask(&self, question: &str) -> Result<String, String>;
    /// Asks the host for a percentage.
    fn percentage(&self) -> Result<u8, String>;
    /// Calls the host `times` times for nothing.
    fn call_host(&self, times: u32) -> u32;
    /// The same without leaving, if the host has threads for that.
    fn call_host_switchless(&self, times: u32) -> u32;
    /// Has the host call the enclave from within a call, `depth` times.
    fn nest(&self, depth: u32) -> u32;
    /// Adds one to a number `times` times, each under a lock; the number.
    fn count(&self, times: u32) -> u64;
    /// Waits until `threads` threads are here.
    fn meet(&self, threads: u32);
    /// The registers of a call.
    fn state(&self) -> State;
    /// Takes and fills this much heap; false if there is not so much.
    fn fill_heap(&self, bytes: u64) -> bool;
    /// Raises an exception.
    fn raise(&self, what: Raise) -> u64;
    /// Tries the algorithms that enclaves use; the names of those that work.
    fn algorithms(&self) -> Vec<String>;
    /// CPUID, as the enclave sees it: EAX, EBX, ECX, EDX.
    fn cpuid(&self, leaf: u32) -> [u32; 4];
    /// Seals.
    fn seal(&self, policy: Policy, data: &[u8], additional: &[u8]) -> Result<Vec<u8>, String>;
    /// Unseals: the data, the version that sealed it, whether that is the current one.
    fn unseal(
        &self,
        policy: Policy,
        sealed: &[u8],
        additional: &[u8],
    ) -> Result<(Vec<u8>, u16, bool), String>;
    /// Makes a report for itself, and verifies it; then with a bit of it changed.
    fn verify_own_report(&self) -> (bool, bool);
    /// MRENCLAVE.
    fn measurement(&self) -> [u8; 32];
    /// Random numbers, by the runtime and by `getrandom`.
    fn random(&self) -> [[u8; 16]; 2];
    /// The time by the host.
    fn time(&self) -> Option<u64>;
    /// Prints a line, if this is a debug enclave.
    fn print(&self, text: &str);
    /// Whether data read twice, with a call to the host between, is the same.
    fn stays(&self, data: &[u8]) -> bool;
    /// Whether all that the enclave keeps is as it was: its secret and its canaries.
    fn intact(&self) -> bool;
    /// Has the host give back this data, `times` times; how often it did.
    fn echo_by_host(&self, times: u32, data: &[u8]) -> u32;
    /// Asks the host without leaving, and says what it answered.
    fn ask_switchless(&self, question: &str) -> Result<String, String>;
    /// Waits until `threads` threads are here, then makes a value if no other has; how many
    /// were made, and whether it is the value that all have.
    fn once(&self, threads: u32) -> (u32, bool);
    /// Keys by EGETKEY: whether the same request has the same key, each other another, and
    /// one for a later version none.
    fn keys(&self) -> bool;
    /// Numbers by the generator for crates, of all of its functions.
    fn generator(&self) -> Vec<u64>;
    /// Bytes of its code, as they are in memory.
    fn code(&self) -> Vec<u8>;
    /// Writes a byte of its code, as it is, where it is: true if that can be done.
    fn write_code(&self) -> bool;
    /// A text of its program.
    fn marker(&self) -> String;
    /// Makes a key for TLS; a report for it, which whoever makes quotes is to quote.
    fn tls_report(&self) -> Result<Vec<u8>, String>;
    /// Takes the quote of that report; the certificate.
    fn tls_serve(&self, quote: &[u8]) -> Result<Vec<u8>, String>;
    /// Takes bytes of a client, a new one if `first`; bytes for the client, and whether there
    /// is more to come. What the client says is said back in capitals.
    fn tls_receive(&self, first: bool, bytes: &[u8]) -> Result<(Vec<u8>, bool), String>;
    /// A REPORT with this data for the enclave that a TARGETINFO is of, if it is one.
    fn report(&self, target: &[u8], data: &[u8]) -> Option<Vec<u8>>;
}

/// What the enclave asks of its host.
#[interface]
pub trait Outside {
    /// Answers a question.
    fn answer(&self, question: &str) -> String;
    /// A percentage.
    fn percentage(&self) -> Percent;
    /// Nothing.
    fn nothing(&self);
    /// Calls the enclave's `nest` with this depth.
    fn nest(&self, depth: u32) -> u32;
    /// Gives the data back.
    fn echo(&self, data: &[u8]) -> Vec<u8>;
}
