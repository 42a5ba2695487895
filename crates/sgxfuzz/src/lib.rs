//! A model-based fuzzer of SGX: a hostile kernel drives the real processor with
//! random leaves, page-table edits and accesses; a reference model written from the
//! SDM says who may see what; secrets of enclaves must never reach memory outside,
//! registers after an exit, devices or the debugger. See `docs/sgxfuzz.md`.
//!
//! * [`fuzz`]: a run, and what it looks at after every step
//! * [`step`]: what may happen; `generate`, `plans`, `dynamic`, `attacks`: what is chosen
//! * `execute`, `kernel`, `tamper`, `memory`, `entry`, `inside`: steps carried out; `outcome`: compared
//! * [`model`]: the reference model, independent of the crates it judges
//! * [`machine`], `tables`, [`layout`], [`template`]: the guest
//! * [`secret`]: secrets, and how they are found
//! * `planted`: bugs to be found, in builds with that feature
#![forbid(unsafe_code)]

mod attacks;
mod dynamic;
mod entry;
mod execute;
pub mod fuzz;
mod generate;
mod inside;
mod kernel;
pub mod layout;
pub mod machine;
mod memory;
pub mod model;
mod outcome;
mod plans;
#[cfg(feature = "planted")]
pub mod planted;
pub mod secret;
pub mod step;
mod tables;
mod tamper;
pub mod template;

pub use fuzz::{Counts, Failure, Fuzz};
