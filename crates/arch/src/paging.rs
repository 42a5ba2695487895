//! Page-table entry bits and page-fault error codes (*SDM vol. 3A §4.3–4.5, §4.7*).
#![allow(missing_docs)]

/// Bits of entries of every level and mode of paging.
pub mod pte {
    pub const P: u64 = 1 << 0;
    pub const W: u64 = 1 << 1;
    pub const U: u64 = 1 << 2;
    pub const PWT: u64 = 1 << 3;
    pub const PCD: u64 = 1 << 4;
    pub const A: u64 = 1 << 5;
    pub const D: u64 = 1 << 6;
    /// Page size, in a PDE or PDPTE.
    pub const PS: u64 = 1 << 7;
    pub const G: u64 = 1 << 8;
    pub const NX: u64 = 1 << 63;
}

/// Page-fault error code bits.
pub mod pf {
    /// The fault was a protection violation, not a missing translation.
    pub const P: u32 = 1 << 0;
    pub const W: u32 = 1 << 1;
    pub const U: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const I: u32 = 1 << 4;
    pub const PK: u32 = 1 << 5;
    pub const SGX: u32 = 1 << 15;
}

/// Bytes of the smallest page.
pub const PAGE_SIZE: u64 = 4096;
/// `address & PAGE_MASK` is the page's first byte.
pub const PAGE_MASK: u64 = !(PAGE_SIZE - 1);

/// True if a 48-bit linear address is canonical (*SDM vol. 1 §3.3.7.1*).
#[inline]
pub const fn is_canonical(address: u64) -> bool {
    (address.wrapping_add(1 << 47)) >> 48 == 0
}
