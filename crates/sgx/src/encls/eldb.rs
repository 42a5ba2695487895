//! ELDB and ELDU: load a page that EWB wrote out, blocked or not; ELDBC and ELDUC tell
//! conflicts by a code (*SDM vol. 3D, ELDB/ELDU/ELDBC/ELDUC*). RBX is a PAGEINFO with
//! the content, PCMD and SECS, RCX a free page, RDX the slot with the page's version.
//!
//! Only what left the EPC comes back, once: a version opens one content, and goes from
//! its slot with it. Whatever else PCMD says, reserved fields and unknown types included,
//! fails the MAC. Shadow-stack pages do not occur: no model has CET.
//!
//! A page that ELDB loads counts as blocked at that time, so it takes a tracking cycle
//! before EWB writes it out again.

use sgx_abi::{PAGE_SIZE, PageType, Pageinfo, Pcmd, Secs, Status};
use zeroize::Zeroizing;

use super::paging::{Header, entry_flags, has_owner, open};
use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::{Rule, rules};

rules! { ELDB {
    PAGEINFO_ALIGNED: Gp, "PAGEINFO is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "RCX is the address of a page";
    TARGET_IN_EPC: Pf, "RCX leads to the EPC";
    SLOT_ALIGNED: Gp, "RDX is aligned to 8 bytes";
    SLOT_IN_EPC: Pf, "RDX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "PCMD is aligned to 128 bytes and SRCPGE to 4096";
    TARGET_CLAIMED: Gp, "no other leaf uses the page";
    ARRAY_CLAIMED: Gp, "no other leaf changes the version array, or the slot";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset (on silicon, to a power transition)";
    TARGET_FREE: Pf, "the page is not in use";
    ARRAY_VALID: Pf, "RDX is in a valid version array";
    SECS_ALIGNED: Gp, "PAGEINFO.SECS is aligned to 4096 bytes, for a page of an enclave";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC, for a page of an enclave";
    SECS_CLAIMED: Gp, "no other leaf changes the SECS";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS, for a page of an enclave";
    SECS_UNUSED: Gp, "PAGEINFO.SECS is zero for any other page";
    MAC: (Status::MacCompareFail), "the page is what was written out last under the slot's version";
}}

/// What ELDBC and ELDUC have instead.
pub mod coded {
    use super::Status;
    use crate::rule::rules;

    rules! { ELDBC {
        TARGET_CLAIMED: (Status::EpcPageConflict), "no other leaf uses the page";
        ARRAY_CLAIMED: (Status::EpcPageConflict), "no other leaf changes the version array, or the slot";
        SECS_CLAIMED: (Status::EpcPageConflict), "no other leaf changes the SECS";
    }}
}

/// The rules about conflicts.
struct Conflicts {
    target: &'static Rule,
    array: &'static Rule,
    secs: &'static Rule,
}

const FAULTS: Conflicts = Conflicts { target: &TARGET_CLAIMED, array: &ARRAY_CLAIMED, secs: &SECS_CLAIMED };
const CODES: Conflicts =
    Conflicts { target: &coded::TARGET_CLAIMED, array: &coded::ARRAY_CLAIMED, secs: &coded::SECS_CLAIMED };

/// Runs ELDB.
pub fn eldb(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, Flags::BLOCKED, &FAULTS)
}

/// Runs ELDU.
pub fn eldu(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, Flags::empty(), &FAULTS)
}

/// Runs ELDBC.
pub fn eldbc(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, Flags::BLOCKED, &CODES)
}

/// Runs ELDUC.
pub fn elduc(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, Flags::empty(), &CODES)
}

/// Loads a page; `blocked` is what one of an enclave gets beside its own flags.
fn load(leaf: &mut Leaf<'_>, blocked: Flags, conflicts: &Conflicts) -> Ran {
    let info_la = leaf.port.linear(leaf.rbx(), Pageinfo::SIZE as u64)?;
    PAGEINFO_ALIGNED.check(info_la.is_multiple_of(Pageinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    TARGET_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let target = TARGET_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let slot_la = leaf.port.linear(leaf.rdx(), size_of::<u64>() as u64)?;
    SLOT_ALIGNED.check(slot_la.is_multiple_of(8))?;
    let array = SLOT_IN_EPC.some_at(leaf.resolve(slot_la, Access::Write)?, slot_la)?;
    let info: Pageinfo = leaf.load(info_la)?;
    let pcmd_la = leaf.port.linear(info.secinfo, Pcmd::SIZE as u64)?;
    let source_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let aligned = pcmd_la.is_multiple_of(Pcmd::ALIGN) && source_la.is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(aligned)?;

    let package = leaf.package;
    let claims = &package.claims;
    let _target = conflicts.target.some(claims.claim(target, Lane::Base, Mode::Exclusive))?;
    let _array = conflicts.array.some(claims.claim(array, Lane::Base, Mode::Shared))?;
    let offset = slot_la as usize % PAGE_SIZE;
    // Alone: two leaves that take a version at once would load a page twice.
    let lane = Lane::Slot((offset / 8) as u16);
    let _slot = conflicts.array.some(claims.claim(array, lane, Mode::Exclusive))?;
    EPC_PRESENT.check(!package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), la)?;
    ARRAY_VALID.check_at(leaf.entry(array).is(PageType::Va), slot_la)?;

    let pcmd: Pcmd = leaf.load(pcmd_la)?;
    let page_type = pcmd.secinfo.flags.page_type();
    let (mut _secs, mut owner, mut eid) = (None, None, 0);
    if page_type.is_some_and(has_owner) {
        let secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
        SECS_ALIGNED.check(secs_la.is_multiple_of(PAGE_SIZE as u64))?;
        let secs = SECS_IN_EPC.some_at(leaf.resolve(secs_la, Access::Write)?, secs_la)?;
        _secs = Some(conflicts.secs.some(claims.claim(secs, Lane::Base, Mode::Shared))?);
        let enclave = package.enclaves.get(secs).filter(|_| leaf.entry(secs).is(PageType::Secs));
        owner = Some(SECS_VALID.some_at(enclave, secs_la)?);
        eid = package.read::<Secs>(secs, 0)?.private.eid;
    } else {
        SECS_UNUSED.check(info.secs == 0)?;
    }

    let mut content: Zeroizing<[u8; PAGE_SIZE]> = Zeroizing::new(leaf.load(source_la)?);
    let version: u64 = package.read(array, offset)?;
    let header = Header::new(&pcmd, info.linaddr, eid);
    let opens = package.with_secrets(|s| open(&s.paging_key, version, &header, &mut content, &pcmd.mac));
    // Versions begin at 1, so under that of an empty slot nothing was ever sealed.
    let page_type = MAC.some(page_type.filter(|_| opens || crate::planted!(Mac)))?;

    package.dram.write(target.0, 0, &content[..])?;
    package.write(array, offset, &if crate::planted!(VersionKept) { version } else { 0 })?;
    let flags = entry_flags(&pcmd.secinfo);
    let mut entry = Entry { flags, page_type, address: info.linaddr, ..Entry::FREE };
    match owner {
        Some(enclave) => {
            entry.secs = enclave.secs;
            entry.flags |= blocked;
            // As in EBLOCK, in one step.
            enclave.with(|state| {
                state.children += 1;
                entry.epoch = state.tracking.epoch();
                package.epcm.set(target, entry);
            });
        }
        None => {
            if page_type == PageType::Secs {
                entry.secs = target;
                package.enclaves.add(target);
            }
            package.epcm.set(target, entry);
        }
    }
    Ok(Done::Success)
}
