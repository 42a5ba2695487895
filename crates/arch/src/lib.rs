//! x86-64 facts, as the Intel SDM states them: nothing here executes.
//!
//! * [`exception`]: vectors and the exception value every layer passes around
//! * [`regs`]: register numbers, RFLAGS, CR0, CR4, EFER, XCR0, DR6 and DR7 bits
//! * [`msr`]: numbers of model-specific registers
//! * [`descriptor`]: segment and gate descriptors
//! * [`paging`]: page-table entry bits and page-fault error codes
#![no_std]
#![forbid(unsafe_code)]

pub mod descriptor;
pub mod exception;
pub mod msr;
pub mod paging;
pub mod regs;

pub use exception::{Exception, Vector};
