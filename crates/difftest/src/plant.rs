//! Planted bugs: one wrong result for each group, which the tester must find.

use cpu::ops::Group;
use iced_x86::{Instruction, Mnemonic as M};

use crate::snapshot::Outcome;

/// What a planted bug does.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// Flips CF.
    Carry,
    /// Flips OF.
    Overflow,
    /// Flips DF.
    Direction,
    /// Flips the lowest bit of a general register.
    Gpr(usize),
    /// Goes on one byte too far.
    Rip,
    /// Flips a bit of the first register operand, a vector register.
    Vector,
    /// Flips the lowest fraction bit of ST(0) (also: MM0 when TOP is 0).
    St0,
    /// Flips MXCSR.IE.
    Mxcsr,
}

/// One bug for each group.
const TABLE: &[(Group, M, Wrong)] = &[
    (Group::DataTransfer, M::Xchg, Wrong::Gpr(3)),
    (Group::Arithmetic, M::Adc, Wrong::Carry),
    (Group::Logic, M::Xor, Wrong::Overflow),
    (Group::Shift, M::Ror, Wrong::Carry),
    (Group::Bit, M::Bts, Wrong::Carry),
    (Group::Control, M::Loop, Wrong::Rip),
    (Group::String, M::Movsb, Wrong::Gpr(7)),
    (Group::FlagControl, M::Cld, Wrong::Direction),
    (Group::Bmi, M::Blsr, Wrong::Carry),
    (Group::Misc, M::Pause, Wrong::Gpr(5)),
    (Group::X87, M::Fadd, Wrong::St0),
    (Group::Mmx, M::Paddb, Wrong::St0),
    (Group::Sse, M::Mulps, Wrong::Mxcsr),
    (Group::Avx, M::Vpaddd, Wrong::Vector),
    (Group::Crypto, M::Aesenc, Wrong::Vector),
    (Group::State, M::Fxrstor, Wrong::Mxcsr),
    (Group::System, M::Clflush, Wrong::Gpr(1)),
];

/// Groups with a bug to plant: all of those with user-mode instructions.
pub fn groups() -> impl Iterator<Item = Group> {
    TABLE.iter().map(|(group, ..)| *group)
}

/// Makes Kluis's outcome wrong, if the instruction is the one with the bug.
pub fn plant(group: Group, insn: &Instruction, outcome: &mut Outcome) {
    let Some((.., wrong)) = TABLE.iter().find(|(g, m, _)| *g == group && *m == insn.mnemonic()) else {
        return;
    };
    if outcome.fault.is_some() {
        return;
    }
    use arch::regs::rflags;
    let regs = &mut outcome.regs;
    match *wrong {
        Wrong::Carry => regs.rflags ^= rflags::CF,
        Wrong::Overflow => regs.rflags ^= rflags::OF,
        Wrong::Direction => regs.rflags ^= rflags::DF,
        Wrong::Gpr(n) => regs.gpr[n] ^= 1,
        Wrong::Rip => regs.rip += 1,
        Wrong::Vector => regs.ymm[insn.op0_register().number() & 15][1] ^= 1 << 40,
        Wrong::St0 => regs.st[0] ^= 1,
        Wrong::Mxcsr => regs.mxcsr ^= 1,
    }
}
