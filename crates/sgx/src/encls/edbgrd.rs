//! EDBGRD: reads a word of a debug enclave's page into RBX, whatever the page's
//! permissions (*SDM vol. 3D, EDBGRD*): 8 bytes in 64-bit mode, else 4.
//!
//! Of a version array it only tells whether the slot is in use, by all ones. The SDM
//! does not look at the three low bits of a slot for that; versions here begin at 1 and
//! use them, so every bit counts.

use arch::regs::gpr;
use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secs, Status, Tcs};

use crate::claim::{Lane, Mode};
use crate::epcm::EpcPage;
use crate::leaf::{Done, Leaf, Ran};
use crate::package::Package;
use crate::port::Access;
use crate::rule::{Stop, rules};

rules! { EDBGRD {
    ALIGNED: Gp, "RCX is aligned to 8 bytes in 64-bit mode, else to 4";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf changes the page's entry";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_TYPE: Pf, "the page is a regular one, a TCS or a version array";
    DEBUGGABLE: (Status::PageNotDebuggable), "the page is neither PENDING nor MODIFIED";
    IN_TCS: Gp, "in a TCS, the word is one of its fields";
    DEBUG_ENCLAVE: Gp, "the page's enclave is a debug enclave";
}}

/// SGX_TCS_LIMIT: the end of a TCS's fields. Those of CET, which no model has, would be next.
const TCS_LIMIT: usize = std::mem::offset_of!(Tcs, ocetssa);

/// Bytes of a word: it is that of the mode.
pub(super) fn word_size(leaf: &Leaf<'_>) -> usize {
    if leaf.port.control().long64 { 8 } else { 4 }
}

/// True if the enclave of `secs` is a debug enclave.
pub(super) fn is_debug(package: &Package, secs: EpcPage) -> Result<bool, Stop> {
    let Secs { attributes, .. } = package.read(secs, 0)?;
    Ok(attributes.flags.contains(AttributeFlags::DEBUG))
}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let size = word_size(leaf);
    let la = leaf.port.linear(leaf.rcx(), size as u64)?;
    ALIGNED.check(la.is_multiple_of(size as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Read)?, la)?;
    let value = word(leaf.package, page, la, size)?;
    leaf.port.set_gpr(gpr::RBX, value);
    Ok(Done::Success)
}

/// The aligned word of `size` bytes, 8 or 4, at linear address `la`, which leads to `page`.
pub(crate) fn word(package: &Package, page: EpcPage, la: u64, size: usize) -> Result<u64, Stop> {
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = package.epcm.get(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    let readable = matches!(entry.page_type, PageType::Reg | PageType::Tcs | PageType::Va);
    PAGE_TYPE.check_at(readable, la)?;
    DEBUGGABLE.check(!entry.unaccepted())?;
    let offset = la as usize % PAGE_SIZE;
    IN_TCS.check(entry.page_type != PageType::Tcs || offset < TCS_LIMIT)?;

    let ones = u64::MAX >> (64 - 8 * size);
    if entry.page_type == PageType::Va {
        let slot: u64 = package.read(page, offset & !7)?;
        return Ok(if slot == 0 { 0 } else { ones });
    }
    DEBUG_ENCLAVE.check(is_debug(package, entry.secs)?)?;
    let mut word = [0; 8];
    package.dram.read(page.0, offset, &mut word[..size])?;
    Ok(u64::from_le_bytes(word))
}
