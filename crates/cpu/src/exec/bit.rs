//! Bit instructions: BT to BTC, scans and counts, BMI1 and BMI2 (*SDM vol. 1
//! §7.3.7, §5.1.16*).

use arch::Exception;
use arch::regs::gpr;
use iced_x86::Mnemonic as M;
use mem::raw::Width;

use super::by_wide_width;
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

/// What happens to the bit that went to CF.
trait Change {
    const WRITES: bool = true;
    fn apply(value: u64, bit: u64) -> u64;
}
struct Keep;
impl Change for Keep {
    const WRITES: bool = false;
    fn apply(value: u64, _bit: u64) -> u64 {
        value
    }
}
struct Set;
impl Change for Set {
    fn apply(value: u64, bit: u64) -> u64 {
        value | bit
    }
}
struct Reset;
impl Change for Reset {
    fn apply(value: u64, bit: u64) -> u64 {
        value & !bit
    }
}
struct Flip;
impl Change for Flip {
    fn apply(value: u64, bit: u64) -> u64 {
        value ^ bit
    }
}

/// The bit index: the immediate, or a register (`aux` 1).
#[inline(always)]
fn index<W: Width>(cpu: &Cpu, op: &Op) -> i64 {
    if op.aux != 0 { cpu.s.regs.read::<W>(op.src).sext() as i64 } else { i64::from(op.imm) }
}

#[inline(always)]
fn bt_reg<C: Change, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let n = index::<W>(cpu, op) as u32 & (W::BITS - 1);
    let value = cpu.s.regs.read::<W>(op.dst).zext();
    if C::WRITES {
        cpu.s.regs.write(op.dst, W::truncate(C::apply(value, 1 << n)));
    }
    cpu.s.flags.set_cf(value >> n & 1 != 0);
    Ok(Flow::Next)
}

/// A register index reaches beyond the operand: the bit string starts at the
/// address and extends to both sides (*SDM vol. 2A, BT*).
#[inline(always)]
fn bt_mem<C: Change, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let at = index::<W>(cpu, op);
    let n = at as u32 & (W::BITS - 1);
    let mut operand = *op;
    if op.aux != 0 {
        let beyond = (at >> W::BITS.trailing_zeros()).wrapping_mul(W::BYTES as i64);
        operand.disp = op.disp.wrapping_add(beyond as u64);
    }
    let la = cpu.ea(&operand, W::BYTES, C::WRITES)?;
    let old = if !C::WRITES {
        cpu.load::<W>(la, op.seg)?.zext()
    } else if op.misc != 0 {
        cpu.update_locked::<W>(la, op.seg, |v| C::apply(v, 1 << n))?
    } else {
        cpu.update::<W>(la, op.seg, |v| C::apply(v, 1 << n))?
    };
    cpu.s.flags.set_cf(old >> n & 1 != 0);
    Ok(Flow::Next)
}

fn bt<C: Change>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = u8::from(b.insn.has_lock_prefix());
    if b.is_imm(1) {
        b.imm(1);
        b.op.imm &= b.width(0) as i32 * 8 - 1;
    } else {
        b.op.aux = 1;
        b.op.src = b.reg(1);
    }
    let width = b.width(0);
    if b.is_mem(0) {
        by_wide_width!(width, bt_mem, C)
    } else {
        b.op.dst = b.reg(0);
        by_wide_width!(width, bt_reg, C)
    }
}

/// The register-or-memory source: `misc` says which.
#[inline(always)]
fn source<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<u64, Exception> {
    if op.misc != 0 {
        let la = cpu.ea(op, W::BYTES, false)?;
        cpu.load::<W>(la, op.seg).map(W::zext)
    } else {
        Ok(cpu.s.regs.read::<W>(op.src).zext())
    }
}

fn source_operand(b: &mut Build<'_>, n: u32) {
    b.op.misc = u8::from(b.is_mem(n));
    if b.is_reg(n) {
        b.op.src = b.reg(n);
    }
}

/// BSF and BSR: with a zero source only ZF is defined, and the destination
/// keeps its value, all of it, as processors do.
#[inline(always)]
fn scan<const REVERSE: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = source::<W>(cpu, op)?;
    if value == 0 {
        cpu.s.flags.logic::<W>(0);
        return Ok(Flow::Next);
    }
    let n = if REVERSE { 63 - value.leading_zeros() } else { value.trailing_zeros() };
    cpu.s.regs.write(op.dst, W::truncate(u64::from(n)));
    // The other flags are undefined.
    cpu.s.flags.logic::<W>(value);
    Ok(Flow::Next)
}

/// LZCNT and TZCNT: CF = source zero, ZF = result zero.
#[inline(always)]
fn zeros<const LEADING: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = source::<W>(cpu, op)?;
    let n =
        if LEADING { value.leading_zeros() - (64 - W::BITS) } else { value.trailing_zeros().min(W::BITS) };
    cpu.s.regs.write(op.dst, W::truncate(u64::from(n)));
    cpu.s.flags.result_with::<W>(u64::from(n), value == 0, false);
    Ok(Flow::Next)
}

#[inline(always)]
fn popcnt<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = source::<W>(cpu, op)?;
    let n = u64::from(value.count_ones());
    cpu.s.regs.write(op.dst, W::truncate(n));
    // All flags but ZF are cleared, PF too.
    let zf = arch::regs::rflags::ZF;
    cpu.s.flags.set_all(if value == 0 { zf } else { 0 });
    Ok(Flow::Next)
}

macro_rules! scan_builder {
    ($name:ident, $handler:ident, $flag:literal) => {
        fn $name(b: &mut Build<'_>) -> Option<Handler> {
            b.op.dst = b.reg(0);
            source_operand(b, 1);
            Some(match b.width(0) {
                2 => any($handler::<$flag, u16>),
                4 => any($handler::<$flag, u32>),
                _ => any($handler::<$flag, u64>),
            })
        }
    };
}
scan_builder!(bsf, scan, false);
scan_builder!(bsr, scan, true);
scan_builder!(tzcnt, zeros, false);
scan_builder!(lzcnt, zeros, true);

fn popcnt_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    source_operand(b, 1);
    by_wide_width!(b.width(0), popcnt)
}

/// A BMI instruction of two sources: `a` the register-or-memory one, `b` the other.
trait Bmi {
    /// Result, and whether CF is set.
    fn compute<W: Width>(a: u64, b: u64) -> (u64, bool);
    /// Flags follow the result (else none change).
    const FLAGS: bool = true;
}

macro_rules! bmi {
    ($name:ident, $flags:literal, |$a:ident, $b:ident, $bits:ident| $body:expr) => {
        struct $name;
        impl Bmi for $name {
            const FLAGS: bool = $flags;
            #[inline(always)]
            fn compute<W: Width>($a: u64, $b: u64) -> (u64, bool) {
                let $bits = W::BITS;
                let _ = $bits;
                $body
            }
        }
    };
}

bmi!(Andn, true, |a, b, _bits| (!b & a, false));
bmi!(Bextr, true, |a, b, bits| {
    let (start, len) = (b as u32 & 0xff, (b >> 8) as u32 & 0xff);
    let field = if start >= bits { 0 } else { a >> start };
    (if len >= bits { field } else { field & ((1 << len) - 1) }, false)
});
bmi!(Blsi, true, |a, _b, _bits| (a.wrapping_neg() & a, a != 0));
bmi!(Blsmsk, true, |a, _b, _bits| (a.wrapping_sub(1) ^ a, a == 0));
bmi!(Blsr, true, |a, _b, _bits| (a.wrapping_sub(1) & a, a == 0));
bmi!(Bzhi, true, |a, b, bits| {
    let n = b as u32 & 0xff;
    (if n >= bits { a } else { a & ((1 << n) - 1) }, n >= bits)
});
bmi!(Pdep, false, |a, b, _bits| {
    // `a` is the mask, `b` the source.
    let (mut mask, mut result, mut k) = (a, 0, 0);
    while mask != 0 {
        let low = mask & mask.wrapping_neg();
        if b >> k & 1 != 0 {
            result |= low;
        }
        mask ^= low;
        k += 1;
    }
    (result, false)
});
bmi!(Pext, false, |a, b, _bits| {
    let (mut mask, mut result, mut k) = (a, 0, 0);
    while mask != 0 {
        let low = mask & mask.wrapping_neg();
        if b & low != 0 {
            result |= 1 << k;
        }
        mask ^= low;
        k += 1;
    }
    (result, false)
});
bmi!(Sarx, false, |a, b, bits| {
    let n = b as u32 & (bits - 1);
    ((W::truncate(a).sext() as i64 >> n) as u64, false)
});
bmi!(Shlx, false, |a, b, bits| (a << (b as u32 & (bits - 1)), false));
bmi!(Shrx, false, |a, b, bits| (a >> (b as u32 & (bits - 1)), false));
bmi!(Rorx, false, |a, b, bits| {
    let n = b as u32 & (bits - 1);
    (if n == 0 { a } else { a >> n | a << (bits - n) }, false)
});

/// `dst` = f(register or memory, `aux` register or immediate).
#[inline(always)]
fn bmi<B: Bmi, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let a = source::<W>(cpu, op)?;
    let b = if op.aux == NO_REGISTER { op.imm as u64 } else { cpu.s.regs.read::<W>(op.aux).zext() };
    let (r, cf) = B::compute::<W>(a, b);
    let r = W::truncate(r);
    cpu.s.regs.write(op.dst, r);
    if B::FLAGS {
        cpu.s.flags.result_with::<W>(r.zext(), cf, false);
    }
    Ok(Flow::Next)
}

/// `aux` if the second source is the immediate, or none.
const NO_REGISTER: u8 = u8::MAX;

/// Operands: destination 0, register-or-memory `R`, other source `O` (3: none).
fn bmi_build<B: Bmi, const R: u32, const O: u32>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    source_operand(b, R);
    b.op.aux = NO_REGISTER;
    if O < b.insn.op_count() {
        if b.is_imm(O) {
            b.imm(O);
        } else {
            b.op.aux = b.reg(O);
        }
    }
    match b.width(0) {
        4 => Some(any(bmi::<B, u32>)),
        8 => Some(any(bmi::<B, u64>)),
        _ => None,
    }
}

/// MULX: high half to `dst`, low half to `aux`, RDX the other factor; no flags.
#[inline(always)]
fn mulx<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let a = source::<W>(cpu, op)?;
    let product = u128::from(a) * u128::from(cpu.s.regs.read::<W>(gpr::RDX as u8 * 8).zext());
    cpu.s.regs.write(op.aux, W::truncate(product as u64));
    // With one register twice, the high half stays.
    cpu.s.regs.write(op.dst, W::truncate((product >> W::BITS) as u64));
    Ok(Flow::Next)
}

fn mulx_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    b.op.aux = b.reg(1);
    source_operand(b, 2);
    match b.width(0) {
        4 => Some(any(mulx::<u32>)),
        8 => Some(any(mulx::<u64>)),
        _ => None,
    }
}

/// CRC32 (*SDM vol. 2A*): polynomial 11EDC6F41H, bit-reflected.
#[inline(always)]
fn crc32<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let data = source::<W>(cpu, op)?;
    let mut crc = u64::from(cpu.s.regs.read::<u32>(op.dst)) ^ data;
    for _ in 0..W::BITS {
        crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
    }
    // The upper half is cleared with a 64-bit destination as well.
    cpu.s.regs.write(op.dst, crc as u32);
    Ok(Flow::Next)
}

fn crc32_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    source_operand(b, 1);
    super::by_width!(b.width(1), crc32)
}

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Bt, "BT—Bit Test", Group::Bit, bt::<Keep>),
    Row::new(M::Bts, "BTS—Bit Test and Set", Group::Bit, bt::<Set>).lock(),
    Row::new(M::Btr, "BTR—Bit Test and Reset", Group::Bit, bt::<Reset>).lock(),
    Row::new(M::Btc, "BTC—Bit Test and Complement", Group::Bit, bt::<Flip>).lock(),
    Row::new(M::Bsf, "BSF—Bit Scan Forward", Group::Bit, bsf),
    Row::new(M::Bsr, "BSR—Bit Scan Reverse", Group::Bit, bsr),
    Row::new(M::Tzcnt, "TZCNT—Count the Number of Trailing Zero Bits", Group::Bmi, tzcnt),
    Row::new(M::Lzcnt, "LZCNT—Count the Number of Leading Zero Bits", Group::Bmi, lzcnt),
    Row::new(M::Popcnt, "POPCNT—Return the Count of Number of Bits Set to 1", Group::Bit, popcnt_build),
    Row::new(M::Crc32, "CRC32—Accumulate CRC32 Value", Group::Bit, crc32_build),
    Row::new(M::Andn, "ANDN—Logical AND NOT", Group::Bmi, bmi_build::<Andn, 2, 1>),
    Row::new(M::Bextr, "BEXTR—Bit Field Extract", Group::Bmi, bmi_build::<Bextr, 1, 2>),
    Row::new(M::Blsi, "BLSI—Extract Lowest Set Isolated Bit", Group::Bmi, bmi_build::<Blsi, 1, 9>),
    Row::new(M::Blsmsk, "BLSMSK—Get Mask Up to Lowest Set Bit", Group::Bmi, bmi_build::<Blsmsk, 1, 9>),
    Row::new(M::Blsr, "BLSR—Reset Lowest Set Bit", Group::Bmi, bmi_build::<Blsr, 1, 9>),
    Row::new(
        M::Bzhi,
        "BZHI—Zero High Bits Starting with Specified Bit Position",
        Group::Bmi,
        bmi_build::<Bzhi, 1, 2>,
    ),
    Row::new(M::Pdep, "PDEP—Parallel Bits Deposit", Group::Bmi, bmi_build::<Pdep, 2, 1>),
    Row::new(M::Pext, "PEXT—Parallel Bits Extract", Group::Bmi, bmi_build::<Pext, 2, 1>),
    Row::new(M::Sarx, "SARX/SHLX/SHRX—Shift Without Affecting Flags", Group::Bmi, bmi_build::<Sarx, 1, 2>),
    Row::new(M::Shlx, "SARX/SHLX/SHRX—Shift Without Affecting Flags", Group::Bmi, bmi_build::<Shlx, 1, 2>),
    Row::new(M::Shrx, "SARX/SHLX/SHRX—Shift Without Affecting Flags", Group::Bmi, bmi_build::<Shrx, 1, 2>),
    Row::new(
        M::Rorx,
        "RORX—Rotate Right Logical Without Affecting Flags",
        Group::Bmi,
        bmi_build::<Rorx, 1, 2>,
    ),
    Row::new(M::Mulx, "MULX—Unsigned Multiply Without Affecting Flags", Group::Bmi, mulx_build),
];
