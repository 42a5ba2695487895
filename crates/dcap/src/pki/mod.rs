//! The public key infrastructure behind quotes: *Intel SGX PCK Certificate and CRL Profile
//! Specification*, on *RFC 5280*.

mod certificate;
mod crl;
mod pem;
mod root;
mod sgx_extension;

pub use certificate::{Certificate, PckAuthority, Role};
pub use crl::Crl;
pub use pem::{MAX_CHAIN_SIZE, certificates_from_pem, crl_to_pem, to_pem};
pub use root::Root;
pub use sgx_extension::{PckExtension, PckTcb, PlatformConfiguration, SgxType};

pub(crate) use sgx_extension::SGX_EXTENSION;
