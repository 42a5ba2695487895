//! MobileCoin's `mc-attestation-verifier` as a judge: it reads quote and collateral, evaluates
//! TCB and QE identity and verifies their signatures. Chains it leaves to whoever calls it;
//! here that is OpenSSL.

mod evidence;
mod openssl;

pub use evidence::{Opinion, advisories, judge};
pub use openssl::OpenSsl;
