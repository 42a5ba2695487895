//! Loads enclaves through Linux's SGX driver, on silicon or in a Kluis machine, and calls
//! them.
//!
//! ```no_run
//! use enclave_host::{Enclave, Files, Options};
//! # use enclave_interface::interface;
//! # #[interface] pub trait Hello { fn greet(&self, name: &str) -> String; }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let enclave = Enclave::load(Files::read("hello.sgxs", "hello.sig")?, Options::new())?;
//! println!("{}", HelloClient(&enclave).greet("Ada")?);
//! # Ok(())
//! # }
//! ```
//!
//! * [`Enclave`]: an enclave and its threads
//! * [`Files`]: the two files that an enclave is
//! * [`KeySource`], [`KeyFile`]: the key of one whose program is encrypted
//! * [`Error`]: all that can go wrong, faults inside included
//! * [`transport`]: requests and responses, for hosts that serve others
//! * [`driver`], [`vdso`]: what the kernel offers, for programs with needs of their own
//!
//! The enclave decides what it believes of its host; a host, in turn, decodes what an
//! enclave says as it would a stranger's message.

mod diagnosis;
pub mod driver;
mod enclave;
mod error;
mod files;
mod keys;
mod mailbox;
mod park;
mod thread;
pub mod vdso;

pub use enclave::{Enclave, Options};
pub use enclave_interface as interface;
pub use enclave_transport as transport;
pub use error::{Error, Fault, LoadError};
pub use files::Files;
pub use keys::{Key, KeyFile, KeySource};
