//! EWB: evicts a page from the EPC to ordinary memory, encrypted, its version
//! kept in a version array (*SDM vol. 3D, EWB*).

use arch::regs::{gpr, rflags};
use sgx_abi::{PAGE_SIZE, PageType, Pageinfo, Pcmd, Secs, Status};
use zerocopy::{FromZeros, IntoBytes};
use zeroize::Zeroizing;

use super::paging::{Header, seal, secinfo};
use crate::claim::{Lane, Mode};
use crate::epcm::Entry;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EWB {
    PAGEINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SLOT_ALIGNED: Gp, "DS:RDX is aligned to 8 bytes";
    SLOT_IN_EPC: Pf, "DS:RDX leads to the EPC";
    DIFFERENT_PAGES: Gp, "the page and the version array's slot are in different pages";
    FIELDS_ZERO: Gp, "PAGEINFO.LINADDR and SECS are zero";
    OPERANDS_ALIGNED: Gp, "PCMD is aligned to 128 bytes and SRCPGE to 4096";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    SLOT_NO_CONFLICT: Gp, "no other leaf changes the version array";
    PAGE_VALID: Pf, "the EPC page is in use";
    SLOT_VALID: Pf, "DS:RDX is in a valid version array";
    BLOCKED: (Status::PageNotBlocked), "a page of an enclave is BLOCKED";
    TRACKED: (Status::NotTracked), "no processor can hold a translation of the page";
    NO_CHILDREN: (Status::ChildPresent), "no page in the EPC belongs to an evicted SECS";
}}

/// Executes the leaf. An occupied slot is overwritten and told by RAX with CF.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx, rdx) = (leaf.rbx(), leaf.rcx(), leaf.port.gpr(gpr::RDX));
    PAGEINFO_ALIGNED.check(rbx % Pageinfo::ALIGN == 0)?;
    PAGE_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    SLOT_ALIGNED.check(rdx % 8 == 0)?;
    let slot_la = leaf.port.linear(rdx, 8)?;
    let array = leaf.resolve(slot_la, Access::Write)?;
    let array = SLOT_IN_EPC.some_at(array, slot_la)?;
    DIFFERENT_PAGES.check(page != array)?;
    let info_la = leaf.port.linear(rbx, Pageinfo::SIZE as u64)?;
    let mut info: Pageinfo = leaf.load(info_la)?;
    FIELDS_ZERO.check(info.linaddr == 0 && info.secs == 0)?;
    let aligned = info.secinfo.is_multiple_of(Pcmd::ALIGN) && info.srcpge.is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(aligned)?;
    let pcmd_la = leaf.port.linear(info.secinfo, Pcmd::SIZE as u64)?;
    let to_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;

    let claims = &leaf.package.claims;
    let _page = NO_CONFLICT.some(claims.claim(page, Lane::Base, Mode::Exclusive))?;
    let _array = SLOT_NO_CONFLICT.some(claims.claim(array, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    SLOT_VALID.check_at(leaf.entry(array).is(PageType::Va), slot_la)?;

    let enclave = match entry.page_type {
        PageType::Secs => leaf.package.enclaves.get(page),
        PageType::Va => None,
        _ => leaf.package.enclaves.get(entry.secs),
    };
    let mut header = Header::new(secinfo(&entry), entry.address, 0);
    let mut pcmd = Pcmd::new_zeroed();
    match entry.page_type {
        PageType::Va => {}
        PageType::Secs => {
            let children = enclave.as_ref().map_or(0, |e| e.with(|state| state.children));
            NO_CHILDREN.check(children == 0)?;
            pcmd.enclaveid = leaf.package.read::<Secs>(page, 0)?.private.eid;
        }
        _ => {
            BLOCKED.check(entry.blocked())?;
            let tracked = |e: &crate::enclave::Enclave| e.with(|s| s.tracking.tracked_since(entry.epoch));
            TRACKED.check(enclave.as_deref().is_none_or(tracked))?;
            header.eid = leaf.package.read::<Secs>(entry.secs, 0)?.private.eid;
            pcmd.enclaveid = header.eid;
        }
    }

    let version = leaf.package.new_version();
    let mut content: Zeroizing<[u8; PAGE_SIZE]> = Zeroizing::new(leaf.package.read(page, 0)?);
    let mac = leaf.package.with_secrets(|s| seal(&s.paging_key, version, &header, &mut content));
    pcmd.secinfo = header.secinfo;
    pcmd.mac = mac;
    info.linaddr = entry.address;
    leaf.port.write(to_la, &content[..])?;
    leaf.port.write(pcmd_la, pcmd.as_bytes())?;
    leaf.port.write(info_la, info.as_bytes())?;

    let at = (slot_la % PAGE_SIZE as u64) as usize;
    let before: u64 = leaf.package.read(array, at)?;
    leaf.package.write(array, at, &version)?;
    match (entry.page_type, enclave) {
        (PageType::Secs, _) => leaf.package.enclaves.remove(page),
        (_, Some(enclave)) => enclave.with(|state| state.children = state.children.saturating_sub(1)),
        _ => {}
    }
    leaf.package.epcm.set(page, Entry::FREE);
    leaf.package.dram.discard(page.0)?;
    let occupied = Done::Code(Status::VaSlotOccupied, rflags::CF);
    Ok(if before == 0 { Done::Success } else { occupied })
}
