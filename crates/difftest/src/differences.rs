//! What may differ between processors, and is therefore not compared: the
//! written list of `docs/differences.md`, entry by entry. Nothing else is tolerated.

use arch::regs::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};
use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind};

use crate::snapshot::{Outcome, Registers};

/// One accepted difference.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Name, as in `docs/differences.md`.
    pub name: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All accepted differences.
pub const ENTRIES: &[Entry] = &[
    Entry { name: "undefined-flags", reason: "the SDM leaves these flags undefined after the instruction" },
    Entry { name: "shift-count", reason: "which flags a shift or rotate defines depends on its count" },
    Entry { name: "double-shift-16", reason: "SHLD and SHRD of 16 bits by more than 16 leave an undefined result" },
    Entry { name: "x87-pointers", reason: "FIP, FDP, FOP and their selectors are recorded differently by vendors" },
    Entry { name: "fxsave-reserved", reason: "MXCSR_MASK and the reserved bytes of FXSAVE's image depend on the model" },
    Entry { name: "kernel-half", reason: "Linux reports page faults in the kernel's half as protection violations" },
];

/// Flags whose value after the instruction is undefined.
pub fn undefined_flags(insn: &Instruction, before: &Registers) -> u64 {
    use iced_x86::RflagsBits as R;
    let map = [(R::OF, OF), (R::SF, SF), (R::ZF, ZF), (R::AF, AF), (R::CF, CF), (R::PF, PF)];
    let listed = insn.rflags_undefined();
    let listed = map.iter().filter(|(bit, _)| listed & bit != 0).fold(0, |all, (_, flag)| all | flag);
    let Some((count, bits)) = shift_count(insn, before) else { return listed };
    if count == 0 {
        return 0;
    }
    let of = if count == 1 { 0 } else { OF };
    match insn.mnemonic() {
        M::Rol | M::Ror | M::Rcl | M::Rcr => of,
        M::Shl | M::Sal | M::Shr => of | AF | if count >= bits { CF } else { 0 },
        M::Sar => of | AF,
        _ if count > bits => STATUS,
        _ => of | AF,
    }
}

/// Masked count and operand width of a shift or rotate.
fn shift_count(insn: &Instruction, before: &Registers) -> Option<(u32, u32)> {
    let operand = match insn.mnemonic() {
        M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shl | M::Sal | M::Shr | M::Sar => 1,
        M::Shld | M::Shrd => 2,
        _ => return None,
    };
    let bytes = match insn.op0_kind() {
        OpKind::Register => insn.op0_register().size(),
        _ => insn.memory_size().size(),
    };
    let count = match insn.op_kind(operand) {
        OpKind::Register => before.gpr[1] as u32 & 0xff,
        _ => insn.immediate(operand) as u32,
    };
    Some((count & if bytes == 8 { 63 } else { 31 }, bytes as u32 * 8))
}

/// True if the destination is undefined, and so nothing can be compared.
pub fn undefined_result(insn: &Instruction, before: &Registers) -> bool {
    matches!(insn.mnemonic(), M::Shld | M::Shrd)
        && shift_count(insn, before).is_some_and(|(count, bits)| count > bits)
}

/// Bytes of the stored memory operand that are not compared: ranges relative to it.
pub fn ignored_bytes(insn: &Instruction) -> &'static [std::ops::Range<u64>] {
    match (insn.mnemonic(), insn.memory_size()) {
        (M::Fstenv | M::Fnstenv | M::Fsave | M::Fnsave, MemorySize::FpuEnv14 | MemorySize::FpuState94) => &[6..14],
        (M::Fstenv | M::Fnstenv | M::Fsave | M::Fnsave, _) => &[12..28],
        (M::Fxsave | M::Fxsave64, _) => &[6..24, 28..32, 416..512],
        _ => &[],
    }
}

/// Makes the host's outcome what it would be without Linux in between.
pub fn without_linux(outcome: &mut Outcome) {
    if let Some(fault) = &mut outcome.fault
        && fault.vector == 14
        && fault.address >= 1 << 63
    {
        fault.error &= !1;
    }
}
