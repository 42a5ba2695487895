//! ETRACK and ETRACKC: begin a tracking cycle, after which pages blocked before
//! may be evicted (*SDM vol. 3D, ETRACK, ETRACKC*).

use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::EpcPage;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::{Rule, rules};

rules! { ETRACK {
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the enclave's tracking";
    SECS_VALID: Pf, "DS:RCX is a valid SECS";
    CYCLE_COMPLETE: (Status::PrevTrkIncmpl), "the previous cycle is complete";
}}

/// Rules that ETRACKC has instead.
pub mod etrackc_rules {
    use super::Status;
    use crate::rule::rules;

    rules! { ETRACKC {
        PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
        PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
        PAGE_NO_CONFLICT: (Status::EpcPageConflict), "no other leaf excludes ETRACKC from the page";
        PAGE_VALID: (Status::PgInvld), "the EPC page is in use";
        TRACKED_TYPE: (Status::TrackNotRequired), "pages of the type are tracked";
        NO_CONFLICT: (Status::EpcPageConflict), "no other leaf uses the enclave's tracking";
        CYCLE_COMPLETE: (Status::PrevTrkIncmpl), "the previous cycle is complete";
    }}
}

/// Executes ETRACK.
pub fn etrack(leaf: &mut Leaf<'_>) -> Ran {
    let rcx = leaf.rcx();
    PAGE_ALIGNED.check(rcx.is_multiple_of(PAGE_SIZE as u64))?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    let track = leaf.package.claims.claim(page, Lane::Track, Mode::Exclusive);
    let _track = NO_CONFLICT.some(track)?;
    SECS_VALID.check_at(leaf.entry(page).is(PageType::Secs), la)?;
    begin(leaf, page, &CYCLE_COMPLETE)
}

/// Executes ETRACKC: by any page of the enclave, and with codes for conflicts.
pub fn etrackc(leaf: &mut Leaf<'_>) -> Ran {
    use etrackc_rules as rule;
    let rcx = leaf.rcx();
    rule::PAGE_ALIGNED.check(rcx.is_multiple_of(PAGE_SIZE as u64))?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = rule::PAGE_IN_EPC.some_at(page, la)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Shared);
    let _claim = rule::PAGE_NO_CONFLICT.some(claim)?;
    let entry = leaf.entry(page);
    rule::PAGE_VALID.check(entry.valid())?;
    let secs = match entry.page_type {
        PageType::Secs => page,
        PageType::Va => return Err(crate::rule::Stop::Refused(&rule::TRACKED_TYPE, 0)),
        _ => entry.secs,
    };
    let track = leaf.package.claims.claim(secs, Lane::Track, Mode::Exclusive);
    let _track = rule::NO_CONFLICT.some(track)?;
    begin(leaf, secs, &rule::CYCLE_COMPLETE)
}

fn begin(leaf: &Leaf<'_>, secs: EpcPage, complete: &'static Rule) -> Ran {
    let enclave = leaf.package.enclaves.get(secs);
    complete.check(enclave.is_none_or(|enclave| enclave.with(|state| state.tracking.begin_cycle())))?;
    Ok(Done::Success)
}
