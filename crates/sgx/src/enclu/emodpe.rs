//! EMODPE: the enclave extends the permissions of one of its pages (*SDM vol. 3D,
//! EMODPE*). RBX is a SECINFO with the permissions to add, RCX the page.

use sgx_abi::{PAGE_SIZE, PageType, Secinfo, SecinfoFlags};

use super::operand::{Running, page_offset};
use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EMODPE {
    SECINFO_ALIGNED: Gp, "SECINFO is aligned to 64 bytes";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    IN_ELRANGE: Gp, "SECINFO and the page are inside the enclave's range";
    SECINFO_IN_EPC: Pf, "SECINFO is in the EPC";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    SECINFO_USABLE: Pf, "SECINFO's page is a regular, accepted, unblocked, readable page of the enclave, in its place";
    SECINFO_RESERVED: Gp, "the reserved fields of SECINFO are zero";
    PAGE_USABLE: Pf, "the page is a regular, accepted, unblocked page of the enclave";
    PAGE_FREE: Gp, "no other SGX2 leaf works on the page";
    PAGE_PLACE: Pf, "the claimed page is still a regular, accepted page of the enclave, and in its place";
    READABLE: Gp, "the page does not become writable without being readable";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let running = Running::of(leaf)?;
    let package = leaf.package;
    let info_la = leaf.port.linear(leaf.rbx(), Secinfo::SIZE as u64)?;
    SECINFO_ALIGNED.check(info_la.is_multiple_of(Secinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    IN_ELRANGE.check(running.has(info_la) && running.has(la))?;
    let info_page = SECINFO_IN_EPC.some_at(leaf.resolve(info_la, Access::Read)?, info_la)?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Read)?, la)?;
    let entry = leaf.entry(info_page);
    SECINFO_USABLE.check_at(running.may_use(&entry, info_la, Flags::R) && !entry.blocked(), info_la)?;
    let secinfo: Secinfo = package.read(info_page, page_offset(info_la))?;
    SECINFO_RESERVED.check(secinfo.reserved_is_zero())?;

    let usable = |e: &Entry| e.is(PageType::Reg) && !e.unaccepted() && e.secs == running.secs;
    let entry = leaf.entry(page);
    PAGE_USABLE.check_at(usable(&entry) && !entry.blocked(), la)?;
    let _claim = PAGE_FREE.some(package.claims.claim(page, Lane::Modify, Mode::Exclusive))?;

    let [r, w, x] = [SecinfoFlags::R, SecinfoFlags::W, SecinfoFlags::X].map(|f| secinfo.flags.contains(f));
    let mut added = Flags::empty();
    added.set(Flags::R, r);
    added.set(Flags::W, w);
    added.set(Flags::X, x);
    // The table leaves the page to the base lane's leaves: looking again and changing are one step.
    let (mut in_place, mut readable) = (false, false);
    package.epcm.update(page, |e| {
        in_place = usable(e) && e.address == la;
        readable = e.flags.contains(Flags::R) || r || !w;
        if in_place && readable {
            e.flags |= added;
        }
    });
    PAGE_PLACE.check_at(in_place, la)?;
    READABLE.check(readable)?;
    Ok(Done::Quiet)
}
