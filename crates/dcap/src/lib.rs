//! DCAP attestation: quotes of enclaves, and the certificates and collateral by which
//! somebody far away believes them. Parsed, verified and made.
//!
//! * [`quote`]: quotes of versions 3, 4 and 5
//! * [`pki`]: certificates, revocation lists, the SGX extension, the trusted root
//! * [`collateral`]: TCB info, QE identity, and what comes with them
//! * [`verify`](mod@verify): from bytes, root and time to a verdict
//! * [`policy`]: what a verifier asks of a verdict
//! * [`issue`]: the same things, made by a platform that is its own manufacturer
//! * [`error`]: which field broke which rule
//! * [`key`], [`time`], [`hex`]: what they are made of
//!
//! Nothing here opens a file, asks a clock or draws a random number; what is read may come
//! from anybody, and is refused with its field and rule if it is not as it should be.
//! `docs/quotes.md` has the rules with their sources.
#![forbid(unsafe_code)]

pub mod collateral;
pub mod error;
pub mod hex;
pub mod issue;
pub mod key;
pub mod pki;
pub mod policy;
pub mod quote;
mod reader;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod verify;

pub use collateral::{Collateral, TcbStatus};
pub use error::{Class, Refusal, Rule};
pub use pki::Root;
pub use policy::Policy;
pub use quote::Quote;
pub use time::Time;
pub use verify::{Trusted, Verdict, verify};
