//! Collateral: what the manufacturer says of its platforms and signs anew every month.
//!
//! *Intel SGX and TDX Provisioning Certification Service API, version 4.*

mod bundle;
mod qe_identity;
mod signed;
mod status;
mod tcb_info;

pub use bundle::{Collateral, MAX_BUNDLE_SIZE};
pub use qe_identity::{QeIdentity, QeSvn, QeTcbLevel};
pub use signed::{MAX_DOCUMENT_SIZE, Signed};
pub use status::TcbStatus;
pub use tcb_info::{Component, Tcb, TcbInfo, TcbLevel};
