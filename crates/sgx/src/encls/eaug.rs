//! EAUG: adds a page of zeros to a running enclave, which has to accept it before it
//! can be used (*SDM vol. 3D, EAUG*).
//!
//! PAGEINFO.SECINFO can only ask for shadow-stack pages. No model has CET, so there must
//! be none; one that is there is read, with the faults of that, and then refused.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Pageinfo, Secinfo, Secs};

use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EAUG {
    PAGEINFO_ALIGNED: Gp, "PAGEINFO is aligned to 32 bytes";
    TARGET_ALIGNED: Gp, "RCX is the address of a page";
    TARGET_IN_EPC: Pf, "RCX leads to the EPC";
    SECINFO_ALIGNED: Gp, "SECINFO, if there is one, is aligned to 64 bytes";
    OPERANDS_ALIGNED: Gp, "PAGEINFO's SECS and LINADDR are aligned to 4096 bytes";
    SOURCE_ZERO: Gp, "PAGEINFO.SRCPGE is zero";
    SECS_IN_EPC: Pf, "PAGEINFO.SECS leads to the EPC";
    TARGET_CLAIMED: Gp, "no other leaf uses the page";
    EPC_PRESENT: Gp, "the EPC has not been lost since reset (on silicon, to a power transition)";
    TARGET_FREE: Pf, "the page is not in use";
    SECINFO_FLAGS: Gp, "no SECINFO asks for a shadow-stack page, nor for any other";
    SECS_CLAIMED: Gp, "no leaf that excludes EAUG uses the SECS";
    SECS_VALID: Pf, "PAGEINFO.SECS is a valid SECS";
    INITIALIZED: Gp, "the enclave is initialized";
    IN_ELRANGE: Gp, "LINADDR is inside the enclave's range";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let info_la = leaf.port.linear(leaf.rbx(), Pageinfo::SIZE as u64)?;
    PAGEINFO_ALIGNED.check(info_la.is_multiple_of(Pageinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    TARGET_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let target = TARGET_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let info: Pageinfo = leaf.load(info_la)?;
    let secinfo_la = match info.secinfo {
        0 => None,
        offset => Some(leaf.port.linear(offset, Secinfo::SIZE as u64)?),
    };
    SECINFO_ALIGNED.check(secinfo_la.is_none_or(|la| la.is_multiple_of(Secinfo::ALIGN)))?;
    let secs_la = leaf.port.linear(info.secs, PAGE_SIZE as u64)?;
    OPERANDS_ALIGNED.check((secs_la | info.linaddr).is_multiple_of(PAGE_SIZE as u64))?;
    SOURCE_ZERO.check(info.srcpge == 0)?;
    let owner = SECS_IN_EPC.some_at(leaf.resolve(secs_la, Access::Write)?, secs_la)?;

    let package = leaf.package;
    let _target = TARGET_CLAIMED.some(package.claims.claim(target, Lane::Base, Mode::Exclusive))?;
    EPC_PRESENT.check(!package.is_lost())?;
    TARGET_FREE.check_at(!leaf.entry(target).valid(), la)?;
    if let Some(la) = secinfo_la {
        leaf.load::<Secinfo>(la)?;
        SECINFO_FLAGS.check(false)?;
    }
    let _secs = SECS_CLAIMED.some(package.claims.claim(owner, Lane::Base, Mode::Shared))?;
    let enclave = package.enclaves.get(owner).filter(|_| leaf.entry(owner).is(PageType::Secs));
    let enclave = SECS_VALID.some_at(enclave, secs_la)?;
    let Secs { baseaddr, size, attributes, .. } = package.read(owner, 0)?;
    INITIALIZED.check(attributes.flags.contains(AttributeFlags::INIT))?;
    IN_ELRANGE.check(info.linaddr.wrapping_sub(baseaddr) < size)?;

    if crate::planted!(Zeroed) {
        package.dram.write(target.0, 0, &[0x5a; 64])?;
    } else {
        package.dram.zero(target.0)?;
    }
    enclave.with(|state| state.children += 1);
    let flags = Flags::VALID | Flags::R | Flags::W | Flags::PENDING;
    let entry = Entry { flags, page_type: PageType::Reg, secs: owner, address: info.linaddr, epoch: 0 };
    package.epcm.set(target, entry);
    Ok(Done::Quiet)
}
