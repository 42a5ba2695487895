//! Enclaves as files: from a program that the compiler made to a signed enclave that a
//! processor takes, and from anybody's files back to what they are.
//!
//! ```text
//! ELF file ──elf──▶ Program ──layout──▶ sgxs::Enclave ──write──▶ NAME.sgxs
//!                     Config ───────────────┤ measure
//!                                           ▼
//!                                  sigstruct::Statement ──sign──▶ NAME.sig
//! ```
//!
//! * [`config`]: what an enclave's author chooses
//! * [`elf`]: the program, checked
//! * [`layout`]: its pages, with heap and threads
//! * [`encrypt`]: the same with the program as ciphertext, and a loader in clear
//! * [`sgxs`]: the stream of pages that is measured and loaded
//! * [`sigstruct`], [`key`]: what the signer says of it, in one step or two
//! * [`inspect`]: what a stream or SIGSTRUCT is, and what to beware of
//!
//! Every file may come from anybody: what is read is checked, and what is wrong is told
//! in one line.
#![forbid(unsafe_code)]

pub mod config;
pub mod elf;
pub mod encrypt;
pub mod inspect;
pub mod key;
pub mod layout;
pub mod sgxs;
pub mod sigstruct;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::Config;
pub use encrypt::CodeKey;
pub use key::{PublicKey, SigningKey};
pub use sgxs::Enclave;
pub use sigstruct::Statement;
