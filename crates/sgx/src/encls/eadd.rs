//! EADD: copies a page into an enclave that is being built, and measures its
//! place, type and permissions (*SDM vol. 3D, EADD*).
//!
//! No model has CET: the types of shadow-stack pages are refused, and a TCS's
//! OCETSSA and PREVSSP are reserved.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Pageinfo, Secinfo, SecinfoFlags, Secs, Tcs, TcsFlags};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::rules;

rules! { EADD {
    PAGEINFO_ALIGNED: Gp, "PAGEINFO is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "RCX is the address of a page";
    TARGET_IN_EPC: Pf, "RCX leads to the EPC";
    OPERANDS_ALIGNED: Gp, "SRCPGE, SECS and LINADDR are aligned to 4096 bytes, SECINFO to 64";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC";
    SECINFO_FLAGS: Gp, "the reserved fields of SECINFO are zero and its type is PT_REG or PT_TCS";
    TARGET_CLAIMED: Gp, "no other leaf uses the page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset (on silicon, to a power transition)";
    TARGET_FREE: Pf, "the page is not in use";
    SECS_CLAIMED: Gp, "no leaf that excludes EADD uses the SECS";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS";
    TCS_RESERVED: Gp, "the reserved fields of a TCS are zero";
    TCS_LIMITS: Gp, "the low 12 bits of the limits in a TCS of a 32-bit enclave are ones";
    WRITE_NEEDS_READ: Gp, "a regular page that may be written may be read";
    IN_ELRANGE: Gp, "LINADDR is inside the enclave's range";
    MEASUREMENT_CLAIMED: Gp, "no other leaf updates the measurement";
    UNINITIALIZED: Gp, "the enclave is not initialized";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let info_la = leaf.port.linear(leaf.rbx(), Pageinfo::SIZE as u64)?;
    PAGEINFO_ALIGNED.check(info_la.is_multiple_of(Pageinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    TARGET_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let target = TARGET_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let info: Pageinfo = leaf.load(info_la)?;
    let source_la = leaf.port.linear(info.srcpge, PAGE_SIZE as u64)?;
    let secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
    let secinfo_la = leaf.port.linear(info.secinfo, Secinfo::SIZE as u64)?;
    let pages = (source_la | secs_la | info.linaddr).is_multiple_of(PAGE_SIZE as u64);
    OPERANDS_ALIGNED.check(pages && secinfo_la.is_multiple_of(Secinfo::ALIGN))?;
    let owner = SECS_IN_EPC.some_at(leaf.resolve(secs_la, Access::Write)?, secs_la)?;
    let mut secinfo: Secinfo = leaf.load(secinfo_la)?;
    let page_type = secinfo.flags.page_type().filter(|t| matches!(t, PageType::Reg | PageType::Tcs));
    let page_type = SECINFO_FLAGS.some(page_type.filter(|_| secinfo.reserved_is_zero()))?;

    let package = leaf.package;
    let _target = TARGET_CLAIMED.some(package.claims.claim(target, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), la)?;
    let _secs = SECS_CLAIMED.some(package.claims.claim(owner, Lane::Base, Mode::Shared))?;
    let enclave = package.enclaves.get(owner).filter(|_| leaf.entry(owner).is(PageType::Secs));
    let enclave = SECS_VALID.some_at(enclave, secs_la)?;

    let mut content: [u8; PAGE_SIZE] = leaf.load(source_la)?;
    // Read again below, once nobody else updates the measurement: these never change.
    let Secs { baseaddr, size, attributes, .. } = package.read(owner, 0)?;
    match page_type {
        PageType::Tcs => {
            let mut tcs: Tcs = zerocopy::transmute!(content);
            let notify = package.config.aex_notify || !tcs.flags.contains(TcsFlags::AEXNOTIFY);
            TCS_RESERVED.check(tcs.reserved_is_zero() && tcs.ocetssa == 0 && tcs.prevssp == 0 && notify)?;
            let limits = tcs.fslimit & tcs.gslimit & 0xfff == 0xfff;
            TCS_LIMITS.check(limits || attributes.flags.contains(AttributeFlags::MODE64BIT))?;
            // The enclave cannot get at a TCS, and its builder has no say in these.
            secinfo.flags.remove(SecinfoFlags::RWX);
            tcs.flags.remove(TcsFlags::DBGOPTIN);
            (tcs.state, tcs.cssa, tcs.aep) = (0, 0, 0);
            content = zerocopy::transmute!(tcs);
        }
        _ => {
            let asked = secinfo.flags;
            WRITE_NEEDS_READ.check(!asked.contains(SecinfoFlags::W) || asked.contains(SecinfoFlags::R))?;
        }
    }
    let offset = info.linaddr.wrapping_sub(baseaddr);
    IN_ELRANGE.check(offset < size)?;
    let _measure = MEASUREMENT_CLAIMED.some(package.claims.claim(owner, Lane::Build, Mode::Exclusive))?;
    let mut secs: Secs = package.read(owner, 0)?;
    UNINITIALIZED.check(!secs.attributes.flags.contains(AttributeFlags::INIT))?;

    let mut measurement = Measurement::load(&secs.private);
    measurement.eadd(offset, &secinfo);
    measurement.store(&mut secs.private);
    package.dram.write(target.0, 0, &content)?;
    package.write(owner, 0, &secs)?;
    enclave.with(|state| state.children += 1);
    let mut flags = Flags::VALID;
    flags.set(Flags::R, secinfo.flags.contains(SecinfoFlags::R));
    flags.set(Flags::W, secinfo.flags.contains(SecinfoFlags::W));
    flags.set(Flags::X, secinfo.flags.contains(SecinfoFlags::X));
    package.epcm.set(target, Entry { flags, page_type, secs: owner, address: info.linaddr, epoch: 0 });
    Ok(Done::Quiet)
}
