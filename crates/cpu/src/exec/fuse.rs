//! What two instructions in a row make cheaper: one op that does the work of both
//! ([`crate::chain::both`], [`crate::chain::pair`]), and no work for status flags
//! that the next instructions replace ([`Unseen`]).
//!
//! Each instruction keeps its op, with the handler for it alone, so counting
//! instructions and leaving a block in its midst know nothing of this. A block of
//! a single instruction, as single steps have, has nothing to fuse.

use arch::regs::rflags;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

use crate::decode::{Build, MAX_OPS};
use crate::op::{Handler, Op};

/// An operation (of [`super::arith`], [`super::shift`]) that sets no flags.
pub(super) struct Quiet<T>(T);

/// A handler that sets no status flags, and the op that it is for: that of the
/// instruction itself, or the one before, which does its work.
#[derive(Clone, Copy)]
pub(crate) struct Silent {
    handler: Handler,
    before: bool,
}

impl Build<'_> {
    /// Notes the handler of the instruction for when nobody sees its status flags.
    /// That it has one says that it changes registers and flags only and does not fault.
    pub(super) fn silent(&mut self, handler: Option<Handler>) {
        self.silent = handler.map(|handler| Silent { handler, before: false });
    }

    /// True after a MOV of the whole first operand from another register, which is
    /// no operand of this instruction itself.
    pub(super) fn follows_move(&self) -> bool {
        let Some(mov) = self.before.as_ref().map(|before| before.insn) else { return false };
        let to = self.insn.op0_register();
        mov.mnemonic() == M::Mov
            && mov.op0_kind() == OpKind::Register
            && mov.op1_kind() == OpKind::Register
            && mov.op0_register() == to
            && (to.is_gpr32() || to.is_gpr64())
            && mov.op1_register().is_gpr()
            && !(self.is_reg(1) && self.insn.op1_register().full_register() == to.full_register())
    }

    /// Lets the op of the MOV before do both; `silent` likewise, without flags.
    pub(super) fn with_move(&mut self, handler: Handler, silent: Handler) {
        if let Some(before) = &mut self.before {
            before.op.run = handler;
            self.silent = Some(Silent { handler: silent, before: true });
        }
    }
}

/// Gives an instruction that follows a MOV to its first operand to the MOV's op:
/// `$f::<$p, u32>` or `u64`, by `$width`.
macro_rules! fuse_with_move {
    ($b:ident: $width:expr, $f:ident, $p:ty) => {
        if $b.follows_move() {
            use $crate::chain::pair;
            use $crate::exec::fuse::Quiet;
            match $width {
                4 => $b.with_move(pair($f::<$p, u32>), pair($f::<Quiet<$p>, u32>)),
                8 => $b.with_move(pair($f::<$p, u64>), pair($f::<Quiet<$p>, u64>)),
                _ => {}
            }
        }
    };
}
pub(super) use fuse_with_move;

/// The ops of a block so far whose flags nothing has looked at since, and nothing
/// can: no instruction after them reads them, faults or ends the block.
pub(crate) struct Unseen {
    /// Their handlers without flags, by number.
    handlers: [Option<Handler>; MAX_OPS],
    /// Number of the first op they may be of.
    first: usize,
}

impl Unseen {
    /// At the beginning of a block.
    pub(crate) fn new() -> Unseen {
        Unseen { handlers: [None; MAX_OPS], first: 0 }
    }

    /// Takes the next instruction of the block into account, the last of `ops`;
    /// `silent` is of its builder.
    pub(crate) fn follow(&mut self, insn: &Instruction, silent: Option<Silent>, ops: &mut [Op]) {
        let Some(last) = ops.len().checked_sub(1) else { return };
        if status(insn.rflags_read()) != 0 || silent.is_none() && !is_transparent(insn) {
            self.first = last;
        }
        let Some(silent) = silent else { return };
        if status(insn.rflags_modified()) == rflags::STATUS {
            let unseen = self.first..last;
            for (op, handler) in ops[unseen.clone()].iter_mut().zip(&mut self.handlers[unseen]) {
                op.run = handler.take().unwrap_or(op.run);
            }
            self.first = last - usize::from(silent.before);
        }
        self.handlers[last - usize::from(silent.before)] = Some(silent.handler);
    }
}

/// True for plain moves between general registers, which neither fault nor know flags.
fn is_transparent(insn: &Instruction) -> bool {
    let general = |n| match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n).is_gpr(),
        OpKind::Memory => insn.mnemonic() == M::Lea,
        _ => true,
    };
    matches!(insn.mnemonic(), M::Mov | M::Movzx | M::Movsx | M::Movsxd | M::Lea)
        && (0..insn.op_count()).all(general)
}

/// The status flags among iced-x86's bits, at the positions of RFLAGS.
fn status(bits: u32) -> u64 {
    use iced_x86::RflagsBits as I;
    let flags = [
        (I::CF, rflags::CF),
        (I::PF, rflags::PF),
        (I::AF, rflags::AF),
        (I::ZF, rflags::ZF),
        (I::SF, rflags::SF),
        (I::OF, rflags::OF),
    ];
    flags.into_iter().filter(|&(iced, _)| bits & iced != 0).fold(0, |all, (_, flag)| all | flag)
}
