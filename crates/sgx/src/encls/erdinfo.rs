//! ERDINFO: tells what the EPCM has of a page (*SDM vol. 3D, ERDINFO*).

use sgx_abi::{PAGE_SIZE, PageType, Rdinfo, RdinfoStatus, Secs, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::paging::secinfo;
use crate::claim::{Lane, Mode};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { ERDINFO {
    RDINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: (Status::PgNonepc), "DS:RCX leads to the EPC";
    NO_CONFLICT: (Status::EpcPageConflict), "no other leaf excludes ERDINFO from the page";
    PAGE_VALID: (Status::PgInvld), "the EPC page is in use";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx) = (leaf.rbx(), leaf.rcx());
    RDINFO_ALIGNED.check(rbx % Rdinfo::ALIGN == 0)?;
    PAGE_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    let to_la = leaf.port.linear(rbx, Rdinfo::SIZE as u64)?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Read)?;
    let page = PAGE_IN_EPC.some(page)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Shared);
    let _claim = NO_CONFLICT.some(claim)?;
    let entry = leaf.entry(page);
    PAGE_VALID.check(entry.valid())?;

    let mut info = Rdinfo::new_zeroed();
    info.flags = secinfo(&entry).flags.bits();
    if entry.blocked() {
        info.flags |= Rdinfo::BLOCKED;
    }
    let secs = match entry.page_type {
        PageType::Va => None,
        PageType::Secs => Some(page),
        _ => Some(entry.secs),
    };
    if let Some(secs) = secs {
        info.enclavecontext = leaf.package.read::<Secs>(secs, 0)?.private.enclavecontext;
    }
    if entry.page_type == PageType::Secs {
        let enclave = leaf.package.enclaves.get(page);
        let children = enclave.map_or(0, |enclave| enclave.with(|state| state.children));
        info.status.set(RdinfoStatus::CHLDPRESENT, children != 0);
    }
    leaf.port.write(to_la, info.as_bytes())?;
    Ok(Done::Success)
}
