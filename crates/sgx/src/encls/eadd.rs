//! EADD: adds a page to an enclave that is being built, with its content, and
//! measures its place and permissions (*SDM vol. 3D, EADD*).

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Pageinfo, Secinfo, SecinfoFlags, Secs, Tcs};
use zerocopy::{FromBytes, IntoBytes};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::rules;

rules! { EADD {
    PAGEINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    TARGET_IN_EPC: Pf, "DS:RCX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "SRCPGE, SECS and LINADDR are aligned to 4096 bytes, SECINFO to 64";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC";
    SECINFO_RESERVED: Gp, "reserved fields of SECINFO are zero";
    SECINFO_TYPE: Gp, "SECINFO.FLAGS.PT is PT_REG or PT_TCS";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset";
    TARGET_FREE: Pf, "the EPC page is not in use";
    SECS_NO_CONFLICT: Gp, "no other leaf that excludes EADD uses the SECS";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS";
    WRITE_NEEDS_READ: Gp, "a regular page that may be written may be read";
    TCS_RESERVED: Gp, "reserved fields and flags of a TCS are zero";
    TCS_SEGMENTS: Gp, "outside 64-bit mode the limits of FS and GS end in 0FFFH";
    IN_ELRANGE: Gp, "LINADDR lies in the enclave's range";
    NOT_INITIALIZED: Gp, "the enclave is not initialised";
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
    let pages = (info.srcpge | info.secs | info.linaddr).is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(pages && info.secinfo.is_multiple_of(Secinfo::ALIGN))?;
    let secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
    let secs_page = leaf.resolve(secs_la, Access::Write)?;
    let secs_page = SECS_IN_EPC.some_at(secs_page, secs_la)?;
    let secinfo_la = leaf.port.linear(info.secinfo, Secinfo::SIZE as u64)?;
    let mut secinfo: Secinfo = leaf.load(secinfo_la)?;
    SECINFO_RESERVED.check(secinfo.reserved_is_zero())?;
    let page_type = secinfo.flags.page_type();
    SECINFO_TYPE.check(matches!(page_type, Some(PageType::Reg | PageType::Tcs)))?;

    let claims = &leaf.package.claims;
    let _target = NO_CONFLICT.some(claims.claim(target, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!leaf.package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), target_la)?;
    let _shared = SECS_NO_CONFLICT.some(claims.claim(secs_page, Lane::Base, Mode::Shared))?;
    let _build = SECS_NO_CONFLICT.some(claims.claim(secs_page, Lane::Build, Mode::Exclusive))?;
    SECS_VALID.check_at(leaf.entry(secs_page).is(PageType::Secs), secs_la)?;

    let source_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let mut content: [u8; PAGE_SIZE] = leaf.load(source_la)?;
    let mut secs: Secs = leaf.package.read(secs_page, 0)?;
    if page_type == Some(PageType::Reg) {
        let (w, r) = (SecinfoFlags::W, SecinfoFlags::R);
        WRITE_NEEDS_READ.check(!secinfo.flags.contains(w) || secinfo.flags.contains(r))?;
    } else {
        let tcs = Tcs::mut_from_bytes(&mut content).expect("a page");
        TCS_RESERVED.check(tcs.reserved_is_zero())?;
        let mode64 = secs.attributes.flags.contains(AttributeFlags::MODE64BIT);
        let limits = tcs.fslimit & 0xfff == 0xfff && tcs.gslimit & 0xfff == 0xfff;
        TCS_SEGMENTS.check(mode64 || limits)?;
        // What the enclave's maker says here is the processor's to say.
        secinfo.flags.remove(SecinfoFlags::RWX);
        tcs.flags.remove(sgx_abi::TcsFlags::DBGOPTIN);
        (tcs.state, tcs.cssa, tcs.aep) = (0, 0, 0);
    }
    IN_ELRANGE.check(info.linaddr.wrapping_sub(secs.baseaddr) < secs.size)?;
    NOT_INITIALIZED.check(!secs.attributes.flags.contains(AttributeFlags::INIT))?;
    let enclave = SECS_VALID.some_at(leaf.package.enclaves.get(secs_page), secs_la)?;

    let mut measurement = Measurement::load(&secs.private);
    measurement.eadd(info.linaddr - secs.baseaddr, &secinfo);
    measurement.store(&mut secs.private);
    leaf.package.dram.write(target.0, 0, content.as_bytes())?;
    leaf.package.write(secs_page, 0, &secs)?;
    let mut flags = Flags::VALID;
    for (have, bit) in [(SecinfoFlags::R, Flags::R), (SecinfoFlags::W, Flags::W), (SecinfoFlags::X, Flags::X)]
    {
        flags.set(bit, secinfo.flags.contains(have));
    }
    enclave.with(|state| state.children += 1);
    let page_type = page_type.unwrap_or(PageType::Reg);
    let entry = Entry { flags, page_type, secs: secs_page, address: info.linaddr, epoch: 0 };
    leaf.package.epcm.set(target, entry);
    Ok(Done::Quiet)
}
