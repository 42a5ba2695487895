//! Why there is no quote.

use std::io;
use std::path::PathBuf;

use architectural_interface::Refusal;
use enclave_host::interface::CallError;
use enclave_host::{Error, LoadError};

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub enum QuotingError {
    /// The machine is not provisioned.
    #[error("cannot read {path}: {why}; a machine has it that `kluis run` starts from an image of Kluis's")]
    Provisioned {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// An architectural enclave cannot be loaded.
    #[error("the {0} enclave: {1}")]
    Load(&'static str, LoadError),
    /// An architectural enclave was not called, or ended.
    #[error("the {0} enclave: {1}")]
    Call(&'static str, CallError<Error>),
    /// An architectural enclave refuses.
    #[error("the {0} enclave refuses: {1}")]
    Refused(&'static str, Refusal),
    /// An architectural enclave answers what it does not.
    #[error("the {0} enclave answers with something of a wrong length: it is not of this version")]
    Answer(&'static str),
    /// The file is no chain of certificates.
    #[error("{0} is no PCK certificate chain in PEM, or too long for a quote")]
    Chain(PathBuf),
    /// The certificate is not of this processor.
    #[error(
        "the PCK certificate in {0} is not that of this processor's security version: start the machine anew, not \
         from a snapshot of before"
    )]
    OtherKey(PathBuf),
    /// The attestation key cannot be kept.
    #[error("cannot keep the attestation key in {path}: {why}; give a place that can be written")]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

impl QuotingError {
    /// What the enclave said no with, if it did.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(_, refusal) => Some(*refusal),
            _ => None,
        }
    }
}
