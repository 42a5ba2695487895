//! What the architectural enclaves do for their host. Structures of the processor's cross as
//! their bytes: a REPORT has 432, a TARGETINFO 512.
//!
//! ```text
//! Quoting::create_key ────────────▶ sealed key             kept by the host
//! Quoting::bind_key(sealed key, PCE's TARGETINFO) ────▶ QE's REPORT, for the PCE
//! Certification::certify(QE's REPORT) ────────────────▶ the PCK key's signature
//! Quoting::quote(REPORT, sealed key, certification) ──▶ quote
//! ```
#![no_std]

extern crate alloc;

use alloc::vec::Vec;
use core::fmt;
use enclave_interface::{Deserialize, Serialize, interface};

/// Why an architectural enclave does not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub enum Refusal {
    /// The bytes are not a REPORT.
    NoReport,
    /// The bytes are not a TARGETINFO.
    NoTarget,
    /// The report's MAC does not verify: it was made for another enclave, on another
    /// processor, or changed.
    Report,
    /// The report is not the platform's quoting enclave's.
    NotQuotingEnclave,
    /// The attestation key was sealed by another enclave or on another processor, or changed.
    Key,
    /// The attestation key is of an earlier security version: whoever broke that may know it.
    Outdated,
    /// The certification is too long for a quote.
    TooLong,
    /// The attestation key is of a later security version: this processor has no key for it.
    Later,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoReport => "a REPORT has 432 bytes: give it as EREPORT made it",
            Self::NoTarget => "a TARGETINFO has 512 bytes, and reserved fields that are zero",
            Self::Report => {
                "the report was not made for this enclave on this processor, or was changed: make it with this \
                 enclave's TARGETINFO, since this machine was started"
            }
            Self::NotQuotingEnclave => "the report is not this platform's quoting enclave's",
            Self::Key => "the attestation key is of another enclave or processor, or was changed",
            Self::Outdated => "the attestation key is of an earlier security version",
            Self::TooLong => "the certification is too long for a quote",
            Self::Later => "the attestation key is of a later security version",
        })
    }
}

impl core::error::Error for Refusal {}

/// The provisioning-certification enclave (PCE): it has the PCK key, and signs reports of the
/// quoting enclave with it.
#[interface]
pub trait Certification {
    /// TARGETINFO for reports to this enclave.
    fn target_info(&self) -> Vec<u8>;
    /// The public PCK key of this processor's security version: x and y.
    fn pck_key(&self) -> Vec<u8>;
    /// The PCK key's signature, r and s, of the body of a report that the platform's quoting
    /// enclave has made for this one.
    fn certify(&self, report: &[u8]) -> Result<Vec<u8>, Refusal>;
}

/// An attestation key that the quoting enclave's report binds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Bound {
    /// The public key: x and y.
    pub key: Vec<u8>,
    /// The quoting enclave's REPORT, for the provisioning-certification enclave.
    pub report: Vec<u8>,
}

/// What else whoever asked for a quote wants: that the quoting enclave vouches for it, so that
/// nobody on the way can exchange it (`sgx_ql_qe_report_info_t`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct ReceiptFor {
    /// A number of theirs.
    pub nonce: [u8; 16],
    /// TARGETINFO of the enclave that verifies the receipt.
    pub target_info: Vec<u8>,
}

/// A quote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(crate = "enclave_interface::serde")]
pub struct Quoted {
    /// The quote, version 3.
    pub quote: Vec<u8>,
    /// The quoting enclave's REPORT, if one was asked for: its REPORTDATA is the SHA-256 of
    /// nonce and quote, and 32 zeros.
    pub receipt: Option<Vec<u8>>,
}

/// The quoting enclave (QE): it makes quotes of reports.
#[interface]
pub trait Quoting {
    /// TARGETINFO for reports to this enclave.
    fn target_info(&self) -> Vec<u8>;
    /// What the platform is to this enclave, as quotes name it (QE_ID). It depends on the
    /// owner epoch, so that the next owner's is another.
    fn platform_id(&self) -> [u8; 16];
    /// Makes an attestation key; what the host keeps of it.
    fn create_key(&self) -> Vec<u8>;
    /// A report that binds a sealed attestation key, for the enclave with this TARGETINFO.
    fn bind_key(&self, sealed: &[u8], certifier: &[u8]) -> Result<Bound, Refusal>;
    /// A quote of an enclave's report, with what follows the attestation key in it.
    fn quote(
        &self,
        report: &[u8],
        sealed: &[u8],
        certification: &[u8],
        receipt: Option<ReceiptFor>,
    ) -> Result<Quoted, Refusal>;
}
