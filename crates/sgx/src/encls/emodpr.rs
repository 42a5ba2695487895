//! EMODPR: takes permissions away from a page of a running enclave, which has to
//! accept that (*SDM vol. 3D, EMODPR*). RBX is a SECINFO whose R, W and X are a mask,
//! RCX the page.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Secs, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EMODPR {
    SECINFO_ALIGNED: Gp, "SECINFO is aligned to 64 bytes";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    SECINFO_FLAGS: Gp, "the reserved fields of SECINFO are zero, and W comes with R";
    PAGE_CLAIMED: Gp, "no other leaf changes what the page is";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_FREE: (Status::EpcPageConflict), "no other SGX2 leaf modifies the page";
    MODIFIABLE: (Status::PageNotModifiable), "the page is neither PENDING nor MODIFIED";
    PAGE_TYPE: Pf, "the page is a regular one";
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
    let keep = secinfo.flags;
    let writable = keep.contains(SecinfoFlags::W) && !keep.contains(SecinfoFlags::R);
    SECINFO_FLAGS.check(secinfo.reserved_is_zero() && !writable)?;

    let package = leaf.package;
    let _base = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    PAGE_VALID.check_at(leaf.entry(page).valid(), la)?;
    let _modify = PAGE_FREE.some(package.claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    MODIFIABLE.check(!entry.unaccepted())?;
    let enclave = package.enclaves.get(entry.secs).filter(|_| entry.page_type == PageType::Reg);
    let enclave = PAGE_TYPE.some_at(enclave, la)?;
    let secs: Secs = package.read(entry.secs, 0)?;
    INITIALIZED.check(secs.attributes.flags.contains(AttributeFlags::INIT))?;

    // Translations made before now may have more permissions: EACCEPT waits for a
    // tracking cycle that begins after this. The entry changes in the same step as the
    // epoch is read, so an ETRACK between the two cannot count.
    enclave.with(|state| {
        package.epcm.update(page, |entry| {
            for (bit, flag) in
                [(SecinfoFlags::R, Flags::R), (SecinfoFlags::W, Flags::W), (SecinfoFlags::X, Flags::X)]
            {
                entry.flags.set(
                    flag,
                    entry.flags.contains(flag) && (keep.contains(bit) || crate::planted!(Restriction)),
                );
            }
            entry.flags.insert(Flags::PR);
            entry.epoch = state.tracking.epoch();
        })
    });
    Ok(Done::Success)
}
