//! Far JMP, CALL and RET (*SDM vol. 3A §5.8; vol. 2A CALL, JMP; vol. 2B RET*).

use arch::Exception;
use arch::regs::{Seg, gpr};
use iced_x86::{Code, Mnemonic as M};
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};
use crate::segmentation::{StackRule, gp, is_null};
use crate::state::Segment;

type Ran = Result<Flow, Exception>;

const CS: usize = Seg::Cs as usize;
const SS: usize = Seg::Ss as usize;

impl Cpu {
    /// Checks the code segment that a return or IRET names and gives what CS
    /// becomes, at the privilege level of the selector's RPL.
    pub(super) fn return_segment(&mut self, selector: u16, ip: u64) -> Result<Segment, Exception> {
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let rpl = selector as u8 & 3;
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = descriptor.attr();
        let allowed = if attr.is_conforming() { attr.dpl() <= rpl } else { attr.dpl() == rpl };
        if rpl < self.s.cpl || !attr.is_code() || !allowed {
            return Err(gp(selector));
        }
        self.code_segment(selector, descriptor, ip, rpl)
    }

    /// SS for a return to privilege level `cpl` and code segment `code`.
    pub(super) fn return_stack(
        &mut self,
        selector: u16,
        code: &Segment,
        cpl: u8,
    ) -> Result<Segment, Exception> {
        let null_ok = self.ia32e() && code.attr.long() && cpl < 3;
        self.stack_segment(selector, StackRule { cpl, null_ok, from_tss: false })
    }

    /// RSP after a stack switch, by the new stack's size.
    pub(super) fn set_switched_rsp(&mut self, rsp: u64) {
        let old = self.s.regs.get(gpr::RSP);
        let rsp = if self.s.long64() {
            rsp
        } else if self.s.seg[SS].attr.big() {
            rsp & 0xffff_ffff
        } else {
            old & !0xffff | rsp & 0xffff
        };
        self.s.regs.set(gpr::RSP, rsp);
    }

    fn real_mode_jump(&mut self, selector: u16, ip: u64) -> Result<(), Exception> {
        if ip > u64::from(self.s.seg[CS].limit) {
            return Err(Exception::GP0);
        }
        self.s.seg[CS].selector = selector;
        self.s.seg[CS].base = u64::from(selector) << 4;
        self.s.rip = ip;
        Ok(())
    }

    /// Pushes two values or none.
    pub(super) fn push_pair<W: Width>(&mut self, first: u64, second: u64) -> Result<(), Exception> {
        let rsp = self.s.regs.get(gpr::RSP);
        self.push(W::truncate(first))?;
        self.push(W::truncate(second)).inspect_err(|_| self.s.regs.set(gpr::RSP, rsp))
    }

    /// A far JMP, or a far CALL that returns to `next`; `W` is the operand size.
    fn far_transfer<W: Width>(
        &mut self,
        op: &Op,
        selector: u16,
        offset: u64,
        next: Option<u64>,
    ) -> Result<(), Exception> {
        let from = u64::from(self.s.seg[CS].selector);
        if !self.protected() {
            if offset > u64::from(self.s.seg[CS].limit) {
                return Err(Exception::GP0);
            }
            if let Some(next) = next {
                self.push_pair::<W>(from, next)?;
            }
            return self.real_mode_jump(selector, offset);
        }
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = descriptor.attr();
        if !attr.is_code() {
            if !attr.is_user() {
                return self.through_system_descriptor(op, selector, descriptor, next);
            }
            return Err(gp(selector));
        }
        let (rpl, cpl) = (selector as u8 & 3, self.s.cpl);
        let allowed = if attr.is_conforming() { attr.dpl() <= cpl } else { rpl <= cpl && attr.dpl() == cpl };
        if !allowed {
            return Err(gp(selector));
        }
        let code = self.code_segment(selector, descriptor, offset, cpl)?;
        if let Some(next) = next {
            self.push_pair::<W>(from, next)?;
        }
        self.s.seg[CS] = code;
        self.s.rip = offset;
        Ok(())
    }
}

/// JMP or CALL (`CALL`) ptr16:16, ptr16:32.
fn direct<const CALL: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let next = CALL.then(|| cpu.next_rip(op));
    cpu.far_transfer::<W>(op, op.imm as u16, op.disp, next)?;
    Ok(Flow::Jump)
}

/// JMP or CALL m16:16, m16:32, m16:64.
fn indirect<const CALL: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES + 2, false)?;
    let offset = cpu.load::<W>(la, op.seg)?.zext();
    let selector = cpu.load::<u16>(la.wrapping_add(W::BYTES), op.seg)?;
    let next = CALL.then(|| cpu.next_rip(op));
    cpu.far_transfer::<W>(op, selector, offset, next)?;
    Ok(Flow::Jump)
}

fn far<const CALL: bool>(b: &mut Build<'_>) -> Option<Handler> {
    b.ends = true;
    match b.insn.code() {
        Code::Jmp_ptr1616 | Code::Call_ptr1616 => {
            b.op.disp = u64::from(b.insn.far_branch16());
            b.op.imm = i32::from(b.insn.far_branch_selector());
            Some(any(direct::<CALL, u16>))
        }
        Code::Jmp_ptr1632 | Code::Call_ptr1632 => {
            b.op.disp = u64::from(b.insn.far_branch32());
            b.op.imm = i32::from(b.insn.far_branch_selector());
            Some(any(direct::<CALL, u32>))
        }
        Code::Jmp_m1616 | Code::Call_m1616 => Some(any(indirect::<CALL, u16>)),
        Code::Jmp_m1632 | Code::Call_m1632 => Some(any(indirect::<CALL, u32>)),
        Code::Jmp_m1664 | Code::Call_m1664 => Some(any(indirect::<CALL, u64>)),
        _ => None,
    }
}

/// JMP with a far operand.
pub(in crate::exec) fn jmp_far(b: &mut Build<'_>) -> Option<Handler> {
    far::<false>(b)
}

/// CALL with a far operand.
pub(in crate::exec) fn call_far(b: &mut Build<'_>) -> Option<Handler> {
    far::<true>(b)
}

/// RET far; `imm` bytes are released on both stacks.
fn retf<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let n = W::BYTES as i64;
    let release = i64::from(op.imm as u16);
    let ip = cpu.peek::<W>(0)?.zext();
    let selector = cpu.peek::<W>(n)?.zext() as u16;
    if !cpu.protected() {
        cpu.real_mode_jump(selector, ip)?;
        cpu.drop_stack((2 * n + release) as u64);
        return Ok(Flow::Jump);
    }
    let code = cpu.return_segment(selector, ip)?;
    let cpl = selector as u8 & 3;
    if cpl == cpu.s.cpl {
        cpu.drop_stack((2 * n + release) as u64);
        cpu.s.seg[CS] = code;
        cpu.s.rip = ip;
        return Ok(Flow::Jump);
    }
    let rsp = cpu.peek::<W>(2 * n + release)?.zext();
    let ss = cpu.peek::<W>(3 * n + release)?.zext() as u16;
    let stack = cpu.return_stack(ss, &code, cpl)?;
    cpu.s.seg[CS] = code;
    cpu.s.seg[SS] = stack;
    cpu.set_cpl(cpl);
    cpu.set_switched_rsp(rsp);
    cpu.drop_stack(release as u64);
    cpu.s.rip = ip;
    cpu.drop_inner_segments();
    Ok(Flow::Jump)
}

fn retf_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_imm(0) {
        b.op.imm = i32::from(b.insn.immediate16());
    }
    match b.insn.code() {
        Code::Retfw | Code::Retfw_imm16 => Some(any(retf::<u16>)),
        Code::Retfd | Code::Retfd_imm16 => Some(any(retf::<u32>)),
        _ => Some(any(retf::<u64>)),
    }
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] =
    &[Row::new(M::Retf, "RET—Return From Procedure", Group::Control, retf_build).ends()];
