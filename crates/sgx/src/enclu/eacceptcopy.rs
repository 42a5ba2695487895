//! EACCEPTCOPY: the enclave accepts a page that EAUG added and fills it with a
//! copy of another one, with the permissions it wants (*SDM vol. 3D,
//! EACCEPTCOPY*). RBX is a SECINFO, RCX the pending page, RDX the source.
//!
//! Where the text names the source's R and BLOCKED bit under the other page's
//! name, and the other way round, the row's page is meant.

use sgx_abi::{PAGE_SIZE, PageType, Secinfo, SecinfoFlags, Status};
use zeroize::Zeroizing;

use super::operand::{Running, page_offset};
use crate::claim::{Lane, Mode};
use crate::epcm::{Entry, Flags};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EACCEPTCOPY {
    SECINFO_ALIGNED: Gp, "SECINFO is aligned to 64 bytes";
    PAGES_ALIGNED: Gp, "RCX and RDX are addresses of pages";
    IN_ELRANGE: Gp, "SECINFO and both pages are inside the enclave's range";
    SECINFO_IN_EPC: Pf, "SECINFO is in the EPC";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    SOURCE_IN_EPC: Pf, "RDX leads to the EPC";
    SECINFO_USABLE: Pf, "SECINFO's page is a regular, accepted, unblocked, readable page of the enclave, in its place";
    SECINFO_VALID: Gp, "SECINFO has no reserved bits, is of a regular page, and not writable without being readable";
    SOURCE_USABLE: Pf, "the source is a regular, accepted, unblocked, readable page of the enclave, in its place";
    PAGE_PENDING: (Status::PageAttributesMismatch), "the page is a pending, unblocked regular page of the enclave";
    PAGE_FREE: Gp, "no other SGX2 leaf works on the page";
    PAGE_MATCHES: (Status::PageAttributesMismatch), "the claimed page is still pending, readable and writable only, and in its place";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let running = Running::of(leaf)?;
    let package = leaf.package;
    let info_la = leaf.port.linear(leaf.rbx(), Secinfo::SIZE as u64)?;
    SECINFO_ALIGNED.check(info_la.is_multiple_of(Secinfo::ALIGN))?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    let source_la = leaf.port.linear(leaf.rdx(), PAGE_SIZE as u64)?;
    PAGES_ALIGNED.check((la | source_la).is_multiple_of(PAGE_SIZE as u64))?;
    IN_ELRANGE.check([info_la, la, source_la].iter().all(|&la| running.has(la)))?;
    let info_page = SECINFO_IN_EPC.some_at(leaf.resolve(info_la, Access::Read)?, info_la)?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let source = SOURCE_IN_EPC.some_at(leaf.resolve(source_la, Access::Read)?, source_la)?;

    let readable = |e: &Entry, la| running.may_use(e, la, Flags::R) && !e.blocked();
    SECINFO_USABLE.check_at(readable(&leaf.entry(info_page), info_la), info_la)?;
    let secinfo: Secinfo = package.read(info_page, page_offset(info_la))?;
    let [r, w, x] = [SecinfoFlags::R, SecinfoFlags::W, SecinfoFlags::X].map(|f| secinfo.flags.contains(f));
    let regular = secinfo.flags.page_type() == Some(PageType::Reg);
    SECINFO_VALID.check(secinfo.reserved_is_zero() && (r || !w) && regular)?;
    SOURCE_USABLE.check_at(readable(&leaf.entry(source), source_la), source_la)?;

    let pending = |e: &Entry| {
        e.is(PageType::Reg)
            && e.secs == running.secs
            && e.flags.contains(Flags::PENDING)
            && !e.flags.intersects(Flags::MODIFIED)
    };
    let entry = leaf.entry(page);
    PAGE_PENDING.check(pending(&entry) && !entry.blocked())?;
    let _claim = PAGE_FREE.some(package.claims.claim(page, Lane::Modify, Mode::Exclusive))?;
    let matches = |e: &Entry| {
        let permissions = e.flags & Flags::RWX;
        pending(e) && permissions == Flags::R | Flags::W && e.address == la
    };
    PAGE_MATCHES.check(matches(&leaf.entry(page)))?;

    let mut content = Zeroizing::new([0; PAGE_SIZE]);
    package.dram.read(source.0, 0, &mut content[..])?;
    package.dram.write(page.0, 0, &content[..])?;
    package.epcm.update(page, |e| {
        e.flags.set(Flags::R, r);
        e.flags.set(Flags::W, w);
        e.flags.set(Flags::X, x);
        e.flags.remove(Flags::PENDING);
    });
    Ok(Done::Success)
}
