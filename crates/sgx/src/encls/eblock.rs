//! EBLOCK: keeps new translations of a page from being made (*SDM vol. 3D, EBLOCK*).

use arch::regs::rflags;
use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EBLOCK {
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: (Status::EpcPageConflict), "no other leaf uses the EPC page";
    PAGE_VALID: (Status::PgInvld), "the EPC page is in use";
}}

/// Executes the leaf. A page that cannot be blocked, or is blocked already, is
/// told by RAX with CF, not ZF.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let rcx = leaf.rcx();
    PAGE_ALIGNED.check(rcx.is_multiple_of(PAGE_SIZE as u64))?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Shared);
    let _claim = NO_CONFLICT.some(claim)?;
    let entry = leaf.entry(page);
    PAGE_VALID.check(entry.valid())?;
    match entry.page_type {
        PageType::Secs => return Ok(Done::Code(Status::PgIsSecs, rflags::CF)),
        PageType::Va => return Ok(Done::Code(Status::Notblockable, rflags::CF)),
        _ if entry.blocked() => return Ok(Done::Code(Status::Blkstate, rflags::CF)),
        _ => {}
    }
    let enclave = leaf.package.enclaves.get(entry.secs);
    let epoch = enclave.map_or(0, |enclave| enclave.with(|state| state.tracking.epoch()));
    leaf.package.epcm.update(page, |entry| {
        entry.flags.insert(Flags::BLOCKED);
        entry.epoch = epoch;
    });
    Ok(Done::Success)
}
