//! EBLOCK: keeps new translations of a page from being made, the first step of its
//! eviction (*SDM vol. 3D, EBLOCK*). RCX is the page.
//!
//! A page that need not or cannot be blocked is told by a code with CF. Shadow-stack
//! pages, which could be blocked too, do not occur: no model has CET.

use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EBLOCK {
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: (Status::EpcPageConflict), "no other leaf uses the page";
    PAGE_VALID: (Status::PgInvld), "the page is in use";
    NOT_SECS: (carry Status::PgIsSecs), "the page is no SECS";
    BLOCKABLE: (carry Status::Notblockable), "the page is of an enclave";
    EPOCH_UNLOCKED: (Status::EntryepochLocked), "no ETRACK is at work on the enclave";
    UNBLOCKED: (carry Status::Blkstate), "the page is not blocked yet";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check(entry.valid())?;
    NOT_SECS.check(entry.page_type != PageType::Secs)?;
    BLOCKABLE.check(matches!(entry.page_type, PageType::Reg | PageType::Tcs | PageType::Trim))?;
    // Its SECS can be gone only with the whole EPC.
    let enclave = PAGE_VALID.some(package.enclaves.get(entry.secs))?;
    EPOCH_UNLOCKED.check(!package.claims.is_exclusive(entry.secs, Lane::Track))?;

    // Epoch and entry in one step: an ETRACK in between would not track this page.
    let blocked = enclave.with(|state| {
        let mut blocked = false;
        package.epcm.update(page, |entry| {
            blocked = entry.valid() && !entry.blocked();
            if blocked {
                entry.flags.insert(Flags::BLOCKED);
                entry.epoch = state.tracking.epoch();
            }
        });
        blocked
    });
    UNBLOCKED.check(blocked)?;
    Ok(Done::Success)
}
