//! What the two programs that run inside an enclave share: the runtime (crate `enclave`)
//! and the loader of encrypted enclaves (crate `enclave-loader`). Neither heap nor threads
//! are asked for.
//!
//! * [`leaf`]: what the processor does for an enclave (ENCLU)
//! * [`outside`]: copies from and to the host's memory
//! * [`sealing`]: the key and form of what is sealed
//! * [`random`]: numbers by RDRAND
//! * [`cipher`]: how programs are encrypted; the tool that does it uses the same
//! * [`memory_functions`]: what compiled code calls without being asked
//!
//! It is for those two crates: what authors of enclaves use is in `enclave`.
#![no_std]

pub mod cipher;
pub mod leaf;
mod memory;
pub mod outside;
pub mod random;
pub mod sealing;
