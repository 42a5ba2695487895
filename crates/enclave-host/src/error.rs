//! What can go wrong.

use std::io;
use std::path::PathBuf;

use sgx_abi::Status;

/// Why an enclave is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// There is no signature.
    #[error(
        "the enclave is not signed: there is no {0}, without which EINIT takes nothing (SGX_INVALID_SIG_STRUCT); `kluis enclave sign` makes it"
    )]
    Unsigned(PathBuf),
    /// The stream is no enclave's.
    #[error("the SGXS file is damaged ({0}): build the enclave again")]
    Stream(String),
    /// The enclave has more addresses than processors give.
    #[error(
        "the enclave takes {0:#x} bytes of addresses, ECREATE takes at most {max:#x} (#GP): build it with a smaller heap-limit",
        max = enclave_abi::layout::MAX_SIZE
    )]
    TooLarge(u64),
    /// The signature file has not 1808 bytes.
    #[error(
        "the signature file has {0} bytes instead of 1808 (SGX_INVALID_SIG_STRUCT): sign the enclave again"
    )]
    SignatureSize(usize),
    /// The driver measures whole pages.
    #[error(
        "the page at {0:#x} is measured in part, which Linux's driver cannot do: build it with whole pages"
    )]
    PartlyMeasured(u64),
    /// Nothing to enter by.
    #[error("the enclave has no TCS, so it cannot be entered: build it with at least one thread")]
    NoThread,
    /// It is signed by somebody else than [`crate::Options::signer`] says.
    #[error(
        "the enclave is signed by {}, this program takes those of {} alone (MRSIGNER): have it signed by that signer",
        hex(.found), hex(.expected)
    )]
    Signer {
        /// MRSIGNER of the enclave.
        found: [u8; 32],
        /// That of [`crate::Options::signer`].
        expected: [u8; 32],
    },
    /// A debug enclave keeps no secrets.
    #[error(
        "it is a debug enclave (ATTRIBUTES.DEBUG), whose secrets anybody with a debugger reads: sign it for production, or allow debug enclaves"
    )]
    Debug,
    /// It is encrypted, and [`crate::Options::keys`] says nothing.
    #[error(
        "the enclave is encrypted and this program has no key for it: give one with Options::keys, e.g. KeyFile::new(\"NAME.key\")"
    )]
    Locked,
    /// There is no key.
    #[error("the enclave is encrypted, and {0}")]
    Key(String),
    /// EMODPR.
    #[error(
        "the driver does not take the right to write from the decrypted pages (EMODPR: {0}), and the enclave runs on processors with SGX2 only where it does: use Linux 6.0 or later"
    )]
    Restrict(io::Error),
    /// The device is not there.
    #[error(
        "there is no /dev/sgx_enclave: run on a machine with SGX and Linux 5.11 or later, e.g. `kluis run`"
    )]
    NoDevice,
    /// The device is not for this user.
    #[error("no permission to use {0}: join the group that owns it (sgx, or sgx_prv)")]
    Permission(&'static str),
    /// The kernel has no `__vdso_sgx_enter_enclave`.
    #[error("the kernel does not offer __vdso_sgx_enter_enclave: run Linux 5.11 or later")]
    NoVdso,
    /// ECREATE.
    #[error(
        "the driver does not create such an enclave (ECREATE: {0}): it exceeds the processor's limits, or asks for attributes that it lacks"
    )]
    Create(io::Error),
    /// The EPC is full.
    #[error(
        "the EPC has no page for the enclave (ECREATE or EADD: ENOMEM): end other enclaves, use a machine with more EPC, or build it with less heap and fewer threads"
    )]
    EpcFull,
    /// EADD, EEXTEND.
    #[error("the driver does not add the page at {0:#x} (EADD: {1}): build the enclave again")]
    Add(u64, io::Error),
    /// EINIT; its error is what the host finds wrong, for Linux tells only that there was one.
    #[error("the processor refuses the enclave, EINIT: {0}; {remedy}", remedy = remedy(*.0))]
    Init(Status),
    /// EINIT, with the driver's.
    #[error(
        "the driver does not initialise the enclave (EINIT: {0}): check its attributes, and who may use /dev/sgx_provision"
    )]
    InitRefused(io::Error),
    /// Address space.
    #[error("cannot map the enclave: {0}; is /dev mounted with noexec, or the address space limited?")]
    Map(io::Error),
    /// The enclave did not take its first call.
    #[error("the enclave does not start: {0}")]
    Start(Box<Error>),
}

/// What to do about a refusal of EINIT.
fn remedy(status: Status) -> &'static str {
    match status {
        Status::InvalidSigStruct | Status::InvalidSignature => {
            "the signature file is damaged: sign the enclave again"
        }
        Status::InvalidMeasurement => {
            "the two files do not belong together: build and sign the enclave again"
        }
        Status::InvalidAttribute => {
            "it was signed for other attributes than it is loaded with: sign it again"
        }
        Status::InvalidEinittoken => "the machine allows one signer only: have it signed by that one",
        Status::UnmaskedEvent => "try again",
        _ => "see the SDM, EINIT",
    }
}

/// An exception that came out of the enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Leaf that was executed last: 2 (EENTER) if it could not be entered, 3 (ERESUME) if
    /// the enclave's code raised it.
    pub function: u32,
    /// Vector, e.g. 14 for a page fault.
    pub vector: u16,
    /// Error code; bit 15 says that SGX refused a page.
    pub error_code: u16,
    /// Address of a page fault, without its lowest 12 bits.
    pub address: u64,
}

impl Fault {
    /// Vector of a page fault.
    pub const PAGE: u16 = 14;
    /// Bit of [`Fault::error_code`] that says SGX refused the page.
    pub const SGX: u16 = 1 << 15;
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.vector {
            0 => "#DE",
            1 => "#DB",
            3 => "#BP",
            5 => "#BR",
            6 => "#UD",
            12 => "#SS",
            13 => "#GP",
            14 => "#PF",
            16 => "#MF",
            17 => "#AC",
            18 => "#MC",
            19 => "#XM",
            _ => "exception",
        };
        let leaf = if self.function == 2 { "EENTER" } else { "ERESUME" };
        write!(
            f,
            "{name} (vector {}, error code {:#x}, address {:#x}) at {leaf}",
            self.vector, self.error_code, self.address
        )
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The EPC lost its content, e.g. because the machine slept.
    #[error("the enclave was lost with the EPC{}", if *.reloaded { " and loaded anew: repeat what it has to know" } else { ": load it again" })]
    Lost {
        /// Whether the enclave was loaded again, with nothing in it.
        reloaded: bool,
    },
    /// An exception that the enclave did not handle; it has ended.
    #[error("the enclave has ended by {fault}{}", context(.reason))]
    Fault {
        /// What came out.
        fault: Fault,
        /// What a debug enclave says of it.
        reason: Option<String>,
    },
    /// The enclave has ended: a panic, here or on another thread.
    #[error("the enclave has ended{}: load it again", context(.0))]
    Aborted(Option<String>),
    /// No thread of the enclave is free, and a call from within a call cannot wait.
    #[error("all threads of the enclave are in use: build it with more")]
    NoThread,
    /// The arguments exceed [`crate::Options::message_limit`], or the result does.
    #[error("a message exceeds the limit: raise it in the options, or send less at a time")]
    TooLarge,
    /// The enclave's heap is full.
    #[error("the enclave has no memory for the message: build it with more heap")]
    NoMemory,
    /// The function's number is unknown inside.
    #[error("the enclave has no such function: build both sides from the same interface")]
    NoFunction,
    /// The arguments were no valid message.
    #[error("the enclave cannot read the arguments: build both sides from the same interface")]
    BadArguments,
    /// The enclave is encrypted, and not unlocked.
    #[error("the enclave is encrypted and not unlocked: unlock it first")]
    Locked,
    /// The key is not the enclave's.
    #[error(
        "the key is not the one that the enclave was encrypted with: take the key file of this very build"
    )]
    WrongKey,
    /// The key is right, and some of the ciphertext is not.
    #[error("the enclave's ciphertext was changed after it was encrypted: build it again")]
    Damaged,
    /// Pages can still be written, on a processor with SGX2.
    #[error("the enclave's pages were not restricted as it demands (EMODPR): use Linux 6.0 or later")]
    NotRestricted,
    /// There is nothing to unlock.
    #[error("the enclave is not encrypted, or unlocked already")]
    AlreadyUnlocked,
    /// The enclave does not follow [`enclave_abi::call`].
    #[error(
        "the enclave does not answer as one of this runtime does: build it with the crate `enclave` of this version"
    )]
    Protocol,
}

impl Error {
    /// Whether the thread stands at the call's end after it, ready for the next.
    pub(crate) fn leaves_at_rest(&self) -> bool {
        match self {
            Self::NoFunction
            | Self::BadArguments
            | Self::TooLarge
            | Self::NoMemory
            | Self::Locked
            | Self::WrongKey
            | Self::Damaged
            | Self::NotRestricted
            | Self::AlreadyUnlocked => true,
            Self::Lost { .. } | Self::Fault { .. } | Self::Aborted(_) | Self::NoThread | Self::Protocol => {
                false
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn context(text: &Option<String>) -> String {
    text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
}
