//! EPA: makes an EPC page a version array (*SDM vol. 3D, EPA*).

use arch::regs::gpr;
use sgx_abi::{PAGE_SIZE, PageType};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EPA {
    TYPE_VA: Gp, "RBX is PT_VA";
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset";
    PAGE_FREE: Pf, "the EPC page is not in use";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    TYPE_VA.check(leaf.port.gpr(gpr::RBX) == u64::from(PageType::Va as u8))?;
    let rcx = leaf.rcx();
    PAGE_ALIGNED.check(rcx.is_multiple_of(PAGE_SIZE as u64))?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Exclusive);
    let _claim = NO_CONFLICT.some(claim)?;
    EPC_PRESENT.check(!leaf.package.is_lost())?;
    PAGE_FREE.check_at(!leaf.entry(page).valid(), la)?;
    leaf.package.dram.zero(page.0)?;
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Va, ..Entry::FREE };
    leaf.package.epcm.set(page, entry);
    Ok(Done::Quiet)
}
