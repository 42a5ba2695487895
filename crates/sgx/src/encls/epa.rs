//! EPA: makes an EPC page an empty version array (*SDM vol. 3D, EPA*).

use sgx_abi::{PAGE_SIZE, PageType};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EPA {
    OPERANDS: Gp, "RBX is PT_VA, and RCX the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf uses the page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset (on silicon, to a power transition)";
    PAGE_FREE: Pf, "the page is not in use";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let width = if leaf.port.control().long64 { u64::MAX } else { u64::from(u32::MAX) };
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    let is_va = leaf.rbx() & width == PageType::Va as u64;
    OPERANDS.check(is_va && la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!package.is_lost())?;
    PAGE_FREE.check_at(!leaf.entry(page).valid(), la)?;

    package.dram.zero(page.0)?;
    package.epcm.set(page, Entry { flags: Flags::VALID, page_type: PageType::Va, ..Entry::FREE });
    Ok(Done::Quiet)
}
