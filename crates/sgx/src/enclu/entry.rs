//! What EENTER, ERESUME and EDECCSSA have in common: the checks of a TCS and of
//! an SSA frame, and the step into enclave mode.
//!
//! CET is not offered by any model, so the CET branches of the SDM's text have
//! no counterpart here.

use std::sync::Arc;

use arch::paging::is_canonical;
use arch::regs::{gpr, rflags};
use sgx_abi::{AttributeFlags, GprSgx, PAGE_SIZE, PageType, Secs, Tcs, TcsFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::claim::{Claim, Lane, Mode};
use crate::enclave::Enclave;
use crate::epcm::{EpcPage, Flags};
use crate::leaf::Leaf;
use crate::package::Package;
use crate::port::{Access, Control, Port, Segment};
use crate::rule::{Rule, Stop};
use crate::thread::Thread;

/// Offset of GPRSGX in the last page of an SSA frame.
pub(crate) const GPR_OFFSET: usize = PAGE_SIZE - GprSgx::SIZE;
/// TCS.STATE of a TCS that no processor runs on, and of one in use.
pub(crate) const INACTIVE: u64 = 0;
const ACTIVE: u64 = 1;
/// Selector that FS and GS get inside.
const ENCLAVE_SELECTOR: u16 = 0x0b;

/// Numbers of segment registers.
const ES: usize = 0;
const CS: usize = 1;
const SS: usize = 2;
const DS: usize = 3;
pub(crate) const FS: usize = 4;
pub(crate) const GS: usize = 5;

/// The fields of a TCS that entering uses: its first 72 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct TcsHead {
    pub state: u64,
    pub flags: u64,
    pub ossa: u64,
    pub cssa: u32,
    pub nssa: u32,
    pub oentry: u64,
    pub aep: u64,
    pub ofsbase: u64,
    pub ogsbase: u64,
    pub fslimit: u32,
    pub gslimit: u32,
}

/// The fields of a SECS that entering uses: its first 64 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct SecsHead {
    pub size: u64,
    pub baseaddr: u64,
    pub ssaframesize: u32,
    pub miscselect: u32,
    pub cet: [u8; 24],
    pub attributes: u64,
    pub xfrm: u64,
}

const _: () = {
    assert!(std::mem::offset_of!(TcsHead, gslimit) == std::mem::offset_of!(Tcs, gslimit));
    assert!(std::mem::offset_of!(TcsHead, cssa) == std::mem::offset_of!(Tcs, cssa));
    assert!(std::mem::offset_of!(TcsHead, aep) == std::mem::offset_of!(Tcs, aep));
    assert!(std::mem::offset_of!(SecsHead, attributes) == std::mem::offset_of!(Secs, attributes));
};

/// Offsets of single fields of a TCS.
pub(crate) const TCS_STATE: usize = std::mem::offset_of!(Tcs, state);
pub(crate) const TCS_CSSA: usize = std::mem::offset_of!(Tcs, cssa);
const TCS_AEP: usize = std::mem::offset_of!(Tcs, aep);

/// Rows of a leaf's table about one page of an SSA frame.
pub(crate) struct PageRules {
    pub in_epc: &'static Rule,
    pub valid: &'static Rule,
    pub unblocked: &'static Rule,
    pub accepted: &'static Rule,
    pub usable: &'static Rule,
}

/// Rows about an SSA frame.
pub(crate) struct FrameRules {
    pub xsave: PageRules,
    pub gpr: PageRules,
    pub gpr_in_ds: &'static Rule,
}

/// Rows about the TCS and the processor's mode.
pub(crate) struct TcsRules {
    pub ds_expand_up: &'static Rule,
    pub cs_ds_base: &'static Rule,
    pub es_base: &'static Rule,
    pub ss_base: &'static Rule,
    pub ss_big: &'static Rule,
    pub aligned: &'static Rule,
    pub in_epc: &'static Rule,
    pub aep_canonical: &'static Rule,
    pub free: &'static Rule,
    pub valid: &'static Rule,
    pub unblocked: &'static Rule,
    pub place: &'static Rule,
    pub accepted: &'static Rule,
    pub ossa_aligned: &'static Rule,
    pub fs_gs_aligned: &'static Rule,
    pub flags_reserved: &'static Rule,
    pub initialized: &'static Rule,
    pub mode: &'static Rule,
    pub osfxsr: &'static Rule,
    pub xfrm_legacy: &'static Rule,
    pub xfrm_in_xcr0: &'static Rule,
    pub aexnotify: &'static Rule,
}

/// Rows about where execution goes on.
pub(crate) struct TargetRules {
    pub canonical: &'static Rule,
    pub in_cs: &'static Rule,
    pub fs_wrap: &'static Rule,
    pub fs_limit: &'static Rule,
    pub gs_wrap: &'static Rule,
    pub gs_limit: &'static Rule,
    pub fs_gs_canonical: &'static Rule,
    pub inactive: &'static Rule,
}

/// Counts as inside the enclave; given up when dropped, unless kept. Taken before
/// the SSA's pages are looked at, so that a tracking cycle that begins meanwhile
/// waits for this entry.
struct Inside {
    enclave: Arc<Enclave>,
    epoch: u64,
    kept: bool,
}

impl Inside {
    fn new(enclave: &Arc<Enclave>) -> Inside {
        let epoch = enclave.with(|s| s.tracking.enter());
        Inside { enclave: enclave.clone(), epoch, kept: false }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.kept {
            self.enclave.with(|s| s.tracking.leave(self.epoch));
        }
    }
}

/// A TCS that may be entered, as far as its own fields go.
pub(crate) struct Candidate<'a> {
    pub control: Control,
    pub address: u64,
    pub page: EpcPage,
    pub aep: u64,
    pub tcs: TcsHead,
    pub secs: SecsHead,
    pub enclave: Arc<Enclave>,
    inside: Inside,
    _claim: Claim<'a>,
}

/// An SSA frame whose pages may be used. The claims keep the pages from being
/// removed or evicted until the processor counts as inside for good.
pub(crate) struct Frame<'a> {
    pub address: u64,
    /// As in [`Thread::ssa`].
    pub pages: Vec<Option<EpcPage>>,
    pub gpr: EpcPage,
    _claims: Vec<Claim<'a>>,
}

fn usable(segment: &Segment) -> bool {
    segment.attr & 1 << 7 != 0
}

/// The mode of the processor, and the TCS in RBX with the AEP in RCX.
pub(crate) fn candidate<'a>(leaf: &mut Leaf<'a>, rules: &TcsRules) -> Result<Candidate<'a>, Stop> {
    let package: &'a Package = leaf.package;
    let control = leaf.port.control();
    if !control.long64 {
        flat_segments(leaf.port, rules)?;
    }
    let address = leaf.port.linear(leaf.rbx(), PAGE_SIZE as u64)?;
    rules.aligned.check(address.is_multiple_of(PAGE_SIZE as u64))?;
    let page = rules.in_epc.some_at(leaf.resolve(address, Access::Read)?, address)?;
    let aep = if control.long64 { leaf.rcx() } else { leaf.rcx() & 0xffff_ffff };
    rules.aep_canonical.check(!control.long64 || is_canonical(aep))?;
    let claim = rules.free.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;

    let entry = leaf.entry(page);
    rules.valid.check_at(entry.valid(), address)?;
    rules.unblocked.check_at(!entry.blocked(), address)?;
    rules.place.check_at(entry.address == address && entry.page_type == PageType::Tcs, address)?;
    rules.accepted.check_at(!entry.unaccepted(), address)?;

    let tcs: TcsHead = package.read(page, 0)?;
    rules.ossa_aligned.check(tcs.ossa.is_multiple_of(PAGE_SIZE as u64))?;
    let bases_aligned = (tcs.ofsbase | tcs.ogsbase).is_multiple_of(PAGE_SIZE as u64);
    rules.fs_gs_aligned.check(bases_aligned)?;
    let mut defined = TcsFlags::DBGOPTIN;
    if package.config.aex_notify {
        defined |= TcsFlags::AEXNOTIFY;
    }
    rules.flags_reserved.check(tcs.flags & !defined.bits() == 0)?;

    let enclave = rules.initialized.some(package.enclaves.get(entry.secs))?;
    let secs: SecsHead = package.read(entry.secs, 0)?;
    let attributes = AttributeFlags::from_bits_retain(secs.attributes);
    rules.initialized.check(attributes.contains(AttributeFlags::INIT))?;
    rules.mode.check(attributes.contains(AttributeFlags::MODE64BIT) == control.long64)?;
    rules.osfxsr.check(control.osfxsr)?;
    rules.xfrm_legacy.check(control.osxsave || secs.xfrm == 3)?;
    rules.xfrm_in_xcr0.check(!control.osxsave || secs.xfrm & !control.xcr0 == 0)?;
    let flags = TcsFlags::from_bits_retain(tcs.flags);
    let notify = attributes.contains(AttributeFlags::AEXNOTIFY);
    let agrees = flags.contains(TcsFlags::AEXNOTIFY) == notify;
    rules.aexnotify.check(flags.contains(TcsFlags::DBGOPTIN) || agrees)?;
    let inside = Inside::new(&enclave);
    // EBLOCK and ETRACK since the check above did not count this thread
    rules.unblocked.check_at(!leaf.entry(page).blocked(), address)?;
    Ok(Candidate { control, address, page, aep, tcs, secs, enclave, inside, _claim: claim })
}

/// Outside 64-bit mode: DS is an ordinary data segment, and everything is flat.
fn flat_segments(port: &dyn Port, rules: &TcsRules) -> Result<(), Stop> {
    let ds = port.segment(DS);
    // S set, not code, expand-down
    let expand_down = ds.attr & 0b1_1100 == 0b1_0100;
    rules.ds_expand_up.check(usable(&ds) && !expand_down)?;
    rules.cs_ds_base.check(port.segment(CS).base == 0 && ds.base == 0)?;
    let (es, ss) = (port.segment(ES), port.segment(SS));
    rules.es_base.check(!usable(&es) || es.base == 0)?;
    rules.ss_base.check(!usable(&ss) || ss.base == 0)?;
    rules.ss_big.check(!usable(&ss) || ss.attr & 1 << 14 != 0)
}

/// Where an SSA stack is: what a frame is computed from.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    pub long64: bool,
    pub base: u64,
    pub ossa: u64,
    pub frame_pages: u32,
    pub xfrm: u64,
    pub secs: EpcPage,
}

impl Candidate<'_> {
    /// Its SSA stack.
    pub(crate) fn stack(&self) -> Stack {
        Stack {
            long64: self.control.long64,
            base: self.secs.baseaddr,
            ossa: self.tcs.ossa,
            frame_pages: self.secs.ssaframesize,
            xfrm: self.secs.xfrm,
            secs: self.enclave.secs,
        }
    }

    /// A linear address at an offset from the enclave's base.
    pub(crate) fn at(&self, offset: u64) -> u64 {
        let la = self.secs.baseaddr.wrapping_add(offset);
        if self.control.long64 { la } else { la & 0xffff_ffff }
    }
}

/// SSA frame number `index`: the pages of its XSAVE area and of GPRSGX.
pub(crate) fn frame<'a>(
    leaf: &mut Leaf<'a>,
    stack: &Stack,
    index: u32,
    rules: &FrameRules,
) -> Result<Frame<'a>, Stop> {
    let mask = if stack.long64 { u64::MAX } else { 0xffff_ffff };
    let frame_bytes = u64::from(stack.frame_pages) * PAGE_SIZE as u64;
    let offset = frame_bytes.wrapping_mul(u64::from(index)).wrapping_add(stack.ossa);
    let address = stack.base.wrapping_add(offset) & mask;
    let mut pages = Vec::new();
    let mut claims = Vec::new();
    let xsave_pages = leaf.port.xsave_size(stack.xfrm).div_ceil(PAGE_SIZE);
    for i in 0..xsave_pages as u64 {
        let la = address.wrapping_add(i * PAGE_SIZE as u64) & mask;
        let (page, claim) = ssa_page(leaf, la, PAGE_SIZE as u64, stack.secs, &rules.xsave)?;
        pages.push(Some(page));
        claims.push(claim);
    }
    // the last page: GPRSGX, and EXINFO right below it
    let last = address.wrapping_add(frame_bytes).wrapping_sub(PAGE_SIZE as u64) & mask;
    let (gpr, claim) = ssa_page(leaf, last, 1, stack.secs, &rules.gpr)?;
    if !stack.long64 {
        let inside = leaf.port.linear(last + GPR_OFFSET as u64, GprSgx::SIZE as u64).is_ok();
        rules.gpr_in_ds.check(inside)?;
    }
    pages.push(Some(gpr));
    claims.push(claim);
    Ok(Frame { address, pages, gpr, _claims: claims })
}

fn ssa_page<'a>(
    leaf: &mut Leaf<'a>,
    la: u64,
    len: u64,
    secs: EpcPage,
    rules: &PageRules,
) -> Result<(EpcPage, Claim<'a>), Stop> {
    let package: &'a Package = leaf.package;
    let la = leaf.port.linear(la, len)?;
    let page = rules.in_epc.some_at(leaf.resolve(la, Access::Write)?, la)?;
    // Whoever holds the page alone removes, evicts or makes it: as good as not valid.
    let claim = rules.valid.some_at(package.claims.claim(page, Lane::Base, Mode::Shared), la)?;
    let entry = leaf.entry(page);
    rules.valid.check_at(entry.valid(), la)?;
    rules.unblocked.check_at(!entry.blocked(), la)?;
    rules.accepted.check_at(!entry.unaccepted(), la)?;
    let usable = entry.address == la
        && entry.page_type == PageType::Reg
        && entry.secs == secs
        && entry.flags.contains(Flags::R | Flags::W);
    rules.usable.check_at(usable, la)?;
    Ok((page, claim))
}

/// Checks the entry point and the FS and GS segments.
pub(crate) fn target(
    leaf: &Leaf<'_>,
    candidate: &Candidate<'_>,
    target: u64,
    bases: [u64; 2],
    rules: &TargetRules,
) -> Result<(), Stop> {
    if candidate.control.long64 {
        rules.canonical.check(is_canonical(target))?;
        return rules.fs_gs_canonical.check(bases.iter().all(|&base| is_canonical(base)));
    }
    rules.in_cs.check(target <= u64::from(leaf.port.segment(CS).limit))?;
    let ds_limit = leaf.port.segment(DS).limit;
    let limits = [candidate.tcs.fslimit, candidate.tcs.gslimit];
    let by_segment = [(rules.fs_wrap, rules.fs_limit), (rules.gs_wrap, rules.gs_limit)];
    for ((base, limit), (wrap, within)) in bases.into_iter().zip(limits).zip(by_segment) {
        let last = (base as u32).wrapping_add(limit);
        if last < base as u32 {
            // a segment that wraps around needs a DS without holes
            wrap.check(ds_limit == u32::MAX)?;
        } else {
            within.check(last <= ds_limit)?;
        }
    }
    Ok(())
}

/// Makes the TCS active, unless a processor runs on it. After this only a lost
/// EPC and XRSTOR can stop the leaf.
pub(crate) fn activate(
    leaf: &Leaf<'_>,
    candidate: &Candidate<'_>,
    inactive: &'static Rule,
) -> Result<(), Stop> {
    // The enclave's lock makes looking and setting one step.
    candidate.enclave.with(|_| {
        let state: u64 = leaf.package.read(candidate.page, TCS_STATE)?;
        inactive.check(state == INACTIVE)?;
        Ok(leaf.package.write(candidate.page, TCS_STATE, &ACTIVE)?)
    })
}

/// Gives an activated TCS back.
pub(crate) fn deactivate(package: &Package, tcs: EpcPage) -> Result<(), mee::Lost> {
    package.write(tcs, TCS_STATE, &INACTIVE)
}

/// Steps into enclave mode: saves what leaving restores, loads FS and GS, XCR0
/// and TF. `pend`: an opt-in entry with TF set traps after this instruction.
/// General registers and RIP are the caller's.
pub(crate) fn enter(
    leaf: &mut Leaf<'_>,
    mut candidate: Candidate<'_>,
    frame: &Frame<'_>,
    bases: [u64; 2],
    outside_stack: [u64; 2],
    pend: bool,
) -> Result<(), Stop> {
    leaf.package.write(candidate.page, TCS_AEP, &candidate.aep)?;
    let port = &mut *leaf.port;
    let Candidate { control, tcs, secs, .. } = &candidate;
    let debug_opt_in = TcsFlags::from_bits_retain(tcs.flags).contains(TcsFlags::DBGOPTIN);
    let tf = port.rflags() & rflags::TF != 0;
    let thread = Thread {
        enclave: candidate.enclave.clone(),
        base: secs.baseaddr,
        size: secs.size,
        attributes: secs.attributes,
        xfrm: secs.xfrm,
        miscselect: secs.miscselect,
        ssa_frame_size: secs.ssaframesize,
        tcs: candidate.page,
        tcs_address: candidate.address,
        tcs_flags: tcs.flags,
        ssa: frame.pages.clone(),
        ssa_address: frame.address,
        aep: candidate.aep,
        epoch: candidate.inside.epoch,
        outside_stack,
        saved_fs_gs: [port.segment(FS), port.segment(GS)],
        saved_xcr0: control.osxsave.then_some(control.xcr0),
        saved_tf: tf && !debug_opt_in,
        debug_opt_in,
    };
    if control.osxsave {
        port.set_xcr0(secs.xfrm);
    }
    let ds = port.segment(DS).attr;
    for (number, (base, limit)) in [FS, GS].into_iter().zip(bases.into_iter().zip([tcs.fslimit, tcs.gslimit]))
    {
        let attr = enclave_attr(ds);
        port.set_segment(number, Segment { selector: ENCLAVE_SELECTOR, attr, limit, base });
    }
    if !debug_opt_in {
        let rflags = port.rflags() & !rflags::TF;
        port.set_rflags(rflags);
    }
    port.set_thread(Some(Box::new(thread)));
    if debug_opt_in && tf && pend {
        port.pend_single_step();
    }
    candidate.inside.kept = true;
    Ok(())
}

/// Access rights of FS and GS inside: a present, accessed, 32-bit data segment in
/// pages; W, DPL, AVL and L as in DS.
fn enclave_attr(ds: u16) -> u16 {
    const FIXED: u16 = 1 << 15 | 1 << 14 | 1 << 7 | 1 << 4 | 1;
    const FROM_DS: u16 = 1 << 13 | 1 << 12 | 3 << 5 | 1 << 1;
    FIXED | ds & FROM_DS
}

/// RSP and RBP of the host go into the frame, and RAX and RCX tell the enclave
/// the frame's number and where to return. Gives RSP and RBP.
pub(crate) fn hand_over(leaf: &mut Leaf<'_>, gpr_page: EpcPage, cssa: u32) -> Result<[u64; 2], Stop> {
    let outside = [leaf.port.gpr(gpr::RSP), leaf.port.gpr(gpr::RBP)];
    leaf.package.write(gpr_page, GPR_OFFSET + std::mem::offset_of!(GprSgx, ursp), &outside)?;
    let next = leaf.port.next_rip();
    leaf.port.set_gpr(gpr::RCX, next);
    leaf.port.set_gpr(gpr::RAX, u64::from(cssa));
    Ok(outside)
}

/// Leaves enclave mode, whatever the reason: FS and GS, XCR0 and TF are those of
/// the host again, the TCS is free, the processor counts as outside.
pub(crate) fn leave(port: &mut dyn Port, package: &Package) -> Option<Thread> {
    let thread = port.thread()?.clone();
    if !crate::planted!(ExitSegments) {
        port.set_segment(FS, thread.saved_fs_gs[0]);
        port.set_segment(GS, thread.saved_fs_gs[1]);
    }
    if let Some(xcr0) = thread.saved_xcr0 {
        port.set_xcr0(xcr0);
    }
    if !thread.debug_opt_in && !crate::planted!(ExitTrapFlag) {
        let tf = if thread.saved_tf { rflags::TF } else { 0 };
        let rflags = port.rflags() & !rflags::TF | tf;
        port.set_rflags(rflags);
    }
    port.set_thread(None);
    if package.is_lost() || deactivate(package, thread.tcs).is_err() {
        package.lose();
    }
    if !crate::planted!(ExitTracking) {
        thread.enclave.with(|s| s.tracking.leave(thread.epoch));
    }
    Some(thread)
}
