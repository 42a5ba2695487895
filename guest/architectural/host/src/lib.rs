//! Quotes of enclaves on this machine, by its architectural enclaves: for programs in the
//! guest. Nothing here is trusted; whoever controls it can deny quotes, and no more.
//!
//! * [`Quoter`]: target information and quotes
//! * [`Provisioned`]: the files that a machine is born with
//!
//! ```no_run
//! use quoting::{Provisioned, Quoter, ATTESTATION_KEY};
//!
//! # fn report_of_an_enclave(target: &sgx_abi::Targetinfo) -> sgx_abi::Report { todo!() }
//! let quoter = Quoter::open(&Provisioned::default(), ATTESTATION_KEY.as_ref())?;
//! let report = report_of_an_enclave(quoter.target_info());
//! let quote = quoter.quote(&report)?;
//! # Ok::<(), quoting::QuotingError>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod provisioned;
mod quoter;

pub use architectural_interface::Refusal;
pub use error::QuotingError;
pub use provisioned::{Certifier, FOLDER, Provisioned};
pub use quoter::{Quoter, Receipt};

/// Where the sealed attestation key is kept, unless somebody says otherwise.
pub const ATTESTATION_KEY: &str = "/var/lib/kluis/attestation-key";
