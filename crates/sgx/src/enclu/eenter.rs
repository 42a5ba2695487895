//! EENTER: enters an enclave (*SDM vol. 3D, EENTER*). RBX is the TCS, RCX the
//! AEP; the enclave finds CSSA in RAX and the address after EENTER in RCX.
//!
//! The checks are those of `entry`. The CET rows of the SDM have no
//! counterpart: no model offers CET.

use super::entry::{self, FrameRules, PageRules, TargetRules, TcsRules};
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::rules;

rules! { EENTER {
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
    FRAME_LEFT: Gp, "an SSA frame is left: TCS.CSSA is below TCS.NSSA";
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
    TARGET_CANONICAL: Gp, "in 64-bit mode the address to go on at is canonical";
    TARGET_IN_CS: Gp, "outside 64-bit mode the address to go on at lies in CS";
    FS_WRAP: Gp, "outside 64-bit mode FS wraps around only if DS has no holes";
    FS_LIMIT: Gp, "outside 64-bit mode FS lies in DS";
    GS_WRAP: Gp, "outside 64-bit mode GS wraps around only if DS has no holes";
    GS_LIMIT: Gp, "outside 64-bit mode GS lies in DS";
    FS_GS_CANONICAL: Gp, "in 64-bit mode the bases of FS and GS are canonical";
    INACTIVE: Gp, "no processor runs on the TCS";
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

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let candidate = entry::candidate(leaf, &TCS)?;
    let tcs = candidate.tcs;
    FRAME_LEFT.check(tcs.cssa < tcs.nssa)?;
    let frame = entry::frame(leaf, &candidate.stack(), tcs.cssa, &FRAME)?;
    let target = candidate.at(tcs.oentry);
    let bases = [candidate.at(tcs.ofsbase), candidate.at(tcs.ogsbase)];
    entry::target(leaf, &candidate, target, bases, &TARGET)?;
    entry::activate(leaf, &candidate, TARGET.inactive)?;

    let outside = entry::hand_over(leaf, frame.gpr, tcs.cssa)?;
    entry::enter(leaf, candidate, &frame, bases, outside, true)?;
    leaf.port.jump(target);
    Ok(Done::Jump)
}
