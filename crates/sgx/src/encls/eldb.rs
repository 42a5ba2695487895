//! ELDB and ELDU: load an evicted page back, blocked or not; ELDBC and ELDUC
//! tell conflicts by codes (*SDM vol. 3D, ELDB/ELDU/ELDBC/ELDUC*).

use arch::regs::gpr;
use sgx_abi::{PAGE_SIZE, PageType, Pageinfo, Pcmd, Secs, Status};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

use super::paging::{Header, entry_flags, open};
use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::{Rule, rules};

rules! { ELDB {
    PAGEINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    TARGET_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SLOT_ALIGNED: Gp, "DS:RDX is aligned to 8 bytes";
    SLOT_IN_EPC: Pf, "DS:RDX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "PCMD is aligned to 128 bytes and SRCPGE to 4096";
    PCMD_RESERVED: Gp, "reserved fields of PCMD and its SECINFO are zero";
    PAGE_TYPE: Gp, "PCMD names a page type that can be evicted";
    SECS_ALIGNED: Gp, "PAGEINFO.SECS is aligned to 4096 bytes for a page of an enclave";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC for a page of an enclave";
    NO_SECS: Gp, "PAGEINFO.SECS is zero for PT_SECS and PT_VA";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    CODED_NO_CONFLICT: (Status::EpcPageConflict), "the same, told by a code (ELDBC, ELDUC)";
    SLOT_NO_CONFLICT: Gp, "no other leaf changes the version array";
    CODED_SLOT_NO_CONFLICT: (Status::EpcPageConflict), "the same, told by a code (ELDBC, ELDUC)";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset";
    TARGET_FREE: Pf, "the EPC page is not in use";
    SLOT_VALID: Pf, "DS:RDX is in a valid version array";
    SECS_NO_CONFLICT: Gp, "no other leaf excludes the load from the SECS";
    CODED_SECS_NO_CONFLICT: (Status::EpcPageConflict), "the same, told by a code (ELDBC, ELDUC)";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS";
    MAC: (Status::MacCompareFail), "the page is the one that was evicted, in its last version";
}}

/// Executes ELDB.
pub fn eldb(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, true, false)
}

/// Executes ELDU.
pub fn eldu(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, false, false)
}

/// Executes ELDBC.
pub fn eldbc(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, true, true)
}

/// Executes ELDUC.
pub fn elduc(leaf: &mut Leaf<'_>) -> Ran {
    load(leaf, false, true)
}

fn load(leaf: &mut Leaf<'_>, blocked: bool, coded: bool) -> Ran {
    let (rbx, rcx, rdx) = (leaf.rbx(), leaf.rcx(), leaf.port.gpr(gpr::RDX));
    let conflict = |plain: &'static Rule, code: &'static Rule| if coded { code } else { plain };
    PAGEINFO_ALIGNED.check(rbx % Pageinfo::ALIGN == 0)?;
    TARGET_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    let target_la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let target = leaf.resolve(target_la, Access::Write)?;
    let target = TARGET_IN_EPC.some_at(target, target_la)?;
    SLOT_ALIGNED.check(rdx % 8 == 0)?;
    let slot_la = leaf.port.linear(rdx, 8)?;
    let array = leaf.resolve(slot_la, Access::Write)?;
    let array = SLOT_IN_EPC.some_at(array, slot_la)?;
    let info_la = leaf.port.linear(rbx, Pageinfo::SIZE as u64)?;
    let info: Pageinfo = leaf.load(info_la)?;
    let aligned = info.secinfo.is_multiple_of(Pcmd::ALIGN) && info.srcpge.is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(aligned)?;
    let pcmd_la = leaf.port.linear(info.secinfo, Pcmd::SIZE as u64)?;
    let pcmd: Pcmd = leaf.load(pcmd_la)?;
    PCMD_RESERVED.check(pcmd.reserved_is_zero() && pcmd.secinfo.reserved_is_zero())?;
    let (flags, page_type) = PAGE_TYPE.some(entry_flags(&pcmd.secinfo))?;
    let owned = matches!(page_type, PageType::Reg | PageType::Tcs | PageType::Trim);
    PAGE_TYPE.check(owned || matches!(page_type, PageType::Secs | PageType::Va))?;
    let mut secs_page = None;
    let mut secs_la = 0;
    if owned {
        SECS_ALIGNED.check(info.secs.is_multiple_of(PAGE_SIZE as u64))?;
        secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
        let page = leaf.resolve(secs_la, Access::Read)?;
        secs_page = Some(SECS_IN_EPC.some_at(page, secs_la)?);
    } else {
        NO_SECS.check(info.secs == 0)?;
    }

    let claims = &leaf.package.claims;
    let claim = claims.claim(target, Lane::Base, Mode::Exclusive);
    let _target = conflict(&NO_CONFLICT, &CODED_NO_CONFLICT).some(claim)?;
    let claim = claims.claim(array, Lane::Base, Mode::Shared);
    let _array = conflict(&SLOT_NO_CONFLICT, &CODED_SLOT_NO_CONFLICT).some(claim)?;
    EPC_PRESENT.check(!leaf.package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), target_la)?;
    SLOT_VALID.check_at(leaf.entry(array).is(PageType::Va), slot_la)?;
    let mut eid = 0;
    let (mut enclave, mut _secs) = (None, None);
    if let Some(page) = secs_page {
        let claim = claims.claim(page, Lane::Base, Mode::Shared);
        _secs = Some(conflict(&SECS_NO_CONFLICT, &CODED_SECS_NO_CONFLICT).some(claim)?);
        SECS_VALID.check_at(leaf.entry(page).is(PageType::Secs), secs_la)?;
        enclave = Some(SECS_VALID.some_at(leaf.package.enclaves.get(page), secs_la)?);
        eid = leaf.package.read::<Secs>(page, 0)?.private.eid;
    }

    let at = (slot_la % PAGE_SIZE as u64) as usize;
    let version: u64 = leaf.package.read(array, at)?;
    let from_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let mut content: Zeroizing<[u8; PAGE_SIZE]> = Zeroizing::new(leaf.load(from_la)?);
    let address = if owned { info.linaddr } else { 0 };
    let header = Header::new(pcmd.secinfo, address, eid);
    let opened =
        leaf.package.with_secrets(|s| open(&s.paging_key, version, &header, &mut content, &pcmd.mac));
    // Versions begin at 1: an empty slot opens nothing.
    MAC.check(version != 0 && opened)?;

    leaf.package.dram.write(target.0, 0, content.as_bytes())?;
    leaf.package.write(array, at, &0u64)?;
    let mut entry = Entry { flags, page_type, address, ..Entry::FREE };
    if let (Some(page), Some(enclave)) = (secs_page, enclave) {
        entry.secs = page;
        entry.epoch = enclave.with(|state| {
            state.children += 1;
            state.tracking.epoch()
        });
        entry.flags.set(Flags::BLOCKED, blocked);
    }
    if page_type == PageType::Secs {
        entry.secs = target;
        leaf.package.enclaves.add(target);
    }
    leaf.package.epcm.set(target, entry);
    Ok(Done::Success)
}
