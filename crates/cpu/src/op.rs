//! Decoded instructions as the interpreter keeps them.

pub use crate::chain::Handler;
use crate::state::Regs;

/// What the block loop does after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next instruction of the block.
    Next,
    /// The block is over; `Cpu::rip` says where execution continues.
    Jump,
}

/// A decoded instruction: 32 bytes, two to a cache line.
///
/// General registers are named by *byte offset* into [`crate::state::Regs`],
/// so that AH–BH need no code of their own. [`Regs::ZERO`] stands for "no
/// register" and [`Regs::PAGE_IP`] for RIP-relative addressing.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// Executes it and what follows.
    pub run: Handler,
    /// Displacement of the memory operand, or a 64-bit immediate.
    pub disp: u64,
    /// Immediate, sign-extended where the instruction does; branch target or
    /// native thunk, relative to the page or the thunk buffer.
    pub imm: i32,
    /// Offset of the instruction's first byte in its page.
    pub off: u16,
    /// Length in bytes.
    pub len: u8,
    /// `EA_*`: what the effective address needs beyond base + index * scale + disp.
    pub ea: u8,
    /// First register operand.
    pub dst: u8,
    /// Second register operand.
    pub src: u8,
    /// Third register operand, or what the handler's builder puts here.
    pub aux: u8,
    /// Base register of the memory operand.
    pub base: u8,
    /// Index register of the memory operand.
    pub index: u8,
    /// log2 of the scale.
    pub scale: u8,
    /// Segment of the memory operand ([`arch::regs::Seg`] as number).
    pub seg: u8,
    /// `REP_*`, or what the handler's builder puts here.
    pub misc: u8,
}

/// The segment base must be added (FS, GS in 64-bit mode).
pub const EA_SEG: u8 = 1;
/// The offset is truncated to 32 bits.
pub const EA_32: u8 = 2;
/// The offset is truncated to 16 bits.
pub const EA_16: u8 = 4;
/// Not 64-bit mode: segment type and limit are checked, addresses have 32 bits.
pub const EA_LEGACY: u8 = 8;

/// F3 prefix on a string instruction.
pub const REP: u8 = 1;
/// F2 prefix on a string instruction.
pub const REPNE: u8 = 2;

impl Op {
    /// An op without operands.
    pub const NONE: Op = Op {
        run: crate::chain::end,
        disp: 0,
        imm: 0,
        off: 0,
        len: 0,
        ea: 0,
        dst: 0,
        src: 0,
        aux: 0,
        base: Regs::ZERO,
        index: Regs::ZERO,
        scale: 0,
        seg: 3,
        misc: 0,
    };

    /// Offset, relative to the page, of the byte after the instruction.
    #[inline(always)]
    pub fn next_off(&self) -> u64 {
        u64::from(self.off) + u64::from(self.len)
    }
}

const _: () = assert!(size_of::<Op>() == 32);
