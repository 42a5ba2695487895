//! ETRACK and ETRACKC: begin a tracking cycle. It is complete when every processor that
//! is inside the enclave now has left it, and with that forgotten its translations; what
//! was blocked before may be evicted then (*SDM vol. 3D, ETRACK, ETRACKC*).
//!
//! RCX is the SECS; for ETRACKC it may be any page of the enclave, and conflicts are told
//! by codes. There is no virtual-machine monitor to tell of them by an exit.

use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::EpcPage;
use crate::leaf::{Done, Leaf, Ran};
use crate::package::Package;
use crate::port::Access;
use crate::rule::rules;

rules! { ETRACK {
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf changes the page";
    TRACKING_CLAIMED: Gp, "no other leaf uses the enclave's tracking";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_TYPE: Pf, "the page is a SECS";
    CYCLE_COMPLETE: (Status::PrevTrkIncmpl), "every processor has left that the previous cycle waits for";
}}

/// ETRACKC's table.
pub mod etrackc_rules {
    use super::Status;
    use crate::rule::rules;

    rules! { ETRACKC {
        PAGE_ALIGNED: Gp, "RCX is the address of a page";
        PAGE_IN_EPC: Pf, "RCX leads to the EPC";
        PAGE_CLAIMED: (Status::EpcPageConflict), "no other leaf changes the page";
        PAGE_VALID: (Status::PgInvld), "the page is in use";
        TRACKED: (carry Status::TrackNotRequired), "the page is a SECS or of an enclave";
        TRACKING_CLAIMED: (Status::EpcPageConflict), "no other leaf uses the enclave's tracking";
        CYCLE_COMPLETE: (Status::PrevTrkIncmpl), "every processor has left that the previous cycle waits for";
    }}
}

/// Runs ETRACK.
pub fn etrack(leaf: &mut Leaf<'_>) -> Ran {
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let _track = TRACKING_CLAIMED.some(package.claims.claim(page, Lane::Track, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    PAGE_TYPE.check_at(entry.page_type == PageType::Secs, la)?;
    CYCLE_COMPLETE.check(begin_cycle(package, page))?;
    Ok(Done::Success)
}

/// Runs ETRACKC.
pub fn etrackc(leaf: &mut Leaf<'_>) -> Ran {
    use etrackc_rules::*;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check(entry.valid())?;
    TRACKED.check(entry.page_type != PageType::Va)?;
    // Of a SECS that is its own number.
    let secs = entry.secs;
    let _track = TRACKING_CLAIMED.some(package.claims.claim(secs, Lane::Track, Mode::Exclusive))?;
    CYCLE_COMPLETE.check(begin_cycle(package, secs))?;
    Ok(Done::Success)
}

/// False if the previous cycle is not complete. Of an enclave that went with the whole
/// EPC there is nothing to wait for.
fn begin_cycle(package: &Package, secs: EpcPage) -> bool {
    package.enclaves.get(secs).is_none_or(|enclave| enclave.with(|state| state.tracking.begin_cycle()))
}
