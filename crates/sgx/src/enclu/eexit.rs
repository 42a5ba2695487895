//! EEXIT: leaves the enclave for the address in RBX (*SDM vol. 3D, EEXIT*). RCX
//! receives the AEP. An address inside the enclave is allowed: the next fetch
//! comes from outside and finds the abort page.
//!
//! CET state is not restored: no model offers CET.

use arch::paging::is_canonical;
use arch::regs::{gpr, rflags};

use super::entry;
use crate::leaf::{Done, Leaf, Ran};
use crate::rule::{Stop, rules};

rules! { EEXIT {
    TARGET_CANONICAL: Gp, "in 64-bit mode RBX is canonical";
    TARGET_IN_CS: Gp, "outside 64-bit mode RBX lies in CS";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let mut target = leaf.rbx();
    if leaf.port.control().long64 {
        TARGET_CANONICAL.check(is_canonical(target))?;
    } else {
        target &= 0xffff_ffff;
        TARGET_IN_CS.check(target <= u64::from(leaf.port.segment(1).limit))?;
    }
    // A lost EPC does not keep anyone inside.
    let Some(thread) = entry::leave(leaf.port, leaf.package) else {
        return Err(Stop::Refused(&super::INSIDE, 0));
    };
    leaf.port.set_gpr(gpr::RCX, thread.aep);
    leaf.port.jump(target);
    if leaf.port.rflags() & rflags::TF != 0 {
        leaf.port.pend_single_step();
    }
    Ok(Done::Jump)
}
