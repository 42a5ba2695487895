//! ECREATE: makes an EPC page the SECS of a new enclave (*SDM vol. 3D, ECREATE*).
//! The CET checks fall away: no model offers CET, so its fields must be zero.

use arch::paging::is_canonical;
use sgx_abi::{
    AttributeFlags, Attributes, GprSgx, PAGE_SIZE, PageType, Pageinfo, Secinfo, Secs, SecsPrivate,
};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::rules;

rules! { ECREATE {
    PAGEINFO_ALIGNED: Gp, "DS:RBX is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    TARGET_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SOURCE_ALIGNED: Gp, "PAGEINFO.SRCPGE is aligned to 4096 bytes";
    SECINFO_ALIGNED: Gp, "PAGEINFO.SECINFO is aligned to 64 bytes";
    LINADDR_ZERO: Gp, "PAGEINFO.LINADDR is zero";
    SECS_ZERO: Gp, "PAGEINFO.SECS is zero";
    SECINFO_RESERVED: Gp, "reserved fields of SECINFO are zero";
    SECINFO_TYPE: Gp, "SECINFO.FLAGS.PT is PT_SECS";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset";
    TARGET_FREE: Pf, "the EPC page is not in use";
    XFRM_LEGACY: Gp, "XFRM has x87 and SSE";
    XFRM_SUPPORTED: Gp, "XFRM has only what CPUID enumerates, with AVX where AVX-512 is";
    ATTRIBUTES_SUPPORTED: Gp, "ATTRIBUTES has only what CPUID enumerates";
    MISCSELECT_SUPPORTED: Gp, "MISCSELECT has only what CPUID enumerates";
    CET_ABSENT: Gp, "without CET its fields are zero";
    CONFIG_NEEDS_KSS: Gp, "without KSS, CONFIGID and CONFIGSVN are zero";
    SIZE_POWER: Gp, "SIZE is a power of two and at least two pages";
    SIZE_LIMIT: Gp, "SIZE is within the limit of the mode";
    BASE_ALIGNED: Gp, "BASEADDR is aligned to SIZE";
    BASE_IN_MODE: Gp, "BASEADDR is canonical, or below 4 GiB outside 64-bit mode";
    SSA_FRAME: Gp, "an SSA frame holds the state that XFRM and MISCSELECT ask for";
    RESERVED_ZERO: Gp, "reserved fields of SECS are zero";
}}

/// Bytes of the EXINFO component of the MISC region.
const EXINFO_SIZE: u64 = 16;

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
    SOURCE_ALIGNED.check(info.srcpge.is_multiple_of(PAGE_SIZE as u64))?;
    SECINFO_ALIGNED.check(info.secinfo.is_multiple_of(Secinfo::ALIGN))?;
    LINADDR_ZERO.check(info.linaddr == 0)?;
    SECS_ZERO.check(info.secs == 0)?;
    let secinfo_la = leaf.port.linear(info.secinfo, Secinfo::SIZE as u64)?;
    let secinfo: Secinfo = leaf.load(secinfo_la)?;
    SECINFO_RESERVED.check(secinfo.reserved_is_zero())?;
    SECINFO_TYPE.check(secinfo.flags.page_type() == Some(PageType::Secs))?;

    let claim = leaf.package.claims.claim(target, Lane::Base, Mode::Exclusive);
    let _claim = NO_CONFLICT.some(claim)?;
    EPC_PRESENT.check(!leaf.package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), target_la)?;

    let source_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let mut secs: Secs = leaf.load(source_la)?;
    check_secs(leaf, &secs)?;

    secs.private = SecsPrivate::default();
    secs.private.eid = leaf.package.new_eid();
    secs.mrenclave = [0; 32];
    secs.mrsigner = [0; 32];
    (secs.isvprodid, secs.isvsvn) = (0, 0);
    Measurement::ecreate(secs.ssaframesize, secs.size).store(&mut secs.private);
    leaf.package.write(target, 0, &secs)?;
    leaf.package.enclaves.add(target);
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Secs, secs: target, ..Entry::FREE };
    leaf.package.epcm.set(target, entry);
    Ok(Done::Quiet)
}

fn check_secs(leaf: &Leaf<'_>, secs: &Secs) -> Result<(), crate::rule::Stop> {
    let config = &leaf.package.config;
    let Attributes { flags, xfrm } = secs.attributes;
    XFRM_LEGACY.check(xfrm & 3 == 3)?;
    // The AVX-512 components come together, and with AVX.
    let wide = xfrm >> 5 & 7;
    let consistent = wide == 0 || (wide == 7 && xfrm & 4 != 0);
    XFRM_SUPPORTED.check(xfrm & !config.xfrm == 0 && consistent)?;
    ATTRIBUTES_SUPPORTED.check(flags.bits() & !config.attributes == 0)?;
    MISCSELECT_SUPPORTED.check(secs.miscselect.bits() & !config.miscselect == 0)?;
    CET_ABSENT.check(secs.cet_attributes == 0 && secs.cet_leg_bitmap_offset == 0)?;
    let kss = flags.contains(AttributeFlags::KSS);
    CONFIG_NEEDS_KSS.check(kss || (secs.configid == [0; 64] && secs.configsvn == 0))?;
    let mode64 = flags.contains(AttributeFlags::MODE64BIT);
    SIZE_POWER.check(secs.size.is_power_of_two() && secs.size >= Secs::MIN_SIZE)?;
    let limit = if mode64 { config.max_size_64 } else { config.max_size_32 };
    SIZE_LIMIT.check(secs.size <= 1 << limit)?;
    BASE_ALIGNED.check(secs.baseaddr & (secs.size - 1) == 0)?;
    let in_mode = if mode64 { is_canonical(secs.baseaddr) } else { secs.baseaddr >> 32 == 0 };
    BASE_IN_MODE.check(in_mode)?;
    let misc = if secs.miscselect.is_empty() { 0 } else { EXINFO_SIZE };
    let needed = leaf.port.xsave_size(xfrm) as u64 + misc + GprSgx::SIZE as u64;
    SSA_FRAME.check(u64::from(secs.ssaframesize) * PAGE_SIZE as u64 >= needed)?;
    RESERVED_ZERO.check(secs.reserved_is_zero())
}
