//! EAUG: adds a zeroed page to a running enclave, which has to accept it
//! (*SDM vol. 3D, EAUG*). Shadow-stack pages fall away with CET.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Pageinfo, Secinfo, SecinfoFlags, Secs};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EAUG {
    PAGEINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    TARGET_IN_EPC: Pf, "DS:RCX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "PAGEINFO.SECS and LINADDR are aligned to 4096 bytes";
    SOURCE_ZERO: Gp, "PAGEINFO.SRCPGE is zero";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC";
    SECINFO_ALIGNED: Gp, "PAGEINFO.SECINFO is zero or aligned to 64 bytes";
    SECINFO_VALID: Gp, "a SECINFO says PT_REG with R and W, and nothing else";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset";
    TARGET_FREE: Pf, "the EPC page is not in use";
    SECS_NO_CONFLICT: Gp, "no other leaf excludes EAUG from the SECS";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS";
    INITIALIZED: Gp, "the enclave is initialised";
    IN_ELRANGE: Gp, "LINADDR lies in the enclave's range";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx) = (leaf.rbx(), leaf.rcx());
    PAGEINFO_ALIGNED.check(rbx % Pageinfo::ALIGN == 0)?;
    TARGET_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    let target_la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let target = leaf.resolve(target_la, Access::Write)?;
    let target = TARGET_IN_EPC.some_at(target, target_la)?;
    let info_la = leaf.port.linear(rbx, Pageinfo::SIZE as u64)?;
    let info: Pageinfo = leaf.load(info_la)?;
    OPERANDS_ALIGNED.check((info.secs | info.linaddr).is_multiple_of(PAGE_SIZE as u64))?;
    SOURCE_ZERO.check(info.srcpge == 0)?;
    let secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
    let secs_page = leaf.resolve(secs_la, Access::Read)?;
    let secs_page = SECS_IN_EPC.some_at(secs_page, secs_la)?;
    SECINFO_ALIGNED.check(info.secinfo.is_multiple_of(Secinfo::ALIGN))?;
    if info.secinfo != 0 {
        let la = leaf.port.linear(info.secinfo, Secinfo::SIZE as u64)?;
        let secinfo: Secinfo = leaf.load(la)?;
        let only = SecinfoFlags::new(PageType::Reg, SecinfoFlags::R | SecinfoFlags::W);
        SECINFO_VALID.check(secinfo.reserved_is_zero() && secinfo.flags == only)?;
    }

    let claims = &leaf.package.claims;
    let _target = NO_CONFLICT.some(claims.claim(target, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!leaf.package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), target_la)?;
    let _secs = SECS_NO_CONFLICT.some(claims.claim(secs_page, Lane::Base, Mode::Shared))?;
    SECS_VALID.check_at(leaf.entry(secs_page).is(PageType::Secs), secs_la)?;
    let secs: Secs = leaf.package.read(secs_page, 0)?;
    INITIALIZED.check(secs.attributes.flags.contains(AttributeFlags::INIT))?;
    IN_ELRANGE.check(info.linaddr.wrapping_sub(secs.baseaddr) < secs.size)?;
    let enclave = SECS_VALID.some_at(leaf.package.enclaves.get(secs_page), secs_la)?;

    leaf.package.dram.zero(target.0)?;
    enclave.with(|state| state.children += 1);
    let flags = Flags::VALID | Flags::R | Flags::W | Flags::PENDING;
    let entry = Entry { flags, page_type: PageType::Reg, secs: secs_page, address: info.linaddr, epoch: 0 };
    leaf.package.epcm.set(target, entry);
    Ok(Done::Quiet)
}
