//! EMODPR: takes permissions away from a page of a running enclave, which has
//! to accept that (*SDM vol. 3D, EMODPR*).

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Secs, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EMODPR {
    SECINFO_ALIGNED: Gp, "DS:RBX is aligned to 64 bytes";
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SECINFO_RESERVED: Gp, "reserved fields of SECINFO are zero";
    SECINFO_PERMISSIONS: Gp, "what may be written may be read";
    NO_CONFLICT: (Status::EpcPageConflict), "no other leaf uses the EPC page";
    PAGE_VALID: Pf, "the EPC page is in use";
    NO_MODIFICATION: (Status::EpcPageConflict), "no leaf is changing the page";
    PAGE_TYPE: Pf, "the page is PT_REG";
    MODIFIABLE: (Status::PageNotModifiable), "the page is neither PENDING nor MODIFIED";
    INITIALIZED: Gp, "the enclave is initialised";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx) = (leaf.rbx(), leaf.rcx());
    SECINFO_ALIGNED.check(rbx % Secinfo::ALIGN == 0)?;
    PAGE_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    let la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(la, Access::Write)?;
    let page = PAGE_IN_EPC.some_at(page, la)?;
    let secinfo_la = leaf.port.linear(rbx, Secinfo::SIZE as u64)?;
    let secinfo: Secinfo = leaf.load(secinfo_la)?;
    SECINFO_RESERVED.check(secinfo.reserved_is_zero())?;
    let asked = secinfo.flags;
    SECINFO_PERMISSIONS.check(!asked.contains(SecinfoFlags::W) || asked.contains(SecinfoFlags::R))?;

    let claims = &leaf.package.claims;
    let _base = NO_CONFLICT.some(claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    let _modify = NO_MODIFICATION.some(claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    PAGE_TYPE.check_at(entry.page_type == PageType::Reg, la)?;
    MODIFIABLE.check(!entry.unaccepted())?;
    let secs: Secs = leaf.package.read(entry.secs, 0)?;
    INITIALIZED.check(secs.attributes.flags.contains(AttributeFlags::INIT))?;
    let enclave = PAGE_VALID.some_at(leaf.package.enclaves.get(entry.secs), la)?;

    let epoch = enclave.with(|state| state.tracking.epoch());
    leaf.package.epcm.update(page, |entry| {
        for (ask, bit) in
            [(SecinfoFlags::R, Flags::R), (SecinfoFlags::W, Flags::W), (SecinfoFlags::X, Flags::X)]
        {
            if !asked.contains(ask) {
                entry.flags.remove(bit);
            }
        }
        entry.flags.insert(Flags::PR);
        entry.epoch = epoch;
    });
    Ok(Done::Success)
}
