//! Memory management: from linear addresses to host memory and devices.
//!
//! * [`walk`]: paging structures
//! * [`tlb`]: the software TLB
//! * `fill`: the one place where a translation is formed
//! * [`access`]: loads, stores and atomic updates at linear addresses

pub mod access;
mod fill;
pub mod tlb;
pub mod walk;
