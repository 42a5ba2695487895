//! ECREATE: makes an EPC page the SECS of a new enclave, and begins its
//! measurement (*SDM vol. 3D, ECREATE*).
//!
//! No model has CET: its attribute is refused as unsupported, its other fields must
//! be zero, and the measured block has zeros for them.
//!
//! Two places where the SDM's text cannot be meant as it stands:
//! * MISCSELECT is refused if it has an unsupported bit; the text's expression would
//!   also refuse zero.
//! * An enclave as large as CPUID's limit is refused, as the leaf says, although
//!   CPUID's table calls the limit the largest size.

use arch::paging::is_canonical;
use sgx_abi::{
    AttributeFlags, Attributes, GprSgx, PAGE_SIZE, PageType, Pageinfo, Secinfo, Secs, SecsPrivate,
};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::{Stop, rules};

rules! { ECREATE {
    PAGEINFO_ALIGNED: Gp, "PAGEINFO is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "RCX is the address of a page";
    TARGET_IN_EPC: Pf, "RCX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "SRCPGE is aligned to 4096 bytes and SECINFO to 64";
    PAGEINFO_UNUSED: Gp, "PAGEINFO's LINADDR and SECS are zero";
    SECINFO_FLAGS: Gp, "the reserved fields of SECINFO are zero and its type is PT_SECS";
    TARGET_CLAIMED: Gp, "no other leaf uses the page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset (on silicon, to a power transition)";
    TARGET_FREE: Pf, "the page is not in use";
    XFRM_LEGACY: Gp, "XFRM has x87 and SSE";
    XFRM_LEGAL: Gp, "XFRM has only supported components, in a combination that XCR0 could have";
    CET_ABSENT: Gp, "the fields of CET, which no model has, are zero";
    MISCSELECT_SUPPORTED: Gp, "MISCSELECT has only supported bits";
    SSA_FRAME: Gp, "SSAFRAMESIZE pages hold what XFRM and MISCSELECT make an exit save";
    BASE_CANONICAL: Gp, "BASEADDR of a 64-bit enclave is canonical";
    BASE_32: Gp, "BASEADDR of a 32-bit enclave is below 4 GiB";
    SIZE_LIMIT_32: Gp, "SIZE of a 32-bit enclave is below CPUID's limit";
    SIZE_LIMIT_64: Gp, "SIZE of a 64-bit enclave is below CPUID's limit";
    SIZE_POWER: Gp, "SIZE is a power of two and at least two pages";
    BASE_ALIGNED: Gp, "BASEADDR is aligned to SIZE";
    ATTRIBUTES_SUPPORTED: Gp, "ATTRIBUTES has only supported bits, and not INIT";
    RESERVED: Gp, "the reserved fields of SECS are zero";
    CONFIG_NEEDS_KSS: Gp, "without KSS, CONFIGID and CONFIGSVN are zero";
}}

/// Bytes of EXINFO, the one component of the MISC region.
const EXINFO_SIZE: u64 = 16;
/// Components of AVX-512 in XFRM, which come together and with AVX.
const AVX512: u64 = 0b111 << 5;
const AVX: u64 = 1 << 2;

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let info_la = leaf.port.linear(leaf.rbx(), Pageinfo::SIZE as u64)?;
    PAGEINFO_ALIGNED.check(info_la.is_multiple_of(Pageinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    TARGET_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let target = TARGET_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let info: Pageinfo = leaf.load(info_la)?;
    let source_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let secinfo_la = leaf.port.linear(info.secinfo, Secinfo::SIZE as u64)?;
    let aligned = source_la.is_multiple_of(PAGE_SIZE as u64) && secinfo_la.is_multiple_of(Secinfo::ALIGN);
    OPERANDS_ALIGNED.check(aligned)?;
    PAGEINFO_UNUSED.check(info.linaddr == 0 && info.secs == 0)?;
    let secinfo: Secinfo = leaf.load(secinfo_la)?;
    let is_secs = secinfo.flags.page_type() == Some(PageType::Secs);
    SECINFO_FLAGS.check(secinfo.reserved_is_zero() && is_secs)?;

    let package = leaf.package;
    let _target = TARGET_CLAIMED.some(package.claims.claim(target, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), la)?;
    let mut secs: Secs = leaf.load(source_la)?;
    check(leaf, &secs)?;

    // What the source says in the fields that only the processor sets is overwritten.
    secs.private = SecsPrivate { eid: package.new_eid(), ..SecsPrivate::default() };
    (secs.mrenclave, secs.mrsigner) = ([0; 32], [0; 32]);
    (secs.isvprodid, secs.isvsvn) = (0, 0);
    Measurement::ecreate(secs.ssaframesize, secs.size).store(&mut secs.private);
    package.write(target, 0, &secs)?;
    package.enclaves.add(target);
    let entry = Entry { flags: Flags::VALID, page_type: PageType::Secs, secs: target, ..Entry::FREE };
    package.epcm.set(target, entry);
    Ok(Done::Quiet)
}

/// The checks of the source SECS.
fn check(leaf: &Leaf<'_>, secs: &Secs) -> Result<(), Stop> {
    let config = &leaf.package.config;
    let Attributes { flags, xfrm } = secs.attributes;
    XFRM_LEGACY.check(xfrm & Attributes::XFRM_LEGACY == Attributes::XFRM_LEGACY)?;
    let consistent = xfrm & AVX512 == 0 || xfrm & (AVX512 | AVX) == AVX512 | AVX;
    XFRM_LEGAL.check(xfrm & !config.xfrm == 0 && consistent)?;
    CET_ABSENT.check(secs.cet_attributes == 0 && secs.cet_leg_bitmap_offset == 0)?;
    let miscselect = secs.miscselect.bits();
    MISCSELECT_SUPPORTED.check(miscselect & !config.miscselect == 0)?;
    let misc = if miscselect == 0 { 0 } else { EXINFO_SIZE };
    let needed = leaf.port.xsave_size(xfrm) as u64 + GprSgx::SIZE as u64 + misc;
    SSA_FRAME.check(u64::from(secs.ssaframesize) * PAGE_SIZE as u64 >= needed)?;

    let (base, size) = (secs.baseaddr, secs.size);
    if flags.contains(AttributeFlags::MODE64BIT) {
        BASE_CANONICAL.check(is_canonical(base))?;
        SIZE_LIMIT_64.check(size < 1 << config.max_size_64)?;
    } else {
        BASE_32.check(base >> 32 == 0)?;
        SIZE_LIMIT_32.check(size < 1 << config.max_size_32)?;
    }
    SIZE_POWER.check(size >= Secs::MIN_SIZE && size.is_power_of_two())?;
    BASE_ALIGNED.check(base & (size - 1) == 0)?;
    ATTRIBUTES_SUPPORTED.check(flags.bits() & !config.attributes == 0)?;
    RESERVED.check(secs.reserved_is_zero())?;
    let plain = secs.configid == [0; 64] && secs.configsvn == 0;
    CONFIG_NEEDS_KSS.check(plain || flags.contains(AttributeFlags::KSS))
}
