//! How the quoting enclave tells the enclave that asked that a quote is its own.

use sgx_abi::{Report, Targetinfo};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the enclave that asks for a quote wants a report on, so that it need not believe the
/// program between (`sgx_ql_qe_report_info_t` without the report).
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Challenge {
    /// A number of the enclave's.
    pub nonce: [u8; 16],
    /// The enclave that asks.
    pub target: Targetinfo,
}

/// `sgx_ql_qe_report_info_t` of `sgx_ql_quote.h`, 960 bytes: a challenge, and room for the
/// quoting enclave's report, which a response fills in.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct QeReportInfo {
    /// What the report is asked with.
    pub challenge: Challenge,
    /// The quoting enclave's report.
    pub report: Report,
}

const _: () = assert!(size_of::<QeReportInfo>() == QeReportInfo::SIZE);

impl QeReportInfo {
    /// Its size in bytes.
    pub const SIZE: usize = 960;
}
