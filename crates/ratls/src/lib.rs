//! Clients of enclaves: TLS whose server is believed for the quote in its certificate
//! (RA-TLS), and for nothing else.
//!
//! No authority has signed the certificate; its own key has. What is verified is the quote
//! in it, down to a root that the caller trusts, by [`dcap`]; that the quote binds the
//! certificate's key; and that the enclave is the one of the caller's [`Policy`].
//!
//! ```no_run
//! use ratls::{Collateral, Policy, Root, Verifier, client_config};
//! use rustls::{ClientConnection, StreamOwned};
//! use std::net::TcpStream;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let collateral = Collateral::from_json(&std::fs::read_to_string("collateral.json")?)?;
//! let policy = Policy::from_json(&std::fs::read_to_string("policy.json")?)?;
//! let config = client_config(Verifier::new(Root::intel(), collateral, policy));
//!
//! // the name is not looked at: an enclave is known by what it is, not by where
//! let connection = ClientConnection::new(config.into(), "enclave".try_into()?)?;
//! let stream = StreamOwned::new(connection, TcpStream::connect("enclave.example:443")?);
//! # drop(stream);
//! # Ok(())
//! # }
//! ```
//!
//! * [`verifier`]: the verifier, for `rustls` and for certificates in files
//! * [`certificate`]: what is read of a certificate
//! * [`shown`]: what a server shows, taken without believing it
//! * [`refusal`]: which rule was broken
//!
//! Both formats are known, the interoperable one and Gramine's older one
//! ([`enclave_tls::evidence`]). A certificate with the first is judged by the first.
#![forbid(unsafe_code)]

pub mod certificate;
pub mod refusal;
pub mod shown;
pub mod verifier;

pub use dcap::{Collateral, Policy, Root, Time};
pub use refusal::{Refusal, Rule, refusal_of};
pub use shown::{NotShown, evidence_of};
pub use verifier::{Attested, Verifier, client_config};
