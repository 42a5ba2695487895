//! Delivery in protected mode outside IA-32e mode (*SDM vol. 3A §6.12*) and in
//! real mode (*vol. 3B §20.1.4*).

use arch::regs::{Seg, gpr, rflags};
use arch::{Exception, Vector};

use super::{Event, Source};
use crate::Cpu;
use crate::segmentation::{StackRule, gp, is_null};
use crate::state::Segment;

/// Gate types of the IDT outside IA-32e mode (*SDM vol. 3A table 3-2*).
mod kind {
    pub(super) const TASK: u64 = 5;
    pub(super) const INTERRUPT16: u64 = 6;
    pub(super) const TRAP16: u64 = 7;
    pub(super) const INTERRUPT32: u64 = 14;
    pub(super) const TRAP32: u64 = 15;
}

/// A stack that words are put on, top down, before anything is written.
struct Frame {
    bytes: [u8; 32],
    at: usize,
    wide: bool,
}

impl Frame {
    fn new(wide: bool) -> Self {
        Frame { bytes: [0; 32], at: 32, wide }
    }
    fn push(&mut self, value: u64) {
        let n = if self.wide { 4 } else { 2 };
        self.at -= n;
        self.bytes[self.at..self.at + n].copy_from_slice(&value.to_le_bytes()[..n]);
    }
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

impl Cpu {
    pub(super) fn deliver_protected(&mut self, event: Event) -> Result<(), Exception> {
        let at = u64::from(event.vector) * 8;
        let gate_error = u32::from(event.vector) * 8 + 2;
        if at + 7 > u64::from(self.s.idtr.limit) {
            return Err(Exception::gp(gate_error));
        }
        let gate = self.read_system::<u64>(self.wrap_la(self.s.idtr.base.wrapping_add(at)))?;
        let kind = gate >> 40 & 0x1f;
        let known =
            matches!(kind, kind::TASK | kind::INTERRUPT16 | kind::TRAP16 | kind::INTERRUPT32 | kind::TRAP32);
        let dpl = (gate >> 45 & 3) as u8;
        if !known || event.source == Source::Software && dpl < self.s.cpl {
            return Err(Exception::gp(gate_error));
        }
        if gate & 1 << 47 == 0 {
            return Err(Exception::new(Vector::SegmentNotPresent, gate_error));
        }
        if kind == kind::TASK {
            // Hardware task switches are not implemented (docs/cpu.md).
            return Err(Exception::gp(gate_error));
        }
        let wide = matches!(kind, kind::INTERRUPT32 | kind::TRAP32);
        let offset = gate & 0xffff | if wide { gate >> 32 & 0xffff_0000 } else { 0 };

        let selector = (gate >> 16) as u16;
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = descriptor.attr();
        if !attr.is_code() || attr.dpl() > self.s.cpl {
            return Err(gp(selector));
        }
        let cpl = if attr.is_conforming() { self.s.cpl } else { attr.dpl() };
        let code = self.code_segment(selector, descriptor, offset, cpl)?;
        let inner = cpl < self.s.cpl;
        let (stack, sp) = if inner {
            self.inner_stack(cpl)?
        } else {
            (self.s.seg[Seg::Ss as usize], self.s.regs.get(gpr::RSP))
        };

        let mut frame = Frame::new(wide);
        if inner {
            frame.push(u64::from(self.s.seg[Seg::Ss as usize].selector));
            frame.push(self.s.regs.get(gpr::RSP));
        }
        frame.push(event.rflags);
        frame.push(u64::from(self.s.seg[Seg::Cs as usize].selector));
        frame.push(event.rip);
        if let Some(error) = event.error {
            frame.push(u64::from(error));
        }
        self.put_frame(cpl, stack, sp, frame.bytes())?;
        self.s.seg[Seg::Cs as usize] = code;
        self.s.rip = offset;
        self.enter_handler_flags(matches!(kind, kind::INTERRUPT16 | kind::INTERRUPT32));
        Ok(())
    }

    /// SS and ESP for privilege level `cpl`, from the TSS (*SDM vol. 3A §5.8.5*).
    pub(crate) fn inner_stack(&mut self, cpl: u8) -> Result<(Segment, u64), Exception> {
        let level = u64::from(cpl);
        let (selector, sp) = if self.has_wide_tss() {
            let esp = self.read_tss::<u32>(4 + 8 * level)?;
            (self.read_tss::<u16>(8 + 8 * level)?, u64::from(esp))
        } else {
            let sp = self.read_tss::<u16>(2 + 4 * level)?;
            (self.read_tss::<u16>(4 + 4 * level)?, u64::from(sp))
        };
        let stack = self.stack_segment(selector, StackRule { cpl, null_ok: false, from_tss: true })?;
        Ok((stack, sp))
    }

    /// Puts a frame on `stack` below `sp`, and makes it SS:ESP at privilege
    /// level `cpl`; on `Err` nothing has changed.
    fn put_frame(&mut self, cpl: u8, stack: Segment, sp: u64, frame: &[u8]) -> Result<(), Exception> {
        let rsp = self.s.regs.get(gpr::RSP);
        let mask = if stack.attr.big() { 0xffff_ffff } else { 0xffff };
        let bottom = sp.wrapping_sub(frame.len() as u64) & mask;
        let before = std::mem::replace(&mut self.s.seg[Seg::Ss as usize], stack);
        let written = self
            .linear(crate::op::EA_LEGACY, Seg::Ss as u8, bottom, frame.len() as u64, true)
            .and_then(|la| self.write_frame(cpl, la, frame));
        if let Err(fault) = written {
            self.s.seg[Seg::Ss as usize] = before;
            return Err(fault);
        }
        let kept = if stack.attr.big() { 0 } else { rsp & !0xffff };
        self.s.regs.set(gpr::RSP, kept | bottom);
        Ok(())
    }

    pub(super) fn deliver_real(&mut self, event: Event) -> Result<(), Exception> {
        let at = u64::from(event.vector) * 4;
        if at + 3 > u64::from(self.s.idtr.limit) {
            return Err(Exception::GP0);
        }
        let entry = self.read_system::<u32>(self.wrap_la(self.s.idtr.base.wrapping_add(at)))?;
        let (ip, selector) = (u64::from(entry & 0xffff), (entry >> 16) as u16);
        let mut frame = Frame::new(false);
        frame.push(event.rflags);
        frame.push(u64::from(self.s.seg[Seg::Cs as usize].selector));
        frame.push(event.rip);
        let (stack, sp) = (self.s.seg[Seg::Ss as usize], self.s.regs.get(gpr::RSP));
        self.put_frame(self.s.cpl, stack, sp, frame.bytes())?;
        let code = &mut self.s.seg[Seg::Cs as usize];
        code.selector = selector;
        code.base = u64::from(selector) << 4;
        self.s.rip = ip;
        self.enter_handler_flags(true);
        self.s.rflags &= !rflags::AC;
        self.update_rights();
        Ok(())
    }
}
