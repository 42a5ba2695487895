//! EMODT: changes the type of a page of a running enclave, which has to accept
//! that (*SDM vol. 3D, EMODT*).

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, Secs, Status};

use crate::claim::{Lane, Mode};
use crate::epcm::Flags;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EMODT {
    SECINFO_ALIGNED: Gp, "DS:RBX is aligned to 64 bytes";
    PAGE_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    PAGE_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SECINFO_RESERVED: Gp, "reserved fields of SECINFO are zero";
    SECINFO_TYPE: Gp, "SECINFO.FLAGS.PT is PT_TCS or PT_TRIM";
    NO_CONFLICT: (Status::EpcPageConflict), "no other leaf uses the EPC page";
    PAGE_VALID: Pf, "the EPC page is in use";
    NO_MODIFICATION: (Status::EpcPageConflict), "no leaf is changing the page";
    PAGE_TYPE: Pf, "the page is PT_REG, or PT_TCS to be trimmed";
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
    let asked = secinfo.flags.page_type();
    SECINFO_TYPE.check(matches!(asked, Some(PageType::Tcs | PageType::Trim)))?;

    let claims = &leaf.package.claims;
    let _base = NO_CONFLICT.some(claims.claim(page, Lane::Base, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    let _modify = NO_MODIFICATION.some(claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    let trimmed_tcs = entry.page_type == PageType::Tcs && asked == Some(PageType::Trim);
    PAGE_TYPE.check_at(entry.page_type == PageType::Reg || trimmed_tcs, la)?;
    MODIFIABLE.check(!entry.unaccepted())?;
    let secs: Secs = leaf.package.read(entry.secs, 0)?;
    INITIALIZED.check(secs.attributes.flags.contains(AttributeFlags::INIT))?;
    let enclave = PAGE_VALID.some_at(leaf.package.enclaves.get(entry.secs), la)?;

    let epoch = enclave.with(|state| state.tracking.epoch());
    leaf.package.epcm.update(page, |entry| {
        entry.flags.remove(Flags::RWX | Flags::PR);
        entry.flags.insert(Flags::MODIFIED);
        entry.page_type = asked.unwrap_or(PageType::Trim);
        entry.epoch = epoch;
    });
    Ok(Done::Success)
}
