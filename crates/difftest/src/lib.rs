//! Differential tests: every implemented user-mode instruction is executed by
//! the host processor and by Kluis's interpreter from the same random states.
//!
//! * [`forms`]: which instructions; [`mod@encode`]: their encodings; [`case`]: the states
//! * [`native`]: the host's side; [`kluis`]: Kluis's side
//! * [`compare`], [`differences`]: what is compared, and what processors may differ in
//! * [`soft`]: a second judge for floating point; [`plant`]: proof that bugs are found
//! * [`tester`], [`campaign`]: one form, all forms

pub mod area;
pub mod campaign;
pub mod case;
pub mod compare;
pub mod differences;
pub mod encode;
pub mod forms;
pub mod kluis;
pub mod native;
pub mod place;
pub mod plant;
pub mod rng;
pub mod snapshot;
pub mod soft;
pub mod tester;
