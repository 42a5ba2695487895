//! The second judge: floating point by LLVM's soft float, with the rules x86
//! adds to IEEE 754 (*SDM vol. 1 §4.8, §8.5, §11.5*). Where Kluis executes an
//! instruction on the host, comparing with the host compares it with itself.

mod ieee;
mod sse;
mod x87;

use iced_x86::Instruction;

use crate::snapshot::{Outcome, Registers};

/// Judges Kluis's outcome: `None` if the instruction, or this case of it, is
/// not known here, else what is wrong. `operand` holds the bytes at the memory operand.
pub fn judge(
    insn: &Instruction,
    before: &Registers,
    operand: Option<&[u8]>,
    kluis: &Outcome,
) -> Option<Result<(), String>> {
    if kluis.fault.is_some() {
        return None;
    }
    sse::judge(insn, before, operand, &kluis.regs).or_else(|| x87::judge(insn, before, operand, &kluis.regs))
}
