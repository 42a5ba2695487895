//! ADD to CMP, AND to TEST, INC, DEC, NEG, NOT, XADD, CMPXCHG: the operations
//! whose operands are one destination and one source (*SDM vol. 1 §7.3.2, §7.3.3*).

use arch::Exception;
use iced_x86::{Mnemonic as M, OpKind};
use mem::raw::Width;

use super::fuse::{Quiet, fuse_with_move};
use super::{by_reach, by_wide_width, by_width};
use crate::Cpu;
use crate::cache::Mode;
use crate::chain::{any, both};
use crate::decode::{Before, Build, Way, way, width};
use crate::flags::LazyFlags;
use crate::mmu::reach::{Fast, Full, Miss, Reach};
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

/// A binary operation on zero-extended operands.
trait Alu {
    /// The result is stored (not for CMP and TEST).
    const STORES: bool = true;
    /// The result, not truncated.
    fn compute(a: u64, b: u64, cf: bool) -> u64;
    /// Sets the flags from operands and result (truncated to `W`).
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, b: u64, r: u64);
}

macro_rules! alu {
    ($name:ident, $stores:literal, |$a:ident, $b:ident, $c:ident| $compute:expr, $flags:ident) => {
        struct $name;
        impl Alu for $name {
            const STORES: bool = $stores;
            #[inline(always)]
            fn compute($a: u64, $b: u64, $c: bool) -> u64 {
                $compute
            }
            #[inline(always)]
            fn flags<W: Width>(f: &mut LazyFlags, a: u64, b: u64, r: u64) {
                alu!(@$flags f, a, b, r);
            }
        }
    };
    (@add $f:ident, $a:ident, $b:ident, $r:ident) => { $f.add::<W>($a, $b, $r) };
    (@sub $f:ident, $a:ident, $b:ident, $r:ident) => { $f.sub::<W>($a, $b, $r) };
    (@logic $f:ident, $a:ident, $b:ident, $r:ident) => {{ let _ = ($a, $b); $f.logic::<W>($r) }};
}

alu!(Add, true, |a, b, _c| a.wrapping_add(b), add);
alu!(Adc, true, |a, b, c| a.wrapping_add(b).wrapping_add(u64::from(c)), add);
alu!(Sub, true, |a, b, _c| a.wrapping_sub(b), sub);
alu!(Sbb, true, |a, b, c| a.wrapping_sub(b).wrapping_sub(u64::from(c)), sub);
alu!(Cmp, false, |a, b, _c| a.wrapping_sub(b), sub);
alu!(And, true, |a, b, _c| a & b, logic);
alu!(Or, true, |a, b, _c| a | b, logic);
alu!(Xor, true, |a, b, _c| a ^ b, logic);
alu!(Test, false, |a, b, _c| a & b, logic);

impl<A: Alu> Alu for Quiet<A> {
    const STORES: bool = A::STORES;
    #[inline(always)]
    fn compute(a: u64, b: u64, cf: bool) -> u64 {
        A::compute(a, b, cf)
    }
    #[inline(always)]
    fn flags<W: Width>(_f: &mut LazyFlags, _a: u64, _b: u64, _r: u64) {}
}

/// Puts the result of `a` and `b` into the destination register. The flags come
/// last: what branches by them has them in host registers ([`both`]).
#[inline(always)]
fn apply<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op, a: W, b: W) {
    let (a, b) = (a.zext(), b.zext());
    let r = W::truncate(A::compute(a, b, cpu.s.flags.cf()));
    if A::STORES {
        cpu.s.regs.write(op.dst, r);
    }
    A::flags::<W>(&mut cpu.s.flags, a, b, r.zext());
}

#[inline(always)]
fn reg_reg<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let (a, b) = (cpu.s.regs.read::<W>(op.dst), cpu.s.regs.read::<W>(op.src));
    apply::<A, W>(cpu, op, a, b);
    Ok(Flow::Next)
}

#[inline(always)]
fn reg_imm<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let a = cpu.s.regs.read::<W>(op.dst);
    apply::<A, W>(cpu, op, a, W::truncate(op.imm as i64 as u64));
    Ok(Flow::Next)
}

/// After MOV to the destination: the operation on what MOV reads.
#[inline(always)]
fn moved_reg<A: Alu, W: Width>(cpu: &mut Cpu, mov: &Op, op: &Op) {
    let (a, b) = (cpu.s.regs.read::<W>(mov.src), cpu.s.regs.read::<W>(op.src));
    apply::<A, W>(cpu, op, a, b);
}

#[inline(always)]
fn moved_imm<A: Alu, W: Width>(cpu: &mut Cpu, mov: &Op, op: &Op) {
    let a = cpu.s.regs.read::<W>(mov.src);
    apply::<A, W>(cpu, op, a, W::truncate(op.imm as i64 as u64));
}

#[inline(always)]
fn reg_mem<R: Reach, A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, false)?;
    let b = R::load::<W>(cpu, la, op.seg)?;
    let a = cpu.s.regs.read::<W>(op.dst);
    apply::<A, W>(cpu, op, a, b);
    Ok(Flow::Next)
}

#[inline(always)]
fn mem_with<R: Reach, A: Alu, W: Width>(cpu: &mut Cpu, op: &Op, b: W) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, A::STORES)?;
    let (b, cf) = (b.zext(), cpu.s.flags.cf());
    let a = if A::STORES {
        R::update::<W>(cpu, la, op.seg, |a| A::compute(a, b, cf))?
    } else {
        R::load::<W>(cpu, la, op.seg)?.zext()
    };
    let r = W::truncate(A::compute(a, b, cf)).zext();
    A::flags::<W>(&mut cpu.s.flags, a, b, r);
    Ok(Flow::Next)
}

#[inline(always)]
fn mem_reg<R: Reach, A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let b = cpu.s.regs.read::<W>(op.src);
    mem_with::<R, A, W>(cpu, op, b)
}

#[inline(always)]
fn mem_imm<R: Reach, A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    mem_with::<R, A, W>(cpu, op, W::truncate(op.imm as i64 as u64))
}

#[inline(always)]
fn locked_with<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op, b: W) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let (b, cf) = (b.zext(), cpu.s.flags.cf());
    let a = cpu.update_locked::<W>(la, op.seg, |a| A::compute(a, b, cf))?;
    let r = W::truncate(A::compute(a, b, cf)).zext();
    A::flags::<W>(&mut cpu.s.flags, a, b, r);
    Ok(Flow::Next)
}

#[inline(always)]
fn locked_reg<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let b = cpu.s.regs.read::<W>(op.src);
    locked_with::<A, W>(cpu, op, b)
}

#[inline(always)]
fn locked_imm<A: Alu, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    locked_with::<A, W>(cpu, op, W::truncate(op.imm as i64 as u64))
}

fn binary<A: Alu>(b: &mut Build<'_>) -> Option<Handler> {
    let width = b.width(0);
    let lock = b.insn.has_lock_prefix();
    if b.is_mem(0) {
        if b.is_imm(1) {
            b.imm(1);
            return if lock { by_width!(width, locked_imm, A) } else { by_reach!(b: width, mem_imm, A) };
        }
        b.op.src = b.reg(1);
        return if lock { by_width!(width, locked_reg, A) } else { by_reach!(b: width, mem_reg, A) };
    }
    b.op.dst = b.reg(0);
    if b.is_imm(1) {
        b.imm(1);
        b.silent(by_width!(pure: width, reg_imm, Quiet<A>));
        if A::STORES {
            fuse_with_move!(b: width, moved_imm, A);
        }
        by_width!(pure: width, reg_imm, A)
    } else if b.is_mem(1) {
        by_reach!(b: width, reg_mem, A)
    } else {
        b.op.src = b.reg(1);
        b.silent(by_width!(pure: width, reg_reg, Quiet<A>));
        if A::STORES {
            fuse_with_move!(b: width, moved_reg, A);
        }
        by_width!(pure: width, reg_reg, A)
    }
}

/// A unary operation.
trait Unary {
    fn compute(a: u64) -> u64;
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64);
}

struct Inc;
impl Unary for Inc {
    #[inline(always)]
    fn compute(a: u64) -> u64 {
        a.wrapping_add(1)
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64) {
        f.inc_dec::<W>(r, !a & r & 1 << (W::BITS - 1) != 0, r & 15 == 0);
    }
}

struct Dec;
impl Unary for Dec {
    #[inline(always)]
    fn compute(a: u64) -> u64 {
        a.wrapping_sub(1)
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64) {
        f.inc_dec::<W>(r, a & !r & 1 << (W::BITS - 1) != 0, a & 15 == 0);
    }
}

struct Neg;
impl Unary for Neg {
    #[inline(always)]
    fn compute(a: u64) -> u64 {
        a.wrapping_neg()
    }
    #[inline(always)]
    fn flags<W: Width>(f: &mut LazyFlags, a: u64, r: u64) {
        f.sub::<W>(0, a, r);
    }
}

struct Not;
impl Unary for Not {
    #[inline(always)]
    fn compute(a: u64) -> u64 {
        !a
    }
    #[inline(always)]
    fn flags<W: Width>(_f: &mut LazyFlags, _a: u64, _r: u64) {}
}

impl<U: Unary> Unary for Quiet<U> {
    #[inline(always)]
    fn compute(a: u64) -> u64 {
        U::compute(a)
    }
    #[inline(always)]
    fn flags<W: Width>(_f: &mut LazyFlags, _a: u64, _r: u64) {}
}

#[inline(always)]
fn unary_reg<U: Unary, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let a = cpu.s.regs.read::<W>(op.dst).zext();
    let r = W::truncate(U::compute(a));
    cpu.s.regs.write(op.dst, r);
    U::flags::<W>(&mut cpu.s.flags, a, r.zext());
    Ok(Flow::Next)
}

#[inline(always)]
fn unary_mem<R: Reach, U: Unary, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, true)?;
    let a = R::update::<W>(cpu, la, op.seg, U::compute)?;
    U::flags::<W>(&mut cpu.s.flags, a, W::truncate(U::compute(a)).zext());
    Ok(Flow::Next)
}

#[inline(always)]
fn unary_locked<U: Unary, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let a = cpu.update_locked::<W>(la, op.seg, U::compute)?;
    U::flags::<W>(&mut cpu.s.flags, a, W::truncate(U::compute(a)).zext());
    Ok(Flow::Next)
}

fn unary<U: Unary>(b: &mut Build<'_>) -> Option<Handler> {
    let width = b.width(0);
    if b.is_reg(0) {
        b.op.dst = b.reg(0);
        b.silent(by_width!(pure: width, unary_reg, Quiet<U>));
        by_width!(pure: width, unary_reg, U)
    } else if b.insn.has_lock_prefix() {
        by_width!(width, unary_locked, U)
    } else {
        by_reach!(b: width, unary_mem, U)
    }
}

/// The handler that does `before` and takes the branch that follows, if it is one
/// of what compilers put before Jcc.
pub(super) fn with_branch<F, S>(before: &Before<'_>, mode: Mode, fast: F, full: S) -> Option<Handler>
where
    F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
    S: Fn(&mut Cpu, &Op) -> Ran + Copy,
{
    let insn = before.insn;
    macro_rules! registers {
        ($f:ident, $p:ty, $w:ty) => {
            both(|cpu: &mut Cpu, op: &Op| $f::<$p, $w>(cpu, op).map_err(|_| Miss), $f::<$p, $w>, fast, full)
        };
    }
    macro_rules! memory {
        ($f:ident, $p:ty, $w:ty) => {
            match way(mode, before.op) {
                Way::Simple => both($f::<Fast<false>, $p, $w>, $f::<Full, $p, $w>, fast, full),
                Way::General => both($f::<Fast<true>, $p, $w>, $f::<Full, $p, $w>, fast, full),
                Way::Any => return None,
            }
        };
    }
    // The forms for one operation and width: those that only compare also with memory.
    macro_rules! form {
        (compare $alu:ty, $w:ty) => {
            match (insn.op0_kind(), insn.op1_kind()) {
                (OpKind::Register, OpKind::Register) => registers!(reg_reg, $alu, $w),
                (OpKind::Register, OpKind::Memory) => memory!(reg_mem, $alu, $w),
                (OpKind::Memory, OpKind::Register) => memory!(mem_reg, $alu, $w),
                (OpKind::Register, _) => registers!(reg_imm, $alu, $w),
                _ => memory!(mem_imm, $alu, $w),
            }
        };
        (change $alu:ty, $w:ty) => {
            match (insn.op0_kind(), insn.op1_kind()) {
                (OpKind::Memory, _) | (_, OpKind::Memory) => return None,
                (_, OpKind::Register) => registers!(reg_reg, $alu, $w),
                _ => registers!(reg_imm, $alu, $w),
            }
        };
        (unary $unary:ty, $w:ty) => {
            match insn.op0_kind() {
                OpKind::Register => registers!(unary_reg, $unary, $w),
                _ => return None,
            }
        };
    }
    macro_rules! widths {
        ($kind:ident $p:ty) => {
            match width(insn, 0) {
                1 => form!($kind $p, u8),
                4 => form!($kind $p, u32),
                8 => form!($kind $p, u64),
                _ => return None,
            }
        };
    }
    Some(match insn.mnemonic() {
        M::Cmp => widths!(compare Cmp),
        M::Test => widths!(compare Test),
        M::Add => widths!(change Add),
        M::Sub => widths!(change Sub),
        M::And => widths!(change And),
        M::Dec => widths!(unary Dec),
        M::Inc => widths!(unary Inc),
        _ => return None,
    })
}

#[inline(always)]
fn xadd_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let (a, b) = (cpu.s.regs.read::<W>(op.dst), cpu.s.regs.read::<W>(op.src));
    // Source first: with one register twice, the sum stays.
    cpu.s.regs.write(op.src, a);
    apply::<Add, W>(cpu, op, a, b);
    Ok(Flow::Next)
}

#[inline(always)]
fn xadd_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let b = cpu.s.regs.read::<W>(op.src).zext();
    let a = if op.misc != 0 {
        cpu.update_locked::<W>(la, op.seg, |a| a.wrapping_add(b))?
    } else {
        cpu.update::<W>(la, op.seg, |a| a.wrapping_add(b))?
    };
    cpu.s.flags.add::<W>(a, b, W::truncate(a.wrapping_add(b)).zext());
    cpu.s.regs.write(op.src, W::truncate(a));
    Ok(Flow::Next)
}

fn xadd(b: &mut Build<'_>) -> Option<Handler> {
    b.op.src = b.reg(1);
    b.op.misc = u8::from(b.insn.has_lock_prefix());
    let width = b.width(0);
    if b.is_reg(0) {
        b.op.dst = b.reg(0);
        by_width!(pure: width, xadd_reg)
    } else {
        by_width!(width, xadd_mem)
    }
}

#[inline(always)]
fn cmpxchg_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let (acc, dst) = (cpu.s.regs.read::<W>(0), cpu.s.regs.read::<W>(op.dst));
    apply::<Cmp, W>(cpu, op, acc, dst);
    if acc == dst {
        let src = cpu.s.regs.read::<W>(op.src);
        cpu.s.regs.write(op.dst, src);
    } else {
        // The destination stays as it is, upper half included (the pseudocode
        // writes it back; processors do not, as the differential tester sees).
        cpu.s.regs.write(0, dst);
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn cmpxchg_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let acc = cpu.s.regs.read::<W>(0).zext();
    let src = cpu.s.regs.read::<W>(op.src).zext();
    // The destination is written in either case, so a page that may only be
    // read faults even if the comparison fails.
    let change = |old| if old == acc { src } else { old };
    let old = if op.misc != 0 {
        cpu.update_locked::<W>(la, op.seg, change)?
    } else {
        cpu.update::<W>(la, op.seg, change)?
    };
    apply::<Cmp, W>(cpu, op, W::truncate(acc), W::truncate(old));
    if old != acc {
        cpu.s.regs.write(0, W::truncate(old));
    }
    Ok(Flow::Next)
}

fn cmpxchg(b: &mut Build<'_>) -> Option<Handler> {
    b.op.src = b.reg(1);
    b.op.misc = u8::from(b.insn.has_lock_prefix());
    let width = b.width(0);
    if b.is_reg(0) {
        b.op.dst = b.reg(0);
        by_width!(pure: width, cmpxchg_reg)
    } else {
        by_width!(width, cmpxchg_mem)
    }
}

/// CMPXCHG8B and CMPXCHG16B; `W` is half an operand.
#[inline(always)]
fn cmpxchg_pair<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    use arch::regs::gpr::{RAX, RBX, RCX, RDX};
    let la = cpu.ea(op, 2 * W::BYTES, true)?;
    let pair = |cpu: &Cpu, high: usize, low: usize| {
        let half = |n: usize| cpu.s.regs.read::<W>(n as u8 * 8).zext();
        u128::from(half(high)) << W::BITS | u128::from(half(low))
    };
    let (old, new) = (pair(cpu, RDX, RAX), pair(cpu, RCX, RBX));
    let found = if W::BYTES == 8 {
        if la & 15 != 0 {
            return Err(Exception::GP0);
        }
        cpu.compare_exchange_16(la, op.seg, old, new)?
    } else {
        let change = |now| if u128::from(now) == old { new as u64 } else { now };
        u128::from(if op.misc != 0 {
            cpu.update_locked::<u64>(la, op.seg, change)?
        } else {
            cpu.update::<u64>(la, op.seg, change)?
        })
    };
    let zf = arch::regs::rflags::ZF;
    cpu.s.flags.update(zf, if found == old { zf } else { 0 });
    if found != old {
        cpu.s.regs.write(RAX as u8 * 8, W::truncate(found as u64));
        cpu.s.regs.write(RDX as u8 * 8, W::truncate((found >> W::BITS) as u64));
    }
    Ok(Flow::Next)
}

fn cmpxchg8b(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = u8::from(b.insn.has_lock_prefix());
    Some(any(cmpxchg_pair::<u32>))
}

fn cmpxchg16b(b: &mut Build<'_>) -> Option<Handler> {
    b.op.misc = u8::from(b.insn.has_lock_prefix());
    Some(any(cmpxchg_pair::<u64>))
}

/// ADCX (`CF`) and ADOX (OF): addition with carry in one flag only.
#[inline(always)]
fn adx<const OVERFLOW: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    use arch::regs::rflags::{CF, OF};
    let b = if op.misc != 0 {
        let la = cpu.ea(op, W::BYTES, false)?;
        cpu.load::<W>(la, op.seg)?.zext()
    } else {
        cpu.s.regs.read::<W>(op.src).zext()
    };
    let a = cpu.s.regs.read::<W>(op.dst).zext();
    let carry = if OVERFLOW { cpu.s.flags.of() } else { cpu.s.flags.cf() };
    let sum = u128::from(a) + u128::from(b) + u128::from(carry);
    let out = sum >> W::BITS != 0;
    cpu.s.regs.write(op.dst, W::truncate(sum as u64));
    let flag = if OVERFLOW { OF } else { CF };
    cpu.s.flags.update(flag, if out { flag } else { 0 });
    Ok(Flow::Next)
}

fn adx_build<const OVERFLOW: bool>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    b.op.misc = u8::from(b.is_mem(1));
    if b.is_reg(1) {
        b.op.src = b.reg(1);
    }
    match b.width(0) {
        4 => Some(any(adx::<OVERFLOW, u32>)),
        8 => Some(any(adx::<OVERFLOW, u64>)),
        _ => None,
    }
}

/// MUL, IMUL with one operand (`SIGNED`): RDX:RAX = RAX * operand.
#[inline(always)]
fn multiply<const SIGNED: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let b = operand::<W>(cpu, op)?;
    let a = cpu.s.regs.read::<W>(0);
    let (product, overflow) = product::<SIGNED, W>(a, b);
    let (low, high) = (W::truncate(product as u64), W::truncate((product >> W::BITS) as u64));
    if W::BYTES == 1 {
        cpu.s.regs.write(0, product as u16);
    } else {
        cpu.s.regs.write(0, low);
        cpu.s.regs.write(2 * 8, high);
    }
    // SF, ZF, AF and PF are undefined; they follow the low half here.
    cpu.s.flags.result_with::<W>(low.zext(), overflow, overflow);
    Ok(Flow::Next)
}

/// IMUL with two or three operands; the result is truncated.
#[inline(always)]
fn imul<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let b = operand::<W>(cpu, op)?;
    let a = if op.aux != 0 { W::truncate(op.imm as i64 as u64) } else { cpu.s.regs.read::<W>(op.dst) };
    let (product, overflow) = product::<true, W>(a, b);
    let low = W::truncate(product as u64);
    cpu.s.regs.write(op.dst, low);
    cpu.s.flags.result_with::<W>(low.zext(), overflow, overflow);
    Ok(Flow::Next)
}

/// The product, twice as wide, and whether it exceeds one width.
#[inline(always)]
fn product<const SIGNED: bool, W: Width>(a: W, b: W) -> (u128, bool) {
    if SIGNED {
        let wide = i128::from(a.sext() as i64) * i128::from(b.sext() as i64);
        (wide as u128, wide != i128::from(W::truncate(wide as u64).sext() as i64))
    } else {
        let wide = u128::from(a.zext()) * u128::from(b.zext());
        (wide, wide >> W::BITS != 0)
    }
}

/// The register-or-memory operand: `misc` says which.
#[inline(always)]
fn operand<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<W, Exception> {
    if op.misc != 0 {
        let la = cpu.ea(op, W::BYTES, false)?;
        cpu.load::<W>(la, op.seg)
    } else {
        Ok(cpu.s.regs.read::<W>(op.src))
    }
}

fn source(b: &mut Build<'_>, n: u32) -> usize {
    b.op.misc = u8::from(b.is_mem(n));
    if b.is_reg(n) {
        b.op.src = b.reg(n);
    }
    b.width(n)
}

fn mul_build(b: &mut Build<'_>) -> Option<Handler> {
    match source(b, 0) {
        1 => Some(any(multiply::<false, u8>)),
        2 => Some(any(multiply::<false, u16>)),
        4 => Some(any(multiply::<false, u32>)),
        _ => Some(any(multiply::<false, u64>)),
    }
}

fn imul_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.op_count() == 1 {
        return match source(b, 0) {
            1 => Some(any(multiply::<true, u8>)),
            2 => Some(any(multiply::<true, u16>)),
            4 => Some(any(multiply::<true, u32>)),
            _ => Some(any(multiply::<true, u64>)),
        };
    }
    b.op.dst = b.reg(0);
    if b.insn.op_count() == 3 {
        b.op.aux = 1;
        b.imm(2);
    }
    let width = source(b, 1);
    by_wide_width!(width, imul)
}

/// DIV and IDIV (`SIGNED`). `#DE` if the divisor is zero or the quotient does
/// not fit. All flags are undefined: left as they are.
#[inline(always)]
fn divide<const SIGNED: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let divisor = operand::<W>(cpu, op)?;
    if divisor.zext() == 0 {
        return Err(Exception::DE);
    }
    let dividend = if W::BYTES == 1 {
        u128::from(cpu.s.regs.read::<u16>(0))
    } else {
        let (low, high) = (cpu.s.regs.read::<W>(0), cpu.s.regs.read::<W>(2 * 8));
        u128::from(high.zext()) << W::BITS | u128::from(low.zext())
    };
    let (quotient, remainder) = if SIGNED {
        let unused = 128 - 2 * W::BITS;
        let dividend = (dividend << unused) as i128 >> unused;
        let divisor = i128::from(divisor.sext() as i64);
        // The most negative dividend of 128 bits divided by -1.
        let Some(quotient) = dividend.checked_div(divisor) else { return Err(Exception::DE) };
        if quotient != i128::from(W::truncate(quotient as u64).sext() as i64) {
            return Err(Exception::DE);
        }
        (quotient as u64, (dividend % divisor) as u64)
    } else {
        let divisor = u128::from(divisor.zext());
        let quotient = dividend / divisor;
        if quotient >> W::BITS != 0 {
            return Err(Exception::DE);
        }
        (quotient as u64, (dividend % divisor) as u64)
    };
    if W::BYTES == 1 {
        cpu.s.regs.write(0, (quotient & 0xff | remainder << 8) as u16);
    } else {
        cpu.s.regs.write(0, W::truncate(quotient));
        cpu.s.regs.write(2 * 8, W::truncate(remainder));
    }
    Ok(Flow::Next)
}

fn div_build(b: &mut Build<'_>) -> Option<Handler> {
    match source(b, 0) {
        1 => Some(any(divide::<false, u8>)),
        2 => Some(any(divide::<false, u16>)),
        4 => Some(any(divide::<false, u32>)),
        _ => Some(any(divide::<false, u64>)),
    }
}

fn idiv_build(b: &mut Build<'_>) -> Option<Handler> {
    match source(b, 0) {
        1 => Some(any(divide::<true, u8>)),
        2 => Some(any(divide::<true, u16>)),
        4 => Some(any(divide::<true, u32>)),
        _ => Some(any(divide::<true, u64>)),
    }
}

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Add, "ADD—Add", Group::Arithmetic, binary::<Add>).lock(),
    Row::new(M::Adc, "ADC—Add With Carry", Group::Arithmetic, binary::<Adc>).lock(),
    Row::new(M::Sub, "SUB—Subtract", Group::Arithmetic, binary::<Sub>).lock(),
    Row::new(M::Sbb, "SBB—Integer Subtraction With Borrow", Group::Arithmetic, binary::<Sbb>).lock(),
    Row::new(M::Cmp, "CMP—Compare Two Operands", Group::Arithmetic, binary::<Cmp>),
    Row::new(M::And, "AND—Logical AND", Group::Logic, binary::<And>).lock(),
    Row::new(M::Or, "OR—Logical Inclusive OR", Group::Logic, binary::<Or>).lock(),
    Row::new(M::Xor, "XOR—Logical Exclusive OR", Group::Logic, binary::<Xor>).lock(),
    Row::new(M::Test, "TEST—Logical Compare", Group::Logic, binary::<Test>),
    Row::new(M::Inc, "INC—Increment by 1", Group::Arithmetic, unary::<Inc>).lock(),
    Row::new(M::Dec, "DEC—Decrement by 1", Group::Arithmetic, unary::<Dec>).lock(),
    Row::new(M::Neg, "NEG—Two's Complement Negation", Group::Arithmetic, unary::<Neg>).lock(),
    Row::new(M::Not, "NOT—One's Complement Negation", Group::Logic, unary::<Not>).lock(),
    Row::new(M::Xadd, "XADD—Exchange and Add", Group::Arithmetic, xadd).lock(),
    Row::new(M::Cmpxchg, "CMPXCHG—Compare and Exchange", Group::Arithmetic, cmpxchg).lock(),
    Row::new(M::Cmpxchg8b, "CMPXCHG8B/CMPXCHG16B—Compare and Exchange Bytes", Group::Arithmetic, cmpxchg8b)
        .lock(),
    Row::new(M::Cmpxchg16b, "CMPXCHG8B/CMPXCHG16B—Compare and Exchange Bytes", Group::Arithmetic, cmpxchg16b)
        .lock(),
    Row::new(
        M::Adcx,
        "ADCX—Unsigned Integer Addition of Two Operands With Carry Flag",
        Group::Arithmetic,
        adx_build::<false>,
    ),
    Row::new(
        M::Adox,
        "ADOX—Unsigned Integer Addition of Two Operands With Overflow Flag",
        Group::Arithmetic,
        adx_build::<true>,
    ),
    Row::new(M::Mul, "MUL—Unsigned Multiply", Group::Arithmetic, mul_build),
    Row::new(M::Imul, "IMUL—Signed Multiply", Group::Arithmetic, imul_build),
    Row::new(M::Div, "DIV—Unsigned Divide", Group::Arithmetic, div_build),
    Row::new(M::Idiv, "IDIV—Signed Divide", Group::Arithmetic, idiv_build),
];
