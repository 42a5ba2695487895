//! EACCEPT: the enclave accepts what system software did to a page: added it,
//! restricted it, made it a TCS or trimmed it (*SDM vol. 3D, EACCEPT*). RBX is a
//! SECINFO that says what the enclave expects, RCX the page.
//!
//! The SDM checks the page's state again once it is claimed; both times it is the
//! same row here. No model has CET, so shadow-stack pages do not occur and a TCS's
//! OCETSSA and PREVSSP are reserved.

use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Status, Tcs, TcsFlags};

use super::entry::{INACTIVE, SecsHead};
use super::operand::{Running, page_offset};
use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, EpcPage, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::{Stop, rules};

rules! { EACCEPT {
    SECINFO_ALIGNED: Gp, "SECINFO is aligned to 64 bytes";
    SECINFO_IN_ELRANGE: Gp, "SECINFO is inside the enclave's range";
    SECINFO_IN_EPC: Pf, "SECINFO is in the EPC";
    SECINFO_USABLE: Pf, "SECINFO's page is a regular, accepted, unblocked, readable page of the enclave, in its place";
    SECINFO_RESERVED: Gp, "the reserved fields of SECINFO are zero";
    PAGE_ALIGNED: Gp, "RCX is the address of a page";
    PAGE_IN_ELRANGE: Gp, "RCX is inside the enclave's range";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    REQUEST: Gp, "SECINFO asks for a regular page that is pending or restricted, or a modified TCS or trimmed page";
    PAGE_USABLE: Pf, "the page is a valid, unblocked regular, TCS or trimmed page of the enclave";
    PAGE_FREE: Gp, "no other leaf works on the page";
    MATCHES: (Status::PageAttributesMismatch), "the page is in its place, and its type, state and permissions are SECINFO's";
    TRACKED: (Status::NotTracked), "every processor that may hold an old translation of the page has left the enclave";
    TCS_RESERVED: Gp, "the reserved fields of a TCS are zero";
    TCS_STATE: Gp, "a TCS is not opted in to debugging, has a frame left and neither AEP nor STATE";
    TCS_LIMITS: Gp, "the low 12 bits of the limits in a TCS of a 32-bit enclave are ones";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let running = Running::of(leaf)?;
    let package = leaf.package;
    let la = leaf.port.linear(leaf.rbx(), Secinfo::SIZE as u64)?;
    SECINFO_ALIGNED.check(la.is_multiple_of(Secinfo::ALIGN))?;
    SECINFO_IN_ELRANGE.check(running.has(la))?;
    let page = SECINFO_IN_EPC.some_at(leaf.resolve(la, Access::Read)?, la)?;
    let entry = leaf.entry(page);
    SECINFO_USABLE.check_at(running.may_use(&entry, la, Flags::R) && !entry.blocked(), la)?;
    let secinfo: Secinfo = package.read(page, page_offset(la))?;
    SECINFO_RESERVED.check(secinfo.reserved_is_zero())?;

    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    PAGE_ALIGNED.check(la.is_multiple_of(PAGE_SIZE as u64))?;
    PAGE_IN_ELRANGE.check(running.has(la))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Read)?, la)?;
    REQUEST.check(legal(secinfo.flags))?;
    PAGE_USABLE.check_at(acceptable(&leaf.entry(page), &running), la)?;
    let _base = PAGE_FREE.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let _modify = PAGE_FREE.some(package.claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    let entry = leaf.entry(page);
    PAGE_USABLE.check_at(acceptable(&entry, &running), la)?;
    MATCHES.check(entry.address == la && matches(&entry, secinfo.flags))?;
    if entry.flags.intersects(Flags::MODIFIED | Flags::PR) {
        let enclave = leaf.port.thread().map(|thread| thread.enclave.clone());
        let tracked = |epoch| enclave.is_some_and(|e| e.with(|s| s.tracking.tracked_since(epoch)));
        TRACKED.check(tracked(entry.epoch))?;
    }
    if entry.page_type == PageType::Tcs {
        tcs(leaf, page, &running)?;
    }

    package.epcm.update(page, |e| e.flags.remove(Flags::PENDING | Flags::MODIFIED | Flags::PR));
    Ok(Done::Success)
}

/// The combinations of type and state that can be accepted.
fn legal(flags: SecinfoFlags) -> bool {
    let [pending, modified, restricted] =
        [SecinfoFlags::PENDING, SecinfoFlags::MODIFIED, SecinfoFlags::PR].map(|bit| flags.contains(bit));
    match flags.page_type() {
        Some(PageType::Reg) => (restricted || pending) && !modified,
        Some(PageType::Tcs | PageType::Trim) => modified && !pending && !restricted,
        _ => false,
    }
}

fn acceptable(entry: &Entry, running: &Running) -> bool {
    entry.valid()
        && !entry.blocked()
        && matches!(entry.page_type, PageType::Reg | PageType::Tcs | PageType::Trim)
        && entry.secs == running.secs
}

/// PENDING, MODIFIED, R, W, X and the type agree; PR is not compared.
fn matches(entry: &Entry, flags: SecinfoFlags) -> bool {
    [
        (Flags::PENDING, SecinfoFlags::PENDING),
        (Flags::MODIFIED, SecinfoFlags::MODIFIED),
        (Flags::R, SecinfoFlags::R),
        (Flags::W, SecinfoFlags::W),
        (Flags::X, SecinfoFlags::X),
    ]
    .iter()
    .all(|&(ours, theirs)| entry.flags.contains(ours) == flags.contains(theirs))
        && flags.page_type() == Some(entry.page_type)
}

/// A regular page became a TCS: its content must be one that EADD would take.
fn tcs(leaf: &Leaf<'_>, page: EpcPage, running: &Running) -> Result<(), Stop> {
    let tcs: Tcs = leaf.package.read(page, 0)?;
    let notify = leaf.package.config.aex_notify || !tcs.flags.contains(TcsFlags::AEXNOTIFY);
    TCS_RESERVED.check(tcs.reserved_is_zero() && tcs.ocetssa == 0 && tcs.prevssp == 0 && notify)?;
    let fresh = !tcs.flags.contains(TcsFlags::DBGOPTIN)
        && tcs.cssa < tcs.nssa
        && tcs.aep == 0
        && tcs.state == INACTIVE;
    TCS_STATE.check(fresh)?;
    let secs: SecsHead = leaf.package.read(running.secs, 0)?;
    let attributes = AttributeFlags::from_bits_retain(secs.attributes);
    let limits = tcs.fslimit & tcs.gslimit & 0xfff == 0xfff;
    TCS_LIMITS.check(attributes.contains(AttributeFlags::MODE64BIT) || limits)
}
