//! TLS that ends inside an enclave, and a certificate that says which enclave that is.
//!
//! The host passes bytes; the key of the certificate is made inside and never leaves. What
//! a client verifies is a quote in the certificate, which binds that key (RA-TLS): with the
//! crate `ratls`, or with whatever else reads the interoperable format ([`evidence`]).
//!
//! ```
//! use enclave_tls::{Connection, Identity, Quotes};
//!
//! # fn quote_of(report_data: [u8; 64]) -> Vec<u8> {
//! #     let mut quote = vec![0; 500];
//! #     quote[368..432].copy_from_slice(&report_data);
//! #     quote
//! # }
//! # (|| -> Result<(), Box<dyn std::error::Error>> {
//! // inside, once: a key; its hash goes into a report, of which the host gets a quote
//! let identity = Identity::generate()?;
//! let quote = quote_of(identity.report_data());
//! let server = identity.with_quotes(Quotes::new(quote))?;
//!
//! // for each client: what came from the network goes in, what is to go there comes out
//! let mut connection: Connection = server.accept()?;
//! # let bytes_of_the_client = [];
//! connection.receive(&bytes_of_the_client)?;
//! let question = connection.take_received();
//! # if false {
//! connection.send(b"answer")?;
//! # }
//! let bytes_for_the_client = connection.take_outgoing();
//! # Ok(())
//! # })().unwrap();
//! ```
//!
//! * [`identity`]: the key, its report data, the certificate
//! * [`connection`]: a client's connection
//! * [`evidence`]: what stands in the certificate, written and read; [`cbor`] below it
//! * [`provider`]: the algorithms
//!
//! **What it speaks**: TLS 1.3 with `TLS_AES_128_GCM_SHA256`, P-256 and ECDSA, which every
//! implementation has (*RFC 8446 §9.1*). No resumption, no early data, no certificates of
//! clients.
//!
//! **What it does not do.** Time inside an enclave is the host's word, so nothing here looks
//! at a clock: the certificate has no end of its own, and clients judge by their collateral
//! how old a platform may be. The host sees lengths and times, and can cut a connection: only
//! [`Connection::is_ended`] says that a client's data is all of it.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod cbor;
mod certificate;
pub mod connection;
pub mod evidence;
pub mod identity;
pub mod provider;

pub use connection::{Connection, Server, TlsError};
pub use identity::{Identity, IdentityError, Quotes};
