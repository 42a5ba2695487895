//! ERESUME: enters an enclave where an asynchronous exit interrupted it (*SDM
//! vol. 3D, ERESUME*). RBX is the TCS, RCX the AEP.
//!
//! The checks are those of `entry`, on the frame below TCS.CSSA. If the
//! TCS has AEX-Notify and the thread asked for it in that frame, ERESUME enters
//! the enclave as EENTER does, on the frame at TCS.CSSA (*"AEX-Notify"*). Two
//! sentences of the SDM are read by their purpose: RCX then is the address after
//! ERESUME, although the text sets RIP first; and the TF to go back to is that
//! of the host, although the text saves it after clearing it.
//!
//! The CET rows of the SDM have no counterpart: no model offers CET.

use arch::Exception;
use arch::regs::rflags;
use sgx_abi::{GprSgx, TcsFlags};
use zerocopy::IntoBytes;
use zeroize::Zeroize;

use super::entry::{
    self, Candidate, Frame, FrameRules, GPR_OFFSET, PageRules, TCS_CSSA, TargetRules, TcsRules,
};
use crate::aex::{Image, XSAVE_HEADER, registers};
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::{Stop, rules};

rules! { ERESUME {
    DS_EXPAND_UP: Gp, "outside 64-bit mode DS is usable and does not expand down";
    CS_DS_BASE: Gp, "outside 64-bit mode CS and DS have base 0";
    ES_BASE: Gp, "outside 64-bit mode ES, if usable, has base 0";
    SS_BASE: Gp, "outside 64-bit mode SS, if usable, has base 0";
    SS_BIG: Gp, "outside 64-bit mode SS, if usable, is a 32-bit segment";
    TCS_ALIGNED: Gp, "RBX is the address of a page";
    TCS_IN_EPC: Pf, "RBX leads to the EPC";
    AEP_CANONICAL: Gp, "in 64-bit mode the AEP in RCX is canonical";
    TCS_FREE: Gp, "no other leaf works on the TCS";
    TCS_VALID: Pf, "the page is valid";
    TCS_UNBLOCKED: Pf, "the page is not blocked";
    TCS_PLACE: Pf, "the page is a TCS, and at its address in the enclave";
    TCS_ACCEPTED: Pf, "the page is neither pending nor modified";
    OSSA_ALIGNED: Gp, "TCS.OSSA is a multiple of the page size";
    FS_GS_ALIGNED: Gp, "TCS.OFSBASE and TCS.OGSBASE are multiples of the page size";
    FLAGS_RESERVED: Gp, "the reserved bits of TCS.FLAGS are zero";
    INITIALIZED: Gp, "the enclave is initialized";
    MODE: Gp, "the processor's mode is the enclave's, 64-bit or not";
    OSFXSR: Gp, "CR4.OSFXSR is set";
    XFRM_LEGACY: Gp, "without CR4.OSXSAVE the enclave's XFRM is 3";
    XFRM_IN_XCR0: Gp, "with CR4.OSXSAVE the enclave's XFRM is a subset of XCR0";
    AEXNOTIFY_AGREES: Gp, "TCS.FLAGS.AEXNOTIFY is the enclave's attribute, or the TCS is opted in to debugging";
    FRAME_USED: Gp, "an SSA frame is in use: TCS.CSSA is not 0";
    XSAVE_IN_EPC: Pf, "the pages of the XSAVE area of the frame lead to the EPC";
    XSAVE_VALID: Pf, "the pages of the XSAVE area of the frame are valid";
    XSAVE_UNBLOCKED: Pf, "the pages of the XSAVE area of the frame are not blocked";
    XSAVE_ACCEPTED: Pf, "the pages of the XSAVE area of the frame are neither pending nor modified";
    XSAVE_USABLE: Pf, "the pages of the XSAVE area of the frame are regular pages of the enclave, in their place, readable and writable";
    GPR_IN_EPC: Pf, "the pages of GPRSGX of the frame lead to the EPC";
    GPR_VALID: Pf, "the pages of GPRSGX of the frame are valid";
    GPR_UNBLOCKED: Pf, "the pages of GPRSGX of the frame are not blocked";
    GPR_ACCEPTED: Pf, "the pages of GPRSGX of the frame are neither pending nor modified";
    GPR_USABLE: Pf, "the pages of GPRSGX of the frame are regular pages of the enclave, in their place, readable and writable";
    GPR_IN_DS: Gp, "outside 64-bit mode GPRSGX of the frame lies in DS";
    NOTIFY_FRAME_LEFT: Gp, "an SSA frame is left for the notification: TCS.CSSA is below TCS.NSSA";
    NOTIFY_XSAVE_IN_EPC: Pf, "the pages of the XSAVE area of the notification's frame lead to the EPC";
    NOTIFY_XSAVE_VALID: Pf, "the pages of the XSAVE area of the notification's frame are valid";
    NOTIFY_XSAVE_UNBLOCKED: Pf, "the pages of the XSAVE area of the notification's frame are not blocked";
    NOTIFY_XSAVE_ACCEPTED: Pf, "the pages of the XSAVE area of the notification's frame are neither pending nor modified";
    NOTIFY_XSAVE_USABLE: Pf, "the pages of the XSAVE area of the notification's frame are regular pages of the enclave, in their place, readable and writable";
    NOTIFY_GPR_IN_EPC: Pf, "the pages of GPRSGX of the notification's frame lead to the EPC";
    NOTIFY_GPR_VALID: Pf, "the pages of GPRSGX of the notification's frame are valid";
    NOTIFY_GPR_UNBLOCKED: Pf, "the pages of GPRSGX of the notification's frame are not blocked";
    NOTIFY_GPR_ACCEPTED: Pf, "the pages of GPRSGX of the notification's frame are neither pending nor modified";
    NOTIFY_GPR_USABLE: Pf, "the pages of GPRSGX of the notification's frame are regular pages of the enclave, in their place, readable and writable";
    NOTIFY_GPR_IN_DS: Gp, "outside 64-bit mode GPRSGX of the notification's frame lies in DS";
    TARGET_CANONICAL: Gp, "in 64-bit mode the address to go on at is canonical";
    TARGET_IN_CS: Gp, "outside 64-bit mode the address to go on at lies in CS";
    FS_WRAP: Gp, "outside 64-bit mode FS wraps around only if DS has no holes";
    FS_LIMIT: Gp, "outside 64-bit mode FS lies in DS";
    GS_WRAP: Gp, "outside 64-bit mode GS wraps around only if DS has no holes";
    GS_LIMIT: Gp, "outside 64-bit mode GS lies in DS";
    FS_GS_CANONICAL: Gp, "in 64-bit mode the bases of FS and GS are canonical";
    INACTIVE: Gp, "no processor runs on the TCS";
    XSAVE_HEADER_VALID: Gp, "the frame's XSTATE_BV is a subset of XFRM, and bytes 520 to 535 are zero";
    XRSTOR: Gp, "XRSTOR accepts the frame's XSAVE area";
}}

static TCS: TcsRules = TcsRules {
    ds_expand_up: &DS_EXPAND_UP,
    cs_ds_base: &CS_DS_BASE,
    es_base: &ES_BASE,
    ss_base: &SS_BASE,
    ss_big: &SS_BIG,
    aligned: &TCS_ALIGNED,
    in_epc: &TCS_IN_EPC,
    aep_canonical: &AEP_CANONICAL,
    free: &TCS_FREE,
    valid: &TCS_VALID,
    unblocked: &TCS_UNBLOCKED,
    place: &TCS_PLACE,
    accepted: &TCS_ACCEPTED,
    ossa_aligned: &OSSA_ALIGNED,
    fs_gs_aligned: &FS_GS_ALIGNED,
    flags_reserved: &FLAGS_RESERVED,
    initialized: &INITIALIZED,
    mode: &MODE,
    osfxsr: &OSFXSR,
    xfrm_legacy: &XFRM_LEGACY,
    xfrm_in_xcr0: &XFRM_IN_XCR0,
    aexnotify: &AEXNOTIFY_AGREES,
};

static FRAME: FrameRules = FrameRules {
    xsave: PageRules {
        in_epc: &XSAVE_IN_EPC,
        valid: &XSAVE_VALID,
        unblocked: &XSAVE_UNBLOCKED,
        accepted: &XSAVE_ACCEPTED,
        usable: &XSAVE_USABLE,
    },
    gpr: PageRules {
        in_epc: &GPR_IN_EPC,
        valid: &GPR_VALID,
        unblocked: &GPR_UNBLOCKED,
        accepted: &GPR_ACCEPTED,
        usable: &GPR_USABLE,
    },
    gpr_in_ds: &GPR_IN_DS,
};

static NOTIFY_FRAME: FrameRules = FrameRules {
    xsave: PageRules {
        in_epc: &NOTIFY_XSAVE_IN_EPC,
        valid: &NOTIFY_XSAVE_VALID,
        unblocked: &NOTIFY_XSAVE_UNBLOCKED,
        accepted: &NOTIFY_XSAVE_ACCEPTED,
        usable: &NOTIFY_XSAVE_USABLE,
    },
    gpr: PageRules {
        in_epc: &NOTIFY_GPR_IN_EPC,
        valid: &NOTIFY_GPR_VALID,
        unblocked: &NOTIFY_GPR_UNBLOCKED,
        accepted: &NOTIFY_GPR_ACCEPTED,
        usable: &NOTIFY_GPR_USABLE,
    },
    gpr_in_ds: &NOTIFY_GPR_IN_DS,
};

static TARGET: TargetRules = TargetRules {
    canonical: &TARGET_CANONICAL,
    in_cs: &TARGET_IN_CS,
    fs_wrap: &FS_WRAP,
    fs_limit: &FS_LIMIT,
    gs_wrap: &GS_WRAP,
    gs_limit: &GS_LIMIT,
    fs_gs_canonical: &FS_GS_CANONICAL,
    inactive: &INACTIVE,
};

/// Flags that a frame restores, whatever the host's.
const RESTORED: u64 = rflags::STATUS | rflags::DF | rflags::NT | rflags::AC | rflags::ID | rflags::RF;

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let candidate = entry::candidate(leaf, &TCS)?;
    let tcs = candidate.tcs;
    let below = FRAME_USED.some(tcs.cssa.checked_sub(1))?;
    let frame = entry::frame(leaf, &candidate.stack(), below, &FRAME)?;
    let mut gpr: GprSgx = leaf.package.read(frame.gpr, GPR_OFFSET)?;
    let flags = TcsFlags::from_bits_retain(tcs.flags);
    let ran = if flags.contains(TcsFlags::AEXNOTIFY) && gpr.aexnotify & GprSgx::AEXNOTIFY != 0 {
        notify(leaf, candidate)
    } else {
        resume(leaf, candidate, &frame, below, &gpr)
    };
    gpr.as_mut_bytes().zeroize();
    ran
}

/// Enters at the entry point, on the next frame.
fn notify(leaf: &mut Leaf<'_>, candidate: Candidate<'_>) -> Ran {
    let tcs = candidate.tcs;
    NOTIFY_FRAME_LEFT.check(tcs.cssa < tcs.nssa)?;
    let frame = entry::frame(leaf, &candidate.stack(), tcs.cssa, &NOTIFY_FRAME)?;
    let target = candidate.at(tcs.oentry);
    let bases = [candidate.at(tcs.ofsbase), candidate.at(tcs.ogsbase)];
    entry::target(leaf, &candidate, target, bases, &TARGET)?;
    entry::activate(leaf, &candidate, TARGET.inactive)?;

    let outside = entry::hand_over(leaf, frame.gpr, tcs.cssa)?;
    entry::enter(leaf, candidate, &frame, bases, outside, true)?;
    leaf.port.jump(target);
    Ok(Done::Jump)
}

/// Goes on where the frame says.
fn resume(leaf: &mut Leaf<'_>, candidate: Candidate<'_>, frame: &Frame<'_>, below: u32, gpr: &GprSgx) -> Ran {
    let (tcs, secs, page) = (candidate.tcs, candidate.secs, candidate.page);
    let long64 = candidate.control.long64;
    let (target, bases) = if long64 {
        (gpr.rip, [gpr.fsbase, gpr.gsbase])
    } else {
        (gpr.rip & 0xffff_ffff, [candidate.at(tcs.ofsbase), candidate.at(tcs.ogsbase)])
    };
    entry::target(leaf, &candidate, target, bases, &TARGET)?;
    entry::activate(leaf, &candidate, TARGET.inactive)?;
    // From here a refusal gives the TCS back.
    if let Err(stop) = restore_extended(leaf, frame, secs.xfrm) {
        entry::deactivate(leaf.package, page)?;
        return Err(stop);
    }

    let outside = leaf.port.rflags();
    leaf.package.write(page, TCS_CSSA, &below)?;
    entry::enter(leaf, candidate, frame, bases, [gpr.ursp, gpr.urbp], false)?;
    for (number, value) in registers(gpr).into_iter().enumerate() {
        if long64 {
            leaf.port.set_gpr(number, value);
        } else if number < 8 {
            leaf.port.set_gpr(number, value & 0xffff_ffff);
        }
    }
    let mut restored = RESTORED;
    if outside & rflags::IOPL == rflags::IOPL {
        restored |= rflags::IF;
    }
    // after `enter`, which has cleared TF on opt-out entry
    let flags = leaf.port.rflags() & !(restored | rflags::VM) | gpr.rflags & restored;
    leaf.port.set_rflags(flags);
    leaf.port.jump(target);
    Ok(Done::Jump)
}

/// Loads the state of XFRM from the frame.
fn restore_extended(leaf: &mut Leaf<'_>, frame: &Frame<'_>, xfrm: u64) -> Result<(), Stop> {
    let mut image = Image::new(leaf.port, xfrm);
    image.load(leaf.package, &frame.pages)?;
    let header = &image.bytes()[XSAVE_HEADER..];
    let (xstate_bv, zero) = (&header[..8], &header[8..24]);
    let xstate_bv = xstate_bv.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
    XSAVE_HEADER_VALID.check(xstate_bv & !xfrm == 0 && zero.iter().all(|&byte| byte == 0))?;
    let restored: Result<(), Exception> = leaf.port.xrstor(xfrm, image.bytes());
    XRSTOR.check(restored.is_ok())
}
