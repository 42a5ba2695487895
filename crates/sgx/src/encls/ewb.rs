//! EWB: writes a page of the EPC out to ordinary memory, encrypted, and frees it (*SDM
//! vol. 3D, EWB*). RBX is a PAGEINFO with the places for content and PCMD, RCX the page,
//! RDX the slot of a version array that keeps the version for the way back.
//!
//! A slot in use is overwritten; what it stood for cannot be loaded any more, which
//! SGX_VA_SLOT_OCCUPIED with CF tells. The SDM's "EBLOCK is not correct" cannot happen:
//! BLOCKED and its epoch change in one step. Shadow-stack pages do not occur: no model
//! has CET.

use arch::regs::rflags;
use sgx_abi::{PAGE_SIZE, PageType, Pageinfo, Pcmd, Secs, Status};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::paging::{Header, has_owner, seal, secinfo};
use crate::claim::{Lane, Mode};
use crate::enclave::State;
use crate::epcm::Entry;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EWB {
    PAGEINFO_ALIGNED: Gp, "PAGEINFO is aligned to 32 bytes";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    SLOT_ALIGNED: Gp, "RDX is aligned to 8 bytes";
    SLOT_IN_EPC: Pf, "RDX leads to the EPC";
    DIFFERENT_PAGES: Gp, "the slot is not in the page itself";
    PAGEINFO_UNUSED: Gp, "PAGEINFO's LINADDR and SECS are zero";
    OPERANDS_ALIGNED: Gp, "PCMD is aligned to 128 bytes and SRCPGE to 4096";
    PAGE_CLAIMED: Gp, "no other leaf uses the page";
    ARRAY_CLAIMED: Gp, "no other leaf changes the version array, or the slot";
    PAGE_VALID: Pf, "the page is in use";
    ARRAY_VALID: Pf, "RDX is in a valid version array";
    TRACKING_CLAIMED: Gp, "no ETRACK is at work on the page's enclave";
    BLOCKED: (Status::PageNotBlocked), "a page of an enclave is blocked";
    TRACKED: (Status::NotTracked), "no processor can hold a translation of a page of an enclave";
    CHILDLESS: (Status::ChildPresent), "no page in the EPC belongs to a SECS";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let info_la = leaf.port.linear(leaf.rbx(), Pageinfo::SIZE as u64)?;
    PAGEINFO_ALIGNED.check(info_la.is_multiple_of(Pageinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let slot_la = leaf.port.linear(leaf.rdx(), size_of::<u64>() as u64)?;
    SLOT_ALIGNED.check(slot_la.is_multiple_of(8))?;
    let array = SLOT_IN_EPC.some_at(leaf.resolve(slot_la, Access::Write)?, slot_la)?;
    DIFFERENT_PAGES.check(page != array)?;
    let mut info: Pageinfo = leaf.load(info_la)?;
    PAGEINFO_UNUSED.check(info.linaddr == 0 && info.secs == 0)?;
    let pcmd_la = leaf.port.linear(info.secinfo, Pcmd::SIZE as u64)?;
    let to_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let aligned = pcmd_la.is_multiple_of(Pcmd::ALIGN) && to_la.is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(aligned)?;

    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Exclusive))?;
    let _array = ARRAY_CLAIMED.some(package.claims.claim(array, Lane::Base, Mode::Shared))?;
    let offset = slot_la as usize % PAGE_SIZE;
    let lane = Lane::Slot((offset / 8) as u16);
    let _slot = ARRAY_CLAIMED.some(package.claims.claim(array, lane, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    ARRAY_VALID.check_at(leaf.entry(array).is(PageType::Va), slot_la)?;

    let enclave = match entry.page_type {
        PageType::Va => None,
        // A SECS can be gone only with the whole EPC.
        _ => Some(PAGE_VALID.some_at(package.enclaves.get(entry.secs), la)?),
    };
    let state = |ask: &dyn Fn(&State) -> bool| enclave.as_ref().is_none_or(|e| e.with(|s| ask(s)));
    // The identifier binds pages of enclaves; software gets that of a SECS, too.
    let (mut eid, mut handle) = (0, 0);
    if has_owner(entry.page_type) {
        TRACKING_CLAIMED.check(!package.claims.is_exclusive(entry.secs, Lane::Track))?;
        BLOCKED.check(entry.blocked())?;
        TRACKED.check(state(&|s| s.tracking.tracked_since(entry.epoch)))?;
        eid = package.read::<Secs>(entry.secs, 0)?.private.eid;
        handle = eid;
    } else if entry.page_type == PageType::Secs {
        CHILDLESS.check(state(&|s| s.children == 0))?;
        handle = package.read::<Secs>(page, 0)?.private.eid;
    }

    // What is written below can be written.
    for to in [to_la, pcmd_la, info_la] {
        leaf.resolve(to, Access::Write)?;
    }
    let old: u64 = package.read(array, offset)?;
    let mut content = Zeroizing::new([0; PAGE_SIZE]);
    package.dram.read(page.0, 0, &mut content[..])?;
    let version = package.new_version();
    let mut pcmd = Pcmd { secinfo: secinfo(&entry), enclaveid: handle, ..Pcmd::default() };
    let header = Header::new(&pcmd, entry.address, eid);
    pcmd.mac = package.with_secrets(|s| seal(&s.paging_key, version, &header, &mut content));
    info.linaddr = entry.address;
    if crate::planted!(Plaintext) {
        package.dram.read(page.0, 0, &mut content[..])?;
    }
    leaf.port.write(to_la, &content[..])?;
    leaf.port.write(pcmd_la, pcmd.as_bytes())?;
    leaf.port.write(info_la, info.as_bytes())?;
    package.write(array, offset, &version)?;

    match (entry.page_type, &enclave) {
        (PageType::Secs, _) => package.enclaves.remove(page),
        (_, Some(enclave)) => enclave.with(|state| state.children = state.children.saturating_sub(1)),
        (_, None) => {}
    }
    package.epcm.set(page, Entry::FREE);
    package.dram.discard(page.0)?;
    let occupied = Done::Code(Status::VaSlotOccupied, rflags::CF);
    Ok(if old == 0 { Done::Success } else { occupied })
}
