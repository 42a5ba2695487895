//! AESM, Intel's *architectural enclave service manager*: programs with an enclave connect to
//! [`SOCKET`], send one request, and get one answer. Nothing of it is secret, and nothing of
//! it is trusted: who believes a quote verifies it.
//!
//! ```no_run
//! # fn quoter() -> Box<dyn aesm::Quoting> { unimplemented!() }
//! # fn main() -> Result<(), aesm::ListenError> {
//! let quoter: Box<dyn aesm::Quoting> = quoter();
//! let listener = aesm::listen(aesm::SOCKET.as_ref())?;
//! aesm::serve(&listener, &*quoter, &|what| eprintln!("{what}"));
//! # }
//! ```
//!
//! * [`request`], [`response`]: the messages
//! * [`frame`]: what they are on the stream
//! * [`Code`]: what a service says went wrong
//! * [`AttestationKeyId`], [`QeReportInfo`]: the structures within messages
//! * [`Quoting`]: what the service needs of a quoting enclave
//! * [`answer`]: the service, as a function from requests to responses
//! * [`listen`], [`serve`]: the daemon
//!
//! Intel's other services (EPID quotes, launch tokens, white lists) belong to platforms with
//! EPID or without flexible launch control. They are answered as Intel's service answers
//! where they are not installed: [`Code::SERVICE_UNAVAILABLE`], in the response that belongs
//! to the request.
#![forbid(unsafe_code)]

mod code;
pub mod frame;
mod key_id;
mod qe_report;
mod quoting;
pub mod request;
pub mod response;
mod server;
mod service;

pub use code::Code;
pub use key_id::{AttestationKeyId, INTEL_MRSIGNER};
pub use qe_report::{Challenge, QeReportInfo};
pub use quoting::{Failure, Initialized, Quoted, Quoting};
pub use server::{CLIENTS, ListenError, SOCKET, listen, serve};
pub use service::{answer, answer_bytes};
