//! Far JMP, CALL and RET (*SDM vol. 3A §5.8; vol. 2A CALL, JMP; vol. 2B RET*).

use arch::descriptor::{Attr, Descriptor, system_type};
use arch::paging::is_canonical;
use arch::regs::{Seg, gpr};
use arch::{Exception, Vector};
use iced_x86::{Code, Mnemonic as M};
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};
use crate::segmentation::{StackRule, cached, gp, is_null, not_present};
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
    fn push_pair<W: Width>(&mut self, first: u64, second: u64) -> Result<(), Exception> {
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
                return self.through_system_descriptor(op, selector, next);
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

    /// A call gate of IA-32e mode. Gates of other modes and task switches are
    /// not implemented; in IA-32e mode they are `#GP` anyway.
    fn through_system_descriptor(
        &mut self,
        op: &Op,
        selector: u16,
        next: Option<u64>,
    ) -> Result<(), Exception> {
        if !self.ia32e() {
            self.note_unimplemented(op);
            return Err(gp(selector));
        }
        let (gate, high) = self.read_system_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = gate.attr();
        if attr.kind() != system_type::CALL_GATE || high >> 40 & 0x1f != 0 {
            return Err(gp(selector));
        }
        if attr.dpl() < self.s.cpl || selector as u8 & 3 > attr.dpl() {
            return Err(gp(selector));
        }
        if !attr.present() {
            return Err(not_present(selector));
        }
        let target = (gate.0 >> 16) as u16;
        let offset = gate.0 & 0xffff | gate.0 >> 32 & 0xffff_0000 | high << 32;
        if is_null(target) {
            return Err(Exception::GP0);
        }
        let descriptor = self.read_descriptor(target)?.ok_or(gp(target))?;
        let attr = descriptor.attr();
        if !attr.is_code() || attr.dpl() > self.s.cpl || !attr.long() || attr.big() {
            return Err(gp(target));
        }
        if !attr.present() {
            return Err(not_present(target));
        }
        if !is_canonical(offset) {
            return Err(Exception::GP0);
        }
        let inner = !attr.is_conforming() && attr.dpl() < self.s.cpl;
        match next {
            Some(next) if inner => self.call_inward(target, descriptor, next)?,
            Some(next) => {
                self.set_accessed(target, descriptor)?;
                let cs = u64::from(self.s.seg[CS].selector);
                self.push_pair::<u64>(cs, next)?;
                self.s.seg[CS] = cached(target & !3 | u16::from(self.s.cpl), descriptor);
            }
            None if inner => return Err(gp(target)),
            None => {
                self.set_accessed(target, descriptor)?;
                self.s.seg[CS] = cached(target & !3 | u16::from(self.s.cpl), descriptor);
            }
        }
        self.s.rip = offset;
        Ok(())
    }

    /// A call to an inner privilege level: the stack of the TSS, SS null.
    fn call_inward(&mut self, target: u16, descriptor: Descriptor, next: u64) -> Result<(), Exception> {
        let cpl = descriptor.attr().dpl();
        let top = self.read_tss::<u64>(4 + 8 * u64::from(cpl))?;
        let words = [
            next,
            u64::from(self.s.seg[CS].selector),
            self.s.regs.get(gpr::RSP),
            u64::from(self.s.seg[SS].selector),
        ];
        let mut frame = [0; 32];
        for (bytes, word) in frame.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let bottom = top.wrapping_sub(32);
        if !is_canonical(bottom) || !is_canonical(top.wrapping_sub(1)) {
            return Err(Exception::new(Vector::StackFault, 0));
        }
        self.set_accessed(target, descriptor)?;
        self.write_frame(cpl, bottom, &frame)?;
        self.s.seg[CS] = cached(target & !3 | u16::from(cpl), descriptor);
        let attr = Attr(u32::from(cpl) << 13);
        self.s.seg[SS] = Segment { selector: u16::from(cpl), attr, ..Segment::default() };
        self.s.regs.set(gpr::RSP, bottom);
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
