//! Privileged and control instructions (*SDM vol. 3A chapters 2, 5, 6; vol. 2*).
//!
//! * [`far`]: far transfers, with `callgate`; [`interrupt`]: INT n, IRET, HLT; [`syscall`]: SYSCALL, SYSENTER and their returns
//! * [`flag`]: PUSHF, POPF, CLI, STI; [`control`]: CR0–CR8, DR0–DR7, XCR0
//! * [`table`]: GDTR, IDTR, LDTR, TR, and what inspects descriptors
//! * [`translation`]: INVLPG, INVPCID, cache control; [`msr`]: RDMSR, TSC, FS and GS bases
//! * [`misc`]: CPUID, random numbers, MONITOR; [`undefined`]: what is always `#UD`
//! * [`sgx`]: ENCLS and ENCLU

mod callgate;
pub(super) mod control;
pub(super) mod far;
pub(super) mod flag;
pub(super) mod interrupt;
pub(super) mod misc;
pub(super) mod msr;
pub(super) mod sgx;
pub(super) mod syscall;
pub(super) mod table;
pub(super) mod translation;
pub(super) mod undefined;

pub(crate) use control::{is_xcr0, xcr0_allowed};
pub(crate) use flag::sti_before_last;
pub(crate) use misc::{Entropy, MONITOR_LINE, Monitor};

use crate::decode::Build;
use crate::op::Handler;

/// MOV to or from a segment, control or debug register.
pub(super) fn mov_special(b: &mut Build<'_>) -> Option<Handler> {
    let special = (0..2).find(|&n| b.is_reg(n) && !b.insn.op_register(n).is_gpr())?;
    let register = b.insn.op_register(special);
    if register.is_segment_register() {
        super::segment::mov(b, special)
    } else if register.is_cr() {
        control::mov_cr(b, special)
    } else if register.is_dr() {
        control::mov_dr(b, special)
    } else {
        None
    }
}
