//! ERDINFO: tells type and state of an EPC page, with which a monitor that takes pages
//! from its guests begins (*SDM vol. 3D, ERDINFO*). RBX is an RDINFO to be written, RCX
//! the page.
//!
//! ENCLAVECONTEXT is what ECREATE and the ELD leaves note in a SECS: its physical
//! address. As no model has the leaves that change it, it is worked out here. For the
//! same reason there are no virtual children.

use sgx_abi::{PAGE_SIZE, PageType, Rdinfo, RdinfoStatus, Status};
use zerocopy::IntoBytes;

use super::paging::secinfo;
use crate::claim::{Lane, Mode};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { ERDINFO {
    RDINFO_ALIGNED: Gp, "RDINFO is aligned to 32 bytes";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: (carry Status::PgNonepc), "RCX leads to the EPC";
    PAGE_CLAIMED: (Status::EpcPageConflict), "no other leaf changes the page";
    PAGE_VALID: (carry Status::PgInvld), "the page is in use";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let to_la = leaf.port.linear(leaf.rbx(), Rdinfo::SIZE as u64)?;
    RDINFO_ALIGNED.check(to_la.is_multiple_of(Rdinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some(leaf.resolve(la, Access::Read)?)?;
    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check(entry.valid())?;

    let mut info = Rdinfo { flags: secinfo(&entry).flags.bits(), ..Rdinfo::default() };
    if entry.blocked() {
        info.flags |= Rdinfo::BLOCKED;
    }
    if entry.page_type != PageType::Va {
        info.enclavecontext = package.physical(entry.secs);
    }
    if entry.page_type == PageType::Secs {
        let children = package.enclaves.get(page).map_or(0, |enclave| enclave.with(|s| s.children));
        info.status.set(RdinfoStatus::CHLDPRESENT, children != 0);
    }
    leaf.port.write(to_la, info.as_bytes())?;
    Ok(Done::Success)
}
