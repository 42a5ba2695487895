//! EREMOVE: frees an EPC page (*SDM vol. 3D, EREMOVE*).
//!
//! The SDM's text leaves a trimmed and accepted page as it is in its first branch and
//! frees it in the next; it is freed here, which is what drivers rely on. A page that is
//! not in use, and every page of a lost EPC, is removed without more.

use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, EpcPage, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::package::Package;
use crate::port::Access;
use crate::rule::rules;

rules! { EREMOVE {
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf uses the page";
    CHILDLESS: (Status::ChildPresent), "no page in the EPC belongs to a SECS";
    INACTIVE: (Status::EnclaveAct), "no processor is inside the enclave, unless the page is trimmed and accepted";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Exclusive))?;

    if package.is_lost() {
        // The engine may have found that out by itself; no page is valid from then on.
        package.lose();
    }
    let entry = leaf.entry(page);
    if !entry.valid() {
        return Ok(Done::Success);
    }
    match entry.page_type {
        PageType::Va => free(package, page),
        PageType::Secs => {
            let children = package.enclaves.get(page).map_or(0, |enclave| enclave.with(|s| s.children));
            CHILDLESS.check(children == 0)?;
            package.enclaves.remove(page);
            free(package, page);
        }
        _ => {
            let given_up = entry.page_type == PageType::Trim && !entry.flags.contains(Flags::MODIFIED);
            let freed = match package.enclaves.get(entry.secs) {
                // In one step with what entries count, lest one get a translation of it.
                Some(enclave) => enclave.with(|state| {
                    let may = given_up || state.tracking.inside() == 0;
                    if may {
                        free(package, page);
                        state.children = state.children.saturating_sub(1);
                    }
                    may
                }),
                // Its SECS can be gone only with the whole EPC.
                None => {
                    free(package, page);
                    true
                }
            };
            INACTIVE.check(freed)?;
        }
    }
    // If the EPC is lost just now, there is nothing to give up, and the page is free.
    if package.dram.discard(page.0).is_err() {
        package.lose();
    }
    Ok(Done::Success)
}

fn free(package: &Package, page: EpcPage) {
    package.epcm.set(page, Entry::FREE);
}
