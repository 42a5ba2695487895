//! What the service needs of a quoting enclave.

use sgx_abi::{Report, Targetinfo};

use crate::{AttestationKeyId, Challenge, Code};

/// A quoting enclave with an attestation key of ECDSA and P-256, and what certifies it.
/// Several threads ask at once.
pub trait Quoting: Sync {
    /// The identifier of its key: MRSIGNER and ISVPRODID of the quoting enclave.
    ///
    /// # Errors
    /// Why it is not known.
    fn key_id(&self) -> Result<AttestationKeyId, Failure>;

    /// Makes ready to quote: the attestation key is there and certified when this returns.
    ///
    /// # Errors
    /// Why it cannot.
    fn init(&self) -> Result<Initialized, Failure>;

    /// The size in bytes of the quotes that are made.
    ///
    /// # Errors
    /// Why there can be none.
    fn quote_size(&self) -> Result<usize, Failure>;

    /// A quote of the enclave that made this report, which was made for the quoting enclave.
    ///
    /// If there is a challenge, the quoting enclave also reports to its target, with
    /// SHA-256 of nonce and quote in the first half of REPORTDATA and zeros in the second. It
    /// must do so for quotes only that it signs in the same call: a report on any bytes it is
    /// given would say nothing.
    ///
    /// # Errors
    /// [`Code::INVALID_REPORT`] if the report does not pass,
    /// [`Code::UNABLE_TO_GENERATE_QE_REPORT`] if the target is none, and others for what the
    /// enclave cannot do.
    fn quote(&self, report: &Report, challenge: Option<&Challenge>) -> Result<Quoted, Failure>;
}

/// What programs need to know before they ask for a quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialized {
    /// The quoting enclave, as the target of reports.
    pub target_info: Targetinfo,
    /// The attestation key's identifier, by which programs see that it changed: what the
    /// quoting enclave's REPORTDATA bind it by in each quote, SHA-256 of the public key and
    /// the authentication data.
    pub public_key_id: [u8; 32],
}

/// A quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Its bytes.
    pub quote: Vec<u8>,
    /// The quoting enclave's report, if there was a challenge.
    pub qe_report: Option<Report>,
}

/// Why there is no quote: a code for the program that asked, and the cause for who runs the
/// service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {cause}")]
pub struct Failure {
    /// What the response says.
    pub code: Code,
    /// What the log says, in one line.
    pub cause: String,
}
