//! Delivery in protected mode outside IA-32e mode (*SDM vol. 3A §6.12*) and in
//! real mode (*vol. 3B §20.1.4*).

use arch::regs::{Seg, gpr, rflags};
use arch::{Exception, Vector};

use super::{Event, Source};
use crate::Cpu;
use crate::segmentation::{gp, is_null};
use crate::stack::Frame;

/// Gate types of the IDT outside IA-32e mode (*SDM vol. 3A table 3-2*).
mod kind {
    pub(super) const TASK: u64 = 5;
    pub(super) const INTERRUPT16: u64 = 6;
    pub(super) const TRAP16: u64 = 7;
    pub(super) const INTERRUPT32: u64 = 14;
    pub(super) const TRAP32: u64 = 15;
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
            self.note_unimplemented_at(event.rip, crate::decode::MAX_LEN);
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
        self.put_frame(cpl, stack, sp, &frame)?;
        self.s.seg[Seg::Cs as usize] = code;
        self.s.rip = offset;
        self.enter_handler_flags(matches!(kind, kind::INTERRUPT16 | kind::INTERRUPT32));
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
        self.put_frame(self.s.cpl, stack, sp, &frame)?;
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
