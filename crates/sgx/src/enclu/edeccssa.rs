//! EDECCSSA: makes the SSA frame below the current one current (*SDM vol. 3D,
//! EDECCSSA*). For a thread that handled a notification and wants to go on
//! where the exit interrupted it, without leaving the enclave.
//!
//! CET rows of the SDM have no counterpart: no model offers CET.

use super::entry::{self, FrameRules, PageRules, Stack, TCS_CSSA, TcsHead};
use crate::claim::{Lane, Mode};
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::{Stop, rules};

rules! { EDECCSSA {
    TCS_FREE: Gp, "no other leaf works on the TCS";
    FRAME_USED: Gp, "TCS.CSSA is not 0";
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
}}

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

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let long64 = leaf.port.control().long64;
    // The instruction's own check comes first; outside there is nothing to step down.
    let Some(thread) = leaf.port.thread() else { return Err(Stop::Refused(&super::INSIDE, 0)) };
    let page = thread.tcs;
    let mut stack = Stack {
        long64,
        base: thread.base,
        ossa: 0,
        frame_pages: thread.ssa_frame_size,
        xfrm: thread.xfrm,
        secs: thread.secs(),
    };
    let _claim = TCS_FREE.some(leaf.package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let tcs: TcsHead = leaf.package.read(page, 0)?;
    let below = FRAME_USED.some(tcs.cssa.checked_sub(1))?;
    stack.ossa = tcs.ossa;
    let frame = entry::frame(leaf, &stack, below, &FRAME)?;

    leaf.package.write(page, TCS_CSSA, &below)?;
    if let Some(thread) = leaf.port.thread_mut() {
        thread.ssa_address = frame.address;
        thread.ssa.clone_from(&frame.pages);
    }
    Ok(Done::Quiet)
}
