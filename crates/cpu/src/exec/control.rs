//! Near control transfer: JMP, Jcc, CALL, RET, LOOP (*SDM vol. 1 §7.3.8*).
//! Far transfers, interrupts and system calls are in [`super::system`].
//!
//! Branch targets are decoded relative to the page ([`crate::decode`]), so one
//! block serves every linear address its page is mapped at.

use arch::Exception;
use arch::paging::is_canonical;
use arch::regs::gpr;
use iced_x86::{Code, Mnemonic as M, OpKind};
use mem::raw::Width;

use super::{by_reach, by_wide_width};
use crate::Cpu;
use crate::chain::{branch, reaching};
use crate::decode::{Build, Way};
use crate::mmu::reach::{Fast, Full, Miss, Reach};
use crate::op::{EA_16, EA_32, Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// Checks a near branch target: `#GP(0)` if it is not canonical or, outside
    /// 64-bit mode, beyond the code segment's limit.
    #[inline(always)]
    pub(crate) fn near_target(&self, target: u64) -> Result<u64, Exception> {
        if self.s.long64() {
            if is_canonical(target) { Ok(target) } else { Err(Exception::GP0) }
        } else if target <= u64::from(self.s.seg[1].limit) {
            Ok(target)
        } else {
            Err(Exception::GP0)
        }
    }
}

/// The target of a relative branch; `misc` is `EA_16` if IP is truncated to 16 bits.
#[inline(always)]
fn relative<R: Reach>(cpu: &Cpu, op: &Op) -> Result<u64, R::Fault> {
    let target = R::ip(cpu, cpu.s.regs.page_ip().wrapping_add(op.disp));
    R::target(cpu, if R::LONG { target } else { crate::truncate(op.misc & EA_16, target) })
}

/// RIP after the current instruction.
#[inline(always)]
fn next<R: Reach>(cpu: &Cpu, op: &Op) -> u64 {
    R::ip(cpu, cpu.s.regs.page_ip().wrapping_add(op.next_off()))
}

/// The handler of a branch by its two forms: the fast one is for 64-bit mode.
fn relative_branch<F, S>(b: &Build<'_>, fast: F, full: S) -> Handler
where
    F: Fn(&mut Cpu, &Op) -> Result<Flow, Miss> + Copy,
    S: Fn(&mut Cpu, &Op) -> Ran + Copy,
{
    if b.way() == Way::Any { branch(full) } else { reaching(fast, full) }
}

/// Puts the target, relative to the page, into `op.disp`.
fn target(b: &mut Build<'_>) {
    // Relative to the page, as the decoder's IP is; a 16- or 32-bit target has
    // been truncated by iced, so go by the displacement.
    let (next, kind) = (b.insn.next_ip(), b.insn.op0_kind());
    let target = b.insn.near_branch_target();
    b.op.disp = match kind {
        OpKind::NearBranch16 => next.wrapping_add((target.wrapping_sub(next)) as u16 as i16 as u64),
        OpKind::NearBranch32 => next.wrapping_add((target.wrapping_sub(next)) as u32 as i32 as u64),
        _ => target,
    };
    b.op.misc = if kind == OpKind::NearBranch16 { EA_16 } else { 0 };
}

#[inline(always)]
fn jmp_relative<R: Reach>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    cpu.s.rip = relative::<R>(cpu, op)?;
    Ok(Flow::Jump)
}

#[inline(always)]
fn jmp_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let to = cpu.s.regs.read::<W>(op.src).zext();
    cpu.s.rip = cpu.near_target(to)?;
    Ok(Flow::Jump)
}

#[inline(always)]
fn jmp_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, false)?;
    let to = cpu.load::<W>(la, op.seg)?.zext();
    cpu.s.rip = cpu.near_target(to)?;
    Ok(Flow::Jump)
}

fn jmp(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.is_jmp_short_or_near() {
        target(b);
        Some(relative_branch(b, jmp_relative::<Fast<false>>, jmp_relative::<Full>))
    } else if b.insn.is_jmp_near_indirect() {
        if b.is_mem(0) {
            by_wide_width!(branch: b.width(0), jmp_mem)
        } else {
            b.op.src = b.reg(0);
            by_wide_width!(branch: b.width(0), jmp_reg)
        }
    } else {
        super::jmp_far(b)
    }
}

#[inline(always)]
fn jcc<R: Reach, const CC: u8>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let taken = cpu.s.flags.condition::<CC>();
    cpu.s.rip = if taken { relative::<R>(cpu, op)? } else { next::<R>(cpu, op) };
    Ok(Flow::Jump)
}

fn jcc_build<const CC: u8>(b: &mut Build<'_>) -> Option<Handler> {
    target(b);
    let (fast, full) = (jcc::<Fast<false>, CC>, jcc::<Full, CC>);
    if b.way() != Way::Any
        && let Some(before) = &mut b.before
        && let Some(handler) = super::arith::with_branch(before, b.mode, fast, full)
    {
        before.op.run = handler;
    }
    Some(relative_branch(b, fast, full))
}

#[inline(always)]
fn call_relative<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let to = relative::<R>(cpu, op)?;
    R::push(cpu, W::truncate(next::<R>(cpu, op)))?;
    cpu.s.rip = to;
    Ok(Flow::Jump)
}

#[inline(always)]
fn call_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let to = cpu.near_target(cpu.s.regs.read::<W>(op.src).zext())?;
    cpu.push(W::truncate(cpu.next_rip(op)))?;
    cpu.s.rip = to;
    Ok(Flow::Jump)
}

#[inline(always)]
fn call_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, false)?;
    let to = cpu.load::<W>(la, op.seg)?.zext();
    let to = cpu.near_target(to)?;
    cpu.push(W::truncate(cpu.next_rip(op)))?;
    cpu.s.rip = to;
    Ok(Flow::Jump)
}

fn call(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.is_call_near() {
        target(b);
        by_reach!(b: b.insn.stack_pointer_increment().unsigned_abs() as usize, call_relative)
    } else if b.insn.is_call_near_indirect() {
        if b.is_mem(0) {
            by_wide_width!(branch: b.width(0), call_mem)
        } else {
            b.op.src = b.reg(0);
            by_wide_width!(branch: b.width(0), call_reg)
        }
    } else {
        super::call_far(b)
    }
}

#[inline(always)]
fn ret<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let to = R::top::<W>(cpu)?.zext();
    cpu.s.rip = R::target(cpu, to)?;
    R::drop_stack(cpu, W::BYTES + u64::from(op.imm as u16));
    Ok(Flow::Jump)
}

fn ret_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_imm(0) {
        b.op.imm = i32::from(b.insn.immediate16());
    }
    let width = match b.insn.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    };
    by_reach!(b: width, ret)
}

/// The count register with the address size in `aux`.
#[inline(always)]
fn count(cpu: &Cpu, op: &Op) -> u64 {
    crate::truncate(op.aux, cpu.s.regs.get(gpr::RCX))
}

fn set_count(cpu: &mut Cpu, op: &Op, value: u64) {
    let rcx = gpr::RCX as u8 * 8;
    match op.aux {
        EA_16 => cpu.s.regs.write(rcx, value as u16),
        EA_32 => cpu.s.regs.write(rcx, value as u32),
        _ => cpu.s.regs.write(rcx, value),
    }
}

/// LOOP (`KIND` 2), LOOPE (1), LOOPNE (0).
#[inline(always)]
fn loop_<const KIND: u8>(cpu: &mut Cpu, op: &Op) -> Ran {
    let left = crate::truncate(op.aux, count(cpu, op).wrapping_sub(1));
    let taken = left != 0 && (KIND == 2 || cpu.s.flags.zf() == (KIND == 1));
    let to = if taken { relative::<Full>(cpu, op)? } else { cpu.next_rip(op) };
    set_count(cpu, op, left);
    cpu.s.rip = to;
    Ok(Flow::Jump)
}

#[inline(always)]
fn jcxz(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.s.rip = if count(cpu, op) == 0 { relative::<Full>(cpu, op)? } else { cpu.next_rip(op) };
    Ok(Flow::Jump)
}

/// Address size of LOOP and JrCXZ, which only the code tells.
fn loop_size(b: &mut Build<'_>) {
    use Code::*;
    b.op.aux = match b.insn.code() {
        Loopne_rel8_16_CX | Loopne_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loop_rel8_16_CX
        | Loop_rel8_32_CX | Jcxz_rel8_16 | Jcxz_rel8_32 => EA_16,
        Loopne_rel8_64_RCX | Loopne_rel8_16_RCX | Loope_rel8_64_RCX | Loope_rel8_16_RCX
        | Loop_rel8_64_RCX | Loop_rel8_16_RCX | Jrcxz_rel8_64 | Jrcxz_rel8_16 => 0,
        _ => EA_32,
    };
}

fn loop_build<const KIND: u8>(b: &mut Build<'_>) -> Option<Handler> {
    target(b);
    loop_size(b);
    Some(branch(loop_::<KIND>))
}

fn jcxz_build(b: &mut Build<'_>) -> Option<Handler> {
    target(b);
    loop_size(b);
    Some(branch(jcxz))
}

const fn control(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::Control, build)
}

const JCC: &str = "Jcc—Jump if Condition Is Met";
const LOOP: &str = "LOOP/LOOPcc—Loop According to ECX Counter";

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    control(M::Jmp, "JMP—Jump", jmp),
    control(M::Call, "CALL—Call Procedure", call),
    control(M::Ret, "RET—Return From Procedure", ret_build),
    control(M::Loop, LOOP, loop_build::<2>),
    control(M::Loope, LOOP, loop_build::<1>),
    control(M::Loopne, LOOP, loop_build::<0>),
    control(M::Jcxz, JCC, jcxz_build),
    control(M::Jecxz, JCC, jcxz_build),
    control(M::Jrcxz, JCC, jcxz_build),
    control(M::Jo, JCC, jcc_build::<0>),
    control(M::Jno, JCC, jcc_build::<1>),
    control(M::Jb, JCC, jcc_build::<2>),
    control(M::Jae, JCC, jcc_build::<3>),
    control(M::Je, JCC, jcc_build::<4>),
    control(M::Jne, JCC, jcc_build::<5>),
    control(M::Jbe, JCC, jcc_build::<6>),
    control(M::Ja, JCC, jcc_build::<7>),
    control(M::Js, JCC, jcc_build::<8>),
    control(M::Jns, JCC, jcc_build::<9>),
    control(M::Jp, JCC, jcc_build::<10>),
    control(M::Jnp, JCC, jcc_build::<11>),
    control(M::Jl, JCC, jcc_build::<12>),
    control(M::Jge, JCC, jcc_build::<13>),
    control(M::Jle, JCC, jcc_build::<14>),
    control(M::Jg, JCC, jcc_build::<15>),
];
