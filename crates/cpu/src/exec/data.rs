//! Data transfer: MOV, MOVZX, XCHG, LEA, PUSH, POP, CMOVcc, SETcc and kin
//! (*SDM vol. 1 §7.3.1*). Moves to and from segment, control and debug
//! registers are in [`super::segment`] and [`super::system`].

use arch::Exception;
use arch::regs::{Seg, gpr};
use iced_x86::{Code, Mnemonic as M, Register};
use mem::raw::Width;

use super::{by_reach, by_wide_width, by_width};
use crate::Cpu;
use crate::chain::{any, pure};
use crate::decode::Build;
use crate::mmu::reach::Reach;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

const SS: u8 = Seg::Ss as u8;

#[inline(always)]
fn mov_reg_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.s.regs.read::<W>(op.src);
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_reg_imm<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.s.regs.write(op.dst, W::truncate(op.disp));
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_reg_mem<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, false)?;
    let value = R::load::<W>(cpu, la, op.seg)?;
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_mem_reg<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, true)?;
    let value = cpu.s.regs.read::<W>(op.src);
    R::store(cpu, la, value, op.seg)?;
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_mem_imm<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, W::BYTES, true)?;
    R::store(cpu, la, W::truncate(op.imm as i64 as u64), op.seg)?;
    Ok(Flow::Next)
}

fn mov(b: &mut Build<'_>) -> Option<Handler> {
    for n in 0..2 {
        if b.is_reg(n) && !b.insn.op_register(n).is_gpr() {
            return super::mov_special(b);
        }
    }
    let width = b.width(0);
    if b.is_mem(0) {
        if b.is_imm(1) {
            b.imm(1);
            return by_reach!(b: width, mov_mem_imm);
        }
        b.op.src = b.reg(1);
        return by_reach!(b: width, mov_mem_reg);
    }
    b.op.dst = b.reg(0);
    if b.is_imm(1) {
        b.op.disp = b.insn.immediate(1);
        by_width!(pure: width, mov_reg_imm)
    } else if b.is_mem(1) {
        by_reach!(b: width, mov_reg_mem)
    } else {
        b.op.src = b.reg(1);
        by_width!(pure: width, mov_reg_reg)
    }
}

#[inline(always)]
fn extend_reg<const SIGNED: bool, F: Width, T: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.s.regs.read::<F>(op.src);
    let value = if SIGNED { value.sext() } else { value.zext() };
    cpu.s.regs.write(op.dst, T::truncate(value));
    Ok(Flow::Next)
}

#[inline(always)]
fn extend_mem<R: Reach, const SIGNED: bool, F: Width, T: Width>(
    cpu: &mut Cpu,
    op: &Op,
) -> Result<Flow, R::Fault> {
    let la = R::address(cpu, op, F::BYTES, false)?;
    let value = R::load::<F>(cpu, la, op.seg)?;
    let value = if SIGNED { value.sext() } else { value.zext() };
    cpu.s.regs.write(op.dst, T::truncate(value));
    Ok(Flow::Next)
}

/// MOVZX, MOVSX, MOVSXD.
fn extend<const SIGNED: bool>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    let (from, to) = (b.width(1), b.width(0));
    if b.is_mem(1) {
        match from {
            1 => by_reach!(b: to, extend_mem_from8, Sign<SIGNED>),
            2 => by_reach!(b: to, extend_mem_from16, Sign<SIGNED>),
            _ => by_reach!(b: to, extend_mem_from32, Sign<SIGNED>),
        }
    } else {
        b.op.src = b.reg(1);
        match from {
            1 => by_wide_width!(pure: to, extend_reg_from8, Sign<SIGNED>),
            2 => by_wide_width!(pure: to, extend_reg_from16, Sign<SIGNED>),
            _ => by_wide_width!(pure: to, extend_reg_from32, Sign<SIGNED>),
        }
    }
}

/// A sign as a type, for handlers picked by `by_width!`.
struct Sign<const SIGNED: bool>;
trait IsSigned {
    const SIGNED: bool;
}
impl<const SIGNED: bool> IsSigned for Sign<SIGNED> {
    const SIGNED: bool = SIGNED;
}

macro_rules! extend_from {
    ($reg:ident, $mem:ident, $from:ty) => {
        #[inline(always)]
        fn $reg<S: IsSigned, T: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
            if S::SIGNED {
                extend_reg::<true, $from, T>(cpu, op)
            } else {
                extend_reg::<false, $from, T>(cpu, op)
            }
        }
        #[inline(always)]
        fn $mem<R: Reach, S: IsSigned, T: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
            if S::SIGNED {
                extend_mem::<R, true, $from, T>(cpu, op)
            } else {
                extend_mem::<R, false, $from, T>(cpu, op)
            }
        }
    };
}
extend_from!(extend_reg_from8, extend_mem_from8, u8);
extend_from!(extend_reg_from16, extend_mem_from16, u16);
extend_from!(extend_reg_from32, extend_mem_from32, u32);

#[inline(always)]
fn xchg_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let (a, b) = (cpu.s.regs.read::<W>(op.dst), cpu.s.regs.read::<W>(op.src));
    cpu.s.regs.write(op.dst, b);
    cpu.s.regs.write(op.src, a);
    Ok(Flow::Next)
}

/// XCHG with memory is locked with or without the prefix.
#[inline(always)]
fn xchg_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let value = cpu.s.regs.read::<W>(op.src).zext();
    let old = cpu.update_locked::<W>(la, op.seg, |_| value)?;
    cpu.s.regs.write(op.src, W::truncate(old));
    Ok(Flow::Next)
}

fn xchg(b: &mut Build<'_>) -> Option<Handler> {
    let width = b.width(0);
    let (mem, reg) = if b.is_mem(1) { (1, 0) } else { (0, 1) };
    b.op.src = b.reg(reg);
    if b.is_mem(mem) {
        by_width!(width, xchg_mem)
    } else {
        b.op.dst = b.reg(mem);
        by_width!(pure: width, xchg_reg)
    }
}

#[inline(always)]
fn lea<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let offset = crate::truncate(op.ea, cpu.ea_offset(op));
    cpu.s.regs.write(op.dst, W::truncate(offset));
    Ok(Flow::Next)
}

fn lea_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    by_wide_width!(pure: b.width(0), lea)
}

impl Cpu {
    /// Address of the stack top moved by `delta`, and the new RSP, by the stack's size.
    #[inline(always)]
    fn stack(&self, delta: i64) -> u64 {
        let rsp = self.s.regs.get(gpr::RSP).wrapping_add(delta as u64);
        if self.s.long64() {
            rsp
        } else if self.s.seg[SS as usize].attr.big() {
            rsp & 0xffff_ffff
        } else {
            self.s.regs.get(gpr::RSP) & !0xffff | rsp & 0xffff
        }
    }

    /// Linear address of `rsp` in the stack segment.
    #[inline(always)]
    fn stack_address(&self, rsp: u64, n: u64, write: bool) -> Result<u64, Exception> {
        if self.s.long64() {
            return Ok(rsp);
        }
        let offset = if self.s.seg[SS as usize].attr.big() { rsp } else { rsp & 0xffff };
        self.linear(crate::op::EA_LEGACY, SS, offset, n, write)
    }

    /// Pushes; RSP changes only if the store does not fault.
    #[inline(always)]
    pub(crate) fn push<W: Width>(&mut self, value: W) -> Result<(), Exception> {
        let rsp = self.stack(-(W::BYTES as i64));
        let la = self.stack_address(rsp, W::BYTES, true)?;
        self.store(la, value, SS)?;
        self.s.regs.set(gpr::RSP, rsp);
        Ok(())
    }

    /// Reads the stack at `offset` bytes above its top, without popping.
    #[inline(always)]
    pub(crate) fn peek<W: Width>(&mut self, offset: i64) -> Result<W, Exception> {
        let la = self.stack_address(self.stack(offset), W::BYTES, false)?;
        self.load(la, SS)
    }

    /// Takes `n` bytes off the stack.
    #[inline(always)]
    pub(crate) fn drop_stack(&mut self, n: u64) {
        let rsp = self.stack(n as i64);
        self.s.regs.set(gpr::RSP, rsp);
    }
}

#[inline(always)]
fn push_reg<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let value = cpu.s.regs.read::<W>(op.src);
    R::push(cpu, value)?;
    Ok(Flow::Next)
}

#[inline(always)]
fn push_imm<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.push(W::truncate(op.imm as i64 as u64))?;
    Ok(Flow::Next)
}

#[inline(always)]
fn push_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, false)?;
    let value = cpu.load::<W>(la, op.seg)?;
    cpu.push(value)?;
    Ok(Flow::Next)
}

/// Bytes a stack instruction moves.
fn stack_width(b: &Build<'_>) -> usize {
    b.insn.stack_pointer_increment().unsigned_abs() as usize
}

fn push(b: &mut Build<'_>) -> Option<Handler> {
    let width = stack_width(b);
    if b.is_mem(0) {
        by_wide_width!(width, push_mem)
    } else if b.is_imm(0) {
        b.imm(0);
        by_wide_width!(width, push_imm)
    } else if b.insn.op_register(0).is_gpr() {
        b.op.src = b.reg(0);
        by_reach!(b: width, push_reg)
    } else {
        super::push_segment(b)
    }
}

#[inline(always)]
fn pop_reg<R: Reach, W: Width>(cpu: &mut Cpu, op: &Op) -> Result<Flow, R::Fault> {
    let value = R::top::<W>(cpu)?;
    R::drop_stack(cpu, W::BYTES);
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

/// The address is computed with RSP after the pop (*SDM vol. 2B, POP*).
#[inline(always)]
fn pop_mem<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.peek::<W>(0)?;
    let rsp = cpu.s.regs.get(gpr::RSP);
    cpu.drop_stack(W::BYTES);
    let result = cpu.ea(op, W::BYTES, true).and_then(|la| cpu.store(la, value, op.seg));
    if result.is_err() {
        cpu.s.regs.set(gpr::RSP, rsp);
    }
    result.map(|()| Flow::Next)
}

fn pop(b: &mut Build<'_>) -> Option<Handler> {
    let width = stack_width(b);
    if b.is_mem(0) {
        by_wide_width!(width, pop_mem)
    } else if b.insn.op_register(0).is_gpr() {
        b.op.dst = b.reg(0);
        by_reach!(b: width, pop_reg)
    } else {
        super::pop_segment(b)
    }
}

/// PUSHA, PUSHAD.
#[inline(always)]
fn pusha<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let rsp = cpu.s.regs.get(gpr::RSP);
    for n in 0..8u8 {
        let value = if n == 4 { W::truncate(rsp) } else { cpu.s.regs.read::<W>(n * 8) };
        if let Err(fault) = cpu.push(value) {
            cpu.s.regs.set(gpr::RSP, rsp);
            return Err(fault);
        }
    }
    Ok(Flow::Next)
}

/// POPA, POPAD.
#[inline(always)]
fn popa<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let mut values = [None; 8];
    for (i, value) in values.iter_mut().enumerate() {
        *value = Some(cpu.peek::<W>(i as i64 * W::BYTES as i64)?);
    }
    cpu.drop_stack(8 * W::BYTES);
    for (i, value) in values.into_iter().enumerate() {
        let n = 7 - i as u8;
        if let (Some(value), true) = (value, n != 4) {
            cpu.s.regs.write(n * 8, value);
        }
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn bswap<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.s.regs.read::<W>(op.dst).zext();
    // With a 16-bit operand the result is undefined; processors give zero.
    let swapped = if W::BYTES == 2 { 0 } else { value.swap_bytes() >> (64 - W::BITS) };
    cpu.s.regs.write(op.dst, W::truncate(swapped));
    Ok(Flow::Next)
}

fn bswap_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    by_wide_width!(pure: b.width(0), bswap)
}

#[inline(always)]
fn movbe_load<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, false)?;
    let value = cpu.load::<W>(la, op.seg)?.zext();
    cpu.s.regs.write(op.dst, W::truncate(value.swap_bytes() >> (64 - W::BITS)));
    Ok(Flow::Next)
}

#[inline(always)]
fn movbe_store<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    let value = cpu.s.regs.read::<W>(op.src).zext();
    cpu.store(la, W::truncate(value.swap_bytes() >> (64 - W::BITS)), op.seg)?;
    Ok(Flow::Next)
}

fn movbe(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_mem(0) {
        b.op.src = b.reg(1);
        by_wide_width!(b.width(1), movbe_store)
    } else {
        b.op.dst = b.reg(0);
        by_wide_width!(b.width(0), movbe_load)
    }
}

/// CMOVcc always reads its source, and a 32-bit destination is zero-extended
/// even if the condition is false.
#[inline(always)]
fn cmov_reg<const CC: u8, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let from = if cpu.s.flags.condition::<CC>() { op.src } else { op.dst };
    let value = cpu.s.regs.read::<W>(from);
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn cmov_mem<const CC: u8, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, false)?;
    let source = cpu.load::<W>(la, op.seg)?;
    let old = cpu.s.regs.read::<W>(op.dst);
    let value = if cpu.s.flags.condition::<CC>() { source } else { old };
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

fn cmov<const CC: u8>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    let mem = b.is_mem(1);
    if !mem {
        b.op.src = b.reg(1);
    }
    Some(match (b.width(0), mem) {
        (2, false) => pure(cmov_reg::<CC, u16>),
        (4, false) => pure(cmov_reg::<CC, u32>),
        (_, false) => pure(cmov_reg::<CC, u64>),
        (2, true) => any(cmov_mem::<CC, u16>),
        (4, true) => any(cmov_mem::<CC, u32>),
        (_, true) => any(cmov_mem::<CC, u64>),
    })
}

#[inline(always)]
fn set_reg<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = u8::from(cpu.s.flags.condition::<CC>());
    cpu.s.regs.write(op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn set_mem<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, 1, true)?;
    cpu.store(la, u8::from(cpu.s.flags.condition::<CC>()), op.seg)?;
    Ok(Flow::Next)
}

fn setcc<const CC: u8>(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_mem(0) {
        return Some(any(set_mem::<CC>));
    }
    b.op.dst = b.reg(0);
    Some(pure(set_reg::<CC>))
}

/// CBW, CWDE, CDQE: sign-extends the lower half of RAX.
#[inline(always)]
fn widen<F: Width, T: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let value = cpu.s.regs.read::<F>(0).sext();
    cpu.s.regs.write(0, T::truncate(value));
    Ok(Flow::Next)
}

/// CWD, CDQ, CQO: fills RDX with the sign of RAX.
#[inline(always)]
fn sign_to_dx<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let value = (cpu.s.regs.read::<W>(0).sext() as i64 >> 63) as u64;
    cpu.s.regs.write(gpr::RDX as u8 * 8, W::truncate(value));
    Ok(Flow::Next)
}

#[inline(always)]
fn lahf(cpu: &mut Cpu, _op: &Op) -> Ran {
    let flags = cpu.s.flags.get() as u8 & 0xd5 | 2;
    cpu.s.regs.write(1, flags);
    Ok(Flow::Next)
}

#[inline(always)]
fn sahf(cpu: &mut Cpu, _op: &Op) -> Ran {
    let ah = u64::from(cpu.s.regs.read::<u8>(1));
    cpu.s.flags.update(0xd5, ah);
    Ok(Flow::Next)
}

/// XLAT: AL = [rBX + AL].
#[inline(always)]
fn xlat(cpu: &mut Cpu, op: &Op) -> Ran {
    let al = u64::from(cpu.s.regs.read::<u8>(0));
    let offset = crate::truncate(op.misc, cpu.s.regs.get(gpr::RBX).wrapping_add(al));
    let la = cpu.linear(op.ea, op.seg, offset, 1, false)?;
    let value = cpu.load::<u8>(la, op.seg)?;
    cpu.s.regs.write(0, value);
    Ok(Flow::Next)
}

fn xlat_build(b: &mut Build<'_>) -> Option<Handler> {
    let address = match b.insn.memory_base() {
        Register::BX => 2,
        Register::EBX => 4,
        _ => 8,
    };
    b.segment(b.insn.memory_segment(), address);
    b.op.misc = [crate::op::EA_16, crate::op::EA_32, 0][(address as usize).trailing_zeros() as usize - 1];
    Some(any(xlat))
}

#[inline(always)]
fn nop(_cpu: &mut Cpu, _op: &Op) -> Ran {
    Ok(Flow::Next)
}

/// PAUSE: a processor that spins gives its host thread away now and then, for
/// the one it waits for may have none.
#[inline(always)]
fn pause(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.pauses = cpu.pauses.wrapping_add(1);
    if cpu.pauses.is_multiple_of(64) && cpu.shared.peer_count() > 1 {
        std::thread::yield_now();
    }
    Ok(Flow::Next)
}

/// ENTER (*SDM vol. 2A*): `imm` bytes of frame, `aux` nesting level.
#[inline(always)]
fn enter<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let old = cpu.s.regs.get(gpr::RSP);
    let result = enter_frame::<W>(cpu, op);
    if result.is_err() {
        cpu.s.regs.set(gpr::RSP, old);
    }
    result
}

#[inline(always)]
fn enter_frame<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let rbp = cpu.s.regs.read::<W>(gpr::RBP as u8 * 8);
    cpu.push(rbp)?;
    let frame = cpu.s.regs.get(gpr::RSP);
    let level = op.aux & 31;
    for n in 1..level {
        let at = cpu.s.regs.get(gpr::RBP).wrapping_sub(u64::from(n) * W::BYTES);
        let long = cpu.s.long64();
        let la = if long { at } else { cpu.stack_address(at & 0xffff_ffff, W::BYTES, false)? };
        let display = cpu.load::<W>(la, SS)?;
        cpu.push(display)?;
    }
    if level > 0 {
        cpu.push(W::truncate(frame))?;
    }
    let rsp = cpu.stack(-i64::from(op.imm as u16));
    // The new stack top must be writable, though nothing is stored there.
    let la = cpu.stack_address(rsp, W::BYTES, true)?;
    cpu.probe_write(la, W::BYTES, SS)?;
    cpu.s.regs.write(gpr::RBP as u8 * 8, W::truncate(frame));
    cpu.s.regs.set(gpr::RSP, rsp);
    Ok(Flow::Next)
}

fn enter_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.imm = i32::from(b.insn.immediate16());
    b.op.aux = b.insn.immediate8_2nd() & 31;
    // iced counts the frame into the stack increment: go by the code.
    match b.insn.code() {
        Code::Enterw_imm16_imm8 => Some(any(enter::<u16>)),
        Code::Enterd_imm16_imm8 => Some(any(enter::<u32>)),
        _ => Some(any(enter::<u64>)),
    }
}

#[inline(always)]
fn leave<W: Width>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let old = cpu.s.regs.get(gpr::RSP);
    let rbp = cpu.s.regs.get(gpr::RBP);
    let rsp = if cpu.s.long64() {
        rbp
    } else if cpu.s.seg[SS as usize].attr.big() {
        rbp & 0xffff_ffff
    } else {
        old & !0xffff | rbp & 0xffff
    };
    cpu.s.regs.set(gpr::RSP, rsp);
    match cpu.peek::<W>(0) {
        Ok(value) => {
            cpu.drop_stack(W::BYTES);
            cpu.s.regs.write(gpr::RBP as u8 * 8, value);
            Ok(Flow::Next)
        }
        Err(fault) => {
            cpu.s.regs.set(gpr::RSP, old);
            Err(fault)
        }
    }
}

fn leave_build(b: &mut Build<'_>) -> Option<Handler> {
    // How far the stack pointer moves depends on RBP: go by the code.
    Some(match b.insn.code() {
        Code::Leavew => any(leave::<u16>),
        Code::Leaved => any(leave::<u32>),
        _ => any(leave::<u64>),
    })
}

macro_rules! fixed {
    ($name:ident, $handler:expr) => {
        fn $name(_b: &mut Build<'_>) -> Option<Handler> {
            Some(any($handler))
        }
    };
}
fixed!(nop_build, nop);
fixed!(pause_build, pause);
fixed!(cbw, widen::<u8, u16>);
fixed!(cwde, widen::<u16, u32>);
fixed!(cdqe, widen::<u32, u64>);
fixed!(cwd, sign_to_dx::<u16>);
fixed!(cdq, sign_to_dx::<u32>);
fixed!(cqo, sign_to_dx::<u64>);
fixed!(lahf_build, lahf);
fixed!(sahf_build, sahf);
fixed!(pushaw, pusha::<u16>);
fixed!(pushad, pusha::<u32>);
fixed!(popaw, popa::<u16>);
fixed!(popad, popa::<u32>);

const fn data(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::DataTransfer, build)
}

const CMOV: &str = "CMOVcc—Conditional Move";
const SETCC: &str = "SETcc—Set Byte on Condition";

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    // MOV to SS, CR and DR changes more than data; those handlers end blocks themselves.
    // Its forms for control and debug registers are for CPL 0.
    data(M::Mov, "MOV—Move", mov).gate(Gate::Control),
    data(M::Movzx, "MOVZX—Move With Zero-Extend", extend::<false>),
    data(M::Movsx, "MOVSX/MOVSXD—Move With Sign-Extension", extend::<true>),
    data(M::Movsxd, "MOVSX/MOVSXD—Move With Sign-Extension", extend::<true>),
    data(M::Xchg, "XCHG—Exchange Register/Memory With Register", xchg).lock(),
    data(M::Lea, "LEA—Load Effective Address", lea_build),
    data(M::Push, "PUSH—Push Word, Doubleword, or Quadword Onto the Stack", push),
    data(M::Pop, "POP—Pop a Value From the Stack", pop),
    data(M::Pusha, "PUSHA/PUSHAD—Push All General-Purpose Registers", pushaw),
    data(M::Pushad, "PUSHA/PUSHAD—Push All General-Purpose Registers", pushad),
    data(M::Popa, "POPA/POPAD—Pop All General-Purpose Registers", popaw),
    data(M::Popad, "POPA/POPAD—Pop All General-Purpose Registers", popad),
    data(M::Bswap, "BSWAP—Byte Swap", bswap_build),
    data(M::Movbe, "MOVBE—Move Data After Swapping Bytes", movbe),
    data(M::Cbw, "CBW/CWDE/CDQE—Convert", cbw),
    data(M::Cwde, "CBW/CWDE/CDQE—Convert", cwde),
    data(M::Cdqe, "CBW/CWDE/CDQE—Convert", cdqe),
    data(M::Cwd, "CWD/CDQ/CQO—Convert", cwd),
    data(M::Cdq, "CWD/CDQ/CQO—Convert", cdq),
    data(M::Cqo, "CWD/CDQ/CQO—Convert", cqo),
    data(M::Xlatb, "XLAT/XLATB—Table Look-up Translation", xlat_build),
    data(M::Lahf, "LAHF—Load Status Flags Into AH Register", lahf_build),
    data(M::Sahf, "SAHF—Store AH Into Flags", sahf_build),
    data(M::Enter, "ENTER—Make Stack Frame for Procedure Parameters", enter_build),
    data(M::Leave, "LEAVE—High Level Procedure Exit", leave_build),
    Row::new(M::Nop, "NOP—No Operation", Group::Misc, nop_build),
    Row::new(M::Pause, "PAUSE—Spin Loop Hint", Group::Misc, pause_build).ends(),
    Row::new(M::Endbr64, "ENDBR64—Terminate an Indirect Branch in 64-Bit Mode", Group::Misc, nop_build)
        .hint(),
    Row::new(
        M::Endbr32,
        "ENDBR32—Terminate an Indirect Branch in 32-Bit and Compatibility Mode",
        Group::Misc,
        nop_build,
    )
    .hint(),
    Row::new(M::Rdsspd, "RDSSPD/RDSSPQ—Read Shadow Stack Pointer", Group::Misc, nop_build).hint(),
    Row::new(M::Rdsspq, "RDSSPD/RDSSPQ—Read Shadow Stack Pointer", Group::Misc, nop_build).hint(),
    Row::new(M::Cldemote, "CLDEMOTE—Cache Line Demote", Group::Misc, nop_build).hint(),
    Row::new(M::Reservednop, "NOP—No Operation", Group::Misc, nop_build).hint(),
    Row::new(M::Bndmk, "BNDMK—Make Bounds", Group::Misc, nop_build).hint(),
    Row::new(M::Bndcl, "BNDCL—Check Lower Bound", Group::Misc, nop_build).hint(),
    Row::new(M::Bndcu, "BNDCU/BNDCN—Check Upper Bound", Group::Misc, nop_build).hint(),
    Row::new(M::Bndcn, "BNDCU/BNDCN—Check Upper Bound", Group::Misc, nop_build).hint(),
    Row::new(M::Bndmov, "BNDMOV—Move Bounds", Group::Misc, nop_build).hint(),
    Row::new(M::Bndldx, "BNDLDX—Load Extended Bounds Using Address Translation", Group::Misc, nop_build)
        .hint(),
    Row::new(M::Bndstx, "BNDSTX—Store Extended Bounds Using Address Translation", Group::Misc, nop_build)
        .hint(),
    data(M::Cmovo, CMOV, cmov::<0>),
    data(M::Cmovno, CMOV, cmov::<1>),
    data(M::Cmovb, CMOV, cmov::<2>),
    data(M::Cmovae, CMOV, cmov::<3>),
    data(M::Cmove, CMOV, cmov::<4>),
    data(M::Cmovne, CMOV, cmov::<5>),
    data(M::Cmovbe, CMOV, cmov::<6>),
    data(M::Cmova, CMOV, cmov::<7>),
    data(M::Cmovs, CMOV, cmov::<8>),
    data(M::Cmovns, CMOV, cmov::<9>),
    data(M::Cmovp, CMOV, cmov::<10>),
    data(M::Cmovnp, CMOV, cmov::<11>),
    data(M::Cmovl, CMOV, cmov::<12>),
    data(M::Cmovge, CMOV, cmov::<13>),
    data(M::Cmovle, CMOV, cmov::<14>),
    data(M::Cmovg, CMOV, cmov::<15>),
    data(M::Seto, SETCC, setcc::<0>),
    data(M::Setno, SETCC, setcc::<1>),
    data(M::Setb, SETCC, setcc::<2>),
    data(M::Setae, SETCC, setcc::<3>),
    data(M::Sete, SETCC, setcc::<4>),
    data(M::Setne, SETCC, setcc::<5>),
    data(M::Setbe, SETCC, setcc::<6>),
    data(M::Seta, SETCC, setcc::<7>),
    data(M::Sets, SETCC, setcc::<8>),
    data(M::Setns, SETCC, setcc::<9>),
    data(M::Setp, SETCC, setcc::<10>),
    data(M::Setnp, SETCC, setcc::<11>),
    data(M::Setl, SETCC, setcc::<12>),
    data(M::Setge, SETCC, setcc::<13>),
    data(M::Setle, SETCC, setcc::<14>),
    data(M::Setg, SETCC, setcc::<15>),
];
