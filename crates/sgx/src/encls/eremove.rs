//! EREMOVE: frees an EPC page (*SDM vol. 3D, EREMOVE*).

use sgx_abi::{PAGE_SIZE, PageType, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EREMOVE {
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    NO_CHILDREN: (Status::ChildPresent), "no page in the EPC belongs to the SECS";
    NOT_ACTIVE: (Status::EnclaveAct), "no logical processor is inside the enclave";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let rcx = leaf.rcx();
    PAGE_ALIGNED.check(rcx.is_multiple_of(PAGE_SIZE as u64))?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Exclusive);
    let _claim = NO_CONFLICT.some(claim)?;

    let entry = leaf.entry(page);
    if !entry.valid() {
        return Ok(Done::Success);
    }
    match entry.page_type {
        PageType::Va => {}
        PageType::Secs => {
            let enclave = leaf.package.enclaves.get(page);
            let children = enclave.map_or(0, |enclave| enclave.with(|state| state.children));
            NO_CHILDREN.check(children == 0)?;
            leaf.package.enclaves.remove(page);
        }
        _ => {
            let enclave = leaf.package.enclaves.get(entry.secs);
            // An accepted trim has been given up by the enclave itself.
            let given_up = entry.page_type == PageType::Trim && !entry.flags.contains(Flags::MODIFIED);
            let inside = enclave.as_ref().map_or(0, |e| e.with(|state| state.tracking.inside()));
            NOT_ACTIVE.check(given_up || inside == 0)?;
            if let Some(enclave) = enclave {
                enclave.with(|state| state.children = state.children.saturating_sub(1));
            }
        }
    }
    leaf.package.epcm.set(page, Entry::FREE);
    leaf.package.dram.discard(page.0)?;
    Ok(Done::Success)
}
