//! Shifts and rotates (*SDM vol. 1 §7.3.6*; flags in *vol. 2, SAL/SAR/SHL/SHR,
//! RCL/RCR/ROL/ROR, SHLD, SHRD*).
//!
//! Where the SDM leaves a flag undefined (OF for counts other than one, AF),
//! it follows the same formula as for a count of one, and AF is cleared.

use arch::Exception;
use iced_x86::{Mnemonic as M, Register};
use mem::raw::Width;

use super::by_width;
use super::fuse::{Quiet, fuse_with_move};
use crate::Cpu;
use crate::chain::{any, pure};
use crate::decode::Build;
use crate::flags::LazyFlags;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

/// A shift or rotate by a masked, non-zero count.
trait Shift {
    /// Result (not truncated) for operand `a` and the carry flag.
    fn compute<W: Width>(a: u64, count: u32, cf: bool) -> u64;
    /// Sets the flags.
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32);
}

#[inline(always)]
const fn msb<W: Width>(value: u64) -> bool {
    value >> (W::BITS - 1) & 1 != 0
}

struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, _cf: bool) -> u64 {
        // Counts up to 31 on 8- and 16-bit operands shift everything out.
        a << count
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32) {
        let cf = count <= W::BITS && a >> (W::BITS - count) & 1 != 0;
        f.result_with::<W>(r, cf, cf != msb::<W>(r));
    }
}

struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, _cf: bool) -> u64 {
        a >> count
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32) {
        let cf = a >> (count - 1) & 1 != 0;
        // The two top bits of the result differ if the operand was negative.
        f.result_with::<W>(r, cf, msb::<W>(r) != msb::<W>(r << 1));
    }
}

struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, _cf: bool) -> u64 {
        (W::truncate(a).sext() as i64 >> count) as u64
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32) {
        let cf = W::truncate(a).sext() as i64 >> (count - 1) & 1 != 0;
        f.result_with::<W>(r, cf, false);
    }
}

// Rotates leave SF, ZF, AF and PF alone.

struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, _cf: bool) -> u64 {
        let n = count % W::BITS;
        if n == 0 { a } else { a << n | a >> (W::BITS - n) }
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, _a: u64, r: u64, _count: u32) {
        let cf = r & 1 != 0;
        f.set_cf_of(cf, cf != msb::<W>(r));
    }
}

struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, _cf: bool) -> u64 {
        let n = count % W::BITS;
        if n == 0 { a } else { a >> n | a << (W::BITS - n) }
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, _a: u64, r: u64, _count: u32) {
        let cf = msb::<W>(r);
        f.set_cf_of(cf, cf != msb::<W>(r << 1));
    }
}

impl<S: Shift> Shift for Quiet<S> {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, cf: bool) -> u64 {
        S::compute::<W>(a, count, cf)
    }
    #[inline(always)]
    fn flags<W: Width>(_f: &mut LazyFlags, _a: u64, _r: u64, _count: u32) {}
}

/// Rotation through carry: `W::BITS + 1` bits, carry on top.
struct Rcl;
impl Shift for Rcl {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, cf: bool) -> u64 {
        rotate_left_through_carry::<W>(a, count, cf) as u64
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32) {
        let cf = rotate_left_through_carry::<W>(a, count, f.cf()) >> W::BITS & 1 != 0;
        f.set_cf_of(cf, cf != msb::<W>(r));
    }
}

struct Rcr;
impl Shift for Rcr {
    #[inline(always)]
    fn compute<W: Width>(a: u64, count: u32, cf: bool) -> u64 {
        rotate_left_through_carry::<W>(a, back::<W>(count), cf) as u64
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64, count: u32) {
        let cf = rotate_left_through_carry::<W>(a, back::<W>(count), f.cf()) >> W::BITS & 1 != 0;
        f.set_cf_of(cf, msb::<W>(r) != msb::<W>(r << 1));
    }
}

/// Rotating right by `count` is rotating left by this.
#[inline(always)]
fn back<W: Width>(count: u32) -> u32 {
    W::BITS + 1 - count % (W::BITS + 1)
}

#[inline(always)]
fn rotate_left_through_carry<W: Width>(a: u64, count: u32, cf: bool) -> u128 {
    let bits = W::BITS + 1;
    let n = count % bits;
    let value = u128::from(a) | u128::from(cf) << W::BITS;
    let mask = (1u128 << bits) - 1;
    if n == 0 { value } else { (value << n | value >> (bits - n)) & mask }
}

#[inline(always)]
fn mask<W: Width>() -> u32 {
    if W::BITS == 64 { 63 } else { 31 }
}

/// Where the count comes from: the immediate, or CL (`aux` 1).
#[inline(always)]
fn count<W: Width>(cpu: &Cpu, op: &Op) -> u32 {
    let count = if op.aux != 0 { u32::from(cpu.s.regs.read::<u8>(8)) } else { op.imm as u32 };
    count & mask::<W>()
}

/// By an immediate that is not zero: what is done most often.
#[inline(always)]
fn shift_reg_imm<S: Shift, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    shift_value::<S, W>(cpu, op, cpu.s.regs.read::<W>(op.dst));
    Ok(Flow::Next)
}

/// After MOV to the destination: the shift of what MOV reads.
#[inline(always)]
fn moved_shift<S: Shift, W: Width>(cpu: &mut Cpu, mov: &Op, op: &Op) {
    shift_value::<S, W>(cpu, op, cpu.s.regs.read::<W>(mov.src));
}

#[inline(always)]
fn shift_value<S: Shift, W: Width>(cpu: &mut Cpu, op: &Op, value: W) {
    let (a, count) = (value.zext(), op.imm as u32);
    let r = W::truncate(S::compute::<W>(a, count, cpu.s.flags.cf()));
    cpu.s.regs.write(op.dst, r);
    S::flags::<W>(&mut cpu.s.flags, a, r.zext(), count);
}

#[inline(always)]
fn shift_reg<S: Shift, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let count = count::<W>(cpu, op);
    let a = cpu.s.regs.read::<W>(op.dst);
    if count == 0 {
        // No flag changes, but a 32-bit destination is zero-extended.
        cpu.s.regs.write(op.dst, a);
        return Ok(Flow::Next);
    }
    let r = W::truncate(S::compute::<W>(a.zext(), count, cpu.s.flags.cf()));
    S::flags::<W>(&mut cpu.s.flags, a.zext(), r.zext(), count);
    cpu.s.regs.write(op.dst, r);
    Ok(Flow::Next)
}

#[inline(always)]
fn shift_mem<S: Shift, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let count = count::<W>(cpu, op);
    if count == 0 {
        cpu.update::<W>(la, op.seg, |a| a)?;
        return Ok(Flow::Next);
    }
    let cf = cpu.s.flags.cf();
    let a = cpu.update::<W>(la, op.seg, |a| S::compute::<W>(a, count, cf))?;
    let r = W::truncate(S::compute::<W>(a, count, cf)).zext();
    S::flags::<W>(&mut cpu.s.flags, a, r, count);
    Ok(Flow::Next)
}

fn shift<S: Shift>(b: &mut Build<'_>) -> Option<Handler> {
    count_operand(b, 1);
    let width = b.width(0);
    if b.is_mem(0) {
        by_width!(width, shift_mem, S)
    } else {
        b.op.dst = b.reg(0);
        let mask = if width == 8 { 63 } else { 31 };
        if b.op.aux == 0 && b.op.imm & mask != 0 {
            b.op.imm &= mask;
            b.silent(by_width!(pure: width, shift_reg_imm, Quiet<S>));
            fuse_with_move!(b: width, moved_shift, S);
            by_width!(pure: width, shift_reg_imm, S)
        } else {
            by_width!(pure: width, shift_reg, S)
        }
    }
}

fn count_operand(b: &mut Build<'_>, n: u32) {
    if b.is_reg(n) && b.insn.op_register(n) == Register::CL {
        b.op.aux = 1;
    } else {
        b.imm(n);
    }
}

/// SHLD and SHRD (`RIGHT`). Counts above the width of a 16-bit operand leave
/// the result undefined; it then is what repeating the pattern gives.
fn double<const RIGHT: bool, W: Width>(a: u64, b: u64, count: u32) -> u64 {
    let bits = W::BITS;
    if RIGHT {
        let wide = u128::from(b) << bits | u128::from(a);
        let wide = if bits == 16 { wide | u128::from(a) << 32 } else { wide };
        (wide >> count) as u64
    } else {
        let wide = u128::from(a) << bits | u128::from(b);
        if bits == 16 {
            let wide = wide << 16 | u128::from(a);
            ((wide << count) >> 32) as u64
        } else {
            ((wide << count) >> bits) as u64
        }
    }
}

#[inline(always)]
fn double_flags<const RIGHT: bool, W: Width>(f: &mut LazyFlags, a: u64, r: u64, before: u64) {
    // `before` is the result of one step less: its last bit out is CF.
    let cf = if RIGHT { before & 1 != 0 } else { msb::<W>(before) };
    f.result_with::<W>(r, cf, msb::<W>(if RIGHT { a } else { before }) != msb::<W>(r));
}

#[inline(always)]
fn double_reg<const RIGHT: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let count = count::<W>(cpu, op);
    let a = cpu.s.regs.read::<W>(op.dst);
    if count == 0 {
        cpu.s.regs.write(op.dst, a);
        return Ok(Flow::Next);
    }
    let b = cpu.s.regs.read::<W>(op.src).zext();
    let r = W::truncate(double::<RIGHT, W>(a.zext(), b, count));
    let before = double::<RIGHT, W>(a.zext(), b, count - 1);
    double_flags::<RIGHT, W>(&mut cpu.s.flags, a.zext(), r.zext(), before);
    cpu.s.regs.write(op.dst, r);
    Ok(Flow::Next)
}

#[inline(always)]
fn double_mem<const RIGHT: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let count = count::<W>(cpu, op);
    let b = cpu.s.regs.read::<W>(op.src).zext();
    if count == 0 {
        cpu.update::<W>(la, op.seg, |a| a)?;
        return Ok(Flow::Next);
    }
    let a = cpu.update::<W>(la, op.seg, |a| double::<RIGHT, W>(a, b, count))?;
    let r = W::truncate(double::<RIGHT, W>(a, b, count)).zext();
    let before = double::<RIGHT, W>(a, b, count - 1);
    double_flags::<RIGHT, W>(&mut cpu.s.flags, a, r, before);
    Ok(Flow::Next)
}

fn double_build<const RIGHT: bool>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.src = b.reg(1);
    count_operand(b, 2);
    let mem = b.is_mem(0);
    if !mem {
        b.op.dst = b.reg(0);
    }
    Some(match (b.width(0), mem) {
        (2, false) => pure(double_reg::<RIGHT, u16>),
        (4, false) => pure(double_reg::<RIGHT, u32>),
        (_, false) => pure(double_reg::<RIGHT, u64>),
        (2, true) => any(double_mem::<RIGHT, u16>),
        (4, true) => any(double_mem::<RIGHT, u32>),
        (_, true) => any(double_mem::<RIGHT, u64>),
    })
}

const SHIFT: &str = "SAL/SAR/SHL/SHR—Shift";
const ROTATE: &str = "RCL/RCR/ROL/ROR—Rotate";

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Shl, SHIFT, Group::Shift, shift::<Shl>),
    Row::new(M::Sal, SHIFT, Group::Shift, shift::<Shl>),
    Row::new(M::Shr, SHIFT, Group::Shift, shift::<Shr>),
    Row::new(M::Sar, SHIFT, Group::Shift, shift::<Sar>),
    Row::new(M::Rol, ROTATE, Group::Shift, shift::<Rol>),
    Row::new(M::Ror, ROTATE, Group::Shift, shift::<Ror>),
    Row::new(M::Rcl, ROTATE, Group::Shift, shift::<Rcl>),
    Row::new(M::Rcr, ROTATE, Group::Shift, shift::<Rcr>),
    Row::new(M::Shld, "SHLD—Double Precision Shift Left", Group::Shift, double_build::<false>),
    Row::new(M::Shrd, "SHRD—Double Precision Shift Right", Group::Shift, double_build::<true>),
];
