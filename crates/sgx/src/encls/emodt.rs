//! EMODT: makes a page of a running enclave a TCS, or trims it; the enclave has to
//! accept that (*SDM vol. 3D, EMODT*). RBX is a SECINFO with the new type, RCX the page.
//! Shadow-stack pages, which could be trimmed too, do not occur: no model has CET.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, Secs, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EMODT {
    SECINFO_ALIGNED: Gp, "SECINFO is aligned to 64 bytes";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    SECINFO_FLAGS: Gp, "the reserved fields of SECINFO are zero and its type is PT_TCS or PT_TRIM";
    PAGE_CLAIMED: (Status::EpcPageConflict), "no other leaf uses the page";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_FREE: (Status::EpcPageConflict), "no other SGX2 leaf modifies the page";
    PAGE_TYPE: Pf, "the page is a regular one, or a TCS to be trimmed";
    MODIFIABLE: (Status::PageNotModifiable), "the page is neither PENDING nor MODIFIED";
    INITIALIZED: Gp, "the enclave is initialized";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let secinfo_la = leaf.port.linear(leaf.rbx(), Secinfo::SIZE as u64)?;
    SECINFO_ALIGNED.check(secinfo_la.is_multiple_of(Secinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let secinfo: Secinfo = leaf.load(secinfo_la)?;
    let new = secinfo.flags.page_type().filter(|t| matches!(t, PageType::Tcs | PageType::Trim));
    let new = SECINFO_FLAGS.some(new.filter(|_| secinfo.reserved_is_zero()))?;

    let package = leaf.package;
    let _base = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    let _modify = PAGE_FREE.some(package.claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    let may = matches!((entry.page_type, new), (PageType::Reg, _) | (PageType::Tcs, PageType::Trim));
    let enclave = PAGE_TYPE.some_at(package.enclaves.get(entry.secs).filter(|_| may), la)?;
    MODIFIABLE.check(!entry.unaccepted())?;
    let secs: Secs = package.read(entry.secs, 0)?;
    INITIALIZED.check(secs.attributes.flags.contains(AttributeFlags::INIT))?;

    // As in EMODPR: epoch and entry in one step, against an ETRACK in between.
    enclave.with(|state| {
        package.epcm.update(page, |entry| {
            entry.flags.remove(Flags::RWX | Flags::PR);
            entry.flags.insert(Flags::MODIFIED);
            entry.page_type = new;
            entry.epoch = state.tracking.epoch();
        })
    });
    Ok(Done::Success)
}
