//! Page tables, four levels (*SDM vol. 3A, "4-Level Paging"*).

use mem::Ram;

use super::access::Access;
use crate::layout::*;
use crate::machine::get64;

/// Bits of a page-fault error code.
pub mod error {
    /// The page was present.
    pub const P: u32 = 1;
    /// A write.
    pub const W: u32 = 2;
    /// At CPL 3.
    pub const U: u32 = 4;
    /// A reserved bit was set.
    pub const RSVD: u32 = 8;
    /// A fetch.
    pub const I: u32 = 16;
    /// By the EPCM.
    pub const SGX: u32 = 1 << 15;
}

/// Physical address bits of the model.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Where addresses of the machine end; bits above that no table has by accident.
const PHYSICAL: u64 = 1 << 45;

/// The error code's bits that tell the kind of access.
pub fn kind_bits(access: Access, user: bool) -> u32 {
    let kind = match access {
        Access::Read => 0,
        Access::Write => error::W,
        Access::Fetch => error::I,
    };
    kind | if user { error::U } else { 0 }
}

/// The physical address of `la`, or the error code of the page fault.
pub fn walk(ram: &Ram, la: u64, access: Access, user: bool) -> Result<u64, u32> {
    let kind = kind_bits(access, user);
    let (mut table, mut shift) = (PML4, 39);
    let (mut all_user, mut all_write, mut any_nx) = (true, true, false);
    loop {
        let at = (table & ADDRESS) + (la >> shift & 511) * 8;
        // Abort-page semantics: tables in the EPC are all ones, and reserved bits are
        // among these (*SDM vol. 3D, "Access-control Requirements"*).
        let entry = match at {
            _ if at < RAM_BYTES => get64(ram, at),
            _ if (EPC..EPC + EPC_PAGES * PAGE).contains(&at) => u64::MAX,
            _ => 0,
        };
        if entry & 1 == 0 {
            return Err(kind);
        }
        let large = entry & 0x80 != 0;
        let leaf = shift == 12 || large && shift <= 30;
        let reserved = entry & ADDRESS >= PHYSICAL
            || large && shift == 39
            || leaf && shift > 12 && entry & ((1 << shift) - 1) & !0x1fff != 0;
        if reserved {
            return Err(kind | error::P | error::RSVD);
        }
        all_user &= entry & 4 != 0;
        all_write &= entry & 2 != 0;
        any_nx |= entry >> 63 != 0;
        if leaf {
            let refused = match access {
                _ if user && !all_user => true,
                Access::Read => false,
                Access::Write => !all_write,
                Access::Fetch => any_nx,
            };
            let mask = (1u64 << shift) - 1;
            return if refused { Err(kind | error::P) } else { Ok(entry & ADDRESS & !mask | la & mask) };
        }
        table = entry;
        shift -= 9;
    }
}
