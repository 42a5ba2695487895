//! Memory management: from linear addresses to host memory and devices.
//!
//! * [`walk`]: paging structures
//! * [`tlb`]: the software TLB
//! * `fill`: the one place where a translation is formed
//! * `reach`: the fast and the full way of handlers to memory
//! * [`access`]: loads, stores and atomic updates at linear addresses

pub mod access;
mod fill;
pub(crate) mod reach;
pub mod tlb;
pub mod walk;
