//! Delivery in IA-32e mode (*SDM vol. 3A §6.14*; *vol. 2A, INT n*, its
//! pseudo-code's order of checks).

use arch::paging::is_canonical;
use arch::regs::{Seg, gpr};
use arch::{Exception, Vector};
use zerocopy::IntoBytes;

use super::{Event, Source};
use crate::Cpu;
use crate::segmentation::{cached, gp, is_null, not_present};
use crate::state::Segment;

/// A sixteen-byte gate of the IDT (*figure 6-8*).
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    fn offset(self) -> u64 {
        self.low & 0xffff | self.low >> 32 & 0xffff_0000 | self.high << 32
    }
    fn selector(self) -> u16 {
        (self.low >> 16) as u16
    }
    fn ist(self) -> u64 {
        self.low >> 32 & 7
    }
    /// S bit and type.
    fn kind(self) -> u64 {
        self.low >> 40 & 0x1f
    }
    fn dpl(self) -> u8 {
        (self.low >> 45 & 3) as u8
    }
    fn present(self) -> bool {
        self.low & 1 << 47 != 0
    }
}

const INTERRUPT_GATE: u64 = 14;
const TRAP_GATE: u64 = 15;

impl Cpu {
    pub(super) fn deliver_long(&mut self, event: Event) -> Result<(), Exception> {
        let at = u64::from(event.vector) * 16;
        let gate_error = u32::from(event.vector) * 8 + 2;
        if at + 15 > u64::from(self.s.idtr.limit) {
            return Err(Exception::gp(gate_error));
        }
        let la = self.s.idtr.base.wrapping_add(at);
        let gate = Gate { low: self.read_system(la)?, high: self.read_system(la.wrapping_add(8))? };
        if !matches!(gate.kind(), INTERRUPT_GATE | TRAP_GATE) {
            return Err(Exception::gp(gate_error));
        }
        if event.source == Source::Software && gate.dpl() < self.s.cpl {
            return Err(Exception::gp(gate_error));
        }
        if !gate.present() {
            return Err(Exception::new(Vector::SegmentNotPresent, gate_error));
        }

        let selector = gate.selector();
        if is_null(selector) {
            return Err(Exception::GP0);
        }
        let descriptor = self.read_descriptor(selector)?.ok_or(gp(selector))?;
        let attr = descriptor.attr();
        if !attr.is_code() || attr.dpl() > self.s.cpl {
            return Err(gp(selector));
        }
        if !attr.present() {
            return Err(not_present(selector));
        }
        if !attr.long() || attr.big() {
            return Err(gp(selector));
        }
        let cpl = if attr.is_conforming() { self.s.cpl } else { attr.dpl() };
        let inner = cpl < self.s.cpl;

        let rsp = match gate.ist() {
            0 if inner => self.read_tss::<u64>(4 + 8 * u64::from(cpl))?,
            0 => self.s.regs.get(gpr::RSP),
            ist => self.read_tss::<u64>(36 + 8 * (ist - 1))?,
        };
        // The stack is aligned whether or not it was switched (§6.14.2).
        let top = rsp & !15;
        let words = [
            event.error.map_or(0, u64::from),
            event.rip,
            u64::from(self.s.seg[Seg::Cs as usize].selector),
            event.rflags,
            self.s.regs.get(gpr::RSP),
            u64::from(self.s.seg[Seg::Ss as usize].selector),
        ];
        let frame = if event.error.is_some() { words.as_bytes() } else { words[1..].as_bytes() };
        let bottom = top.wrapping_sub(frame.len() as u64);
        if !is_canonical(bottom) || !is_canonical(top.wrapping_sub(1)) {
            return Err(Exception::SS0);
        }
        if !is_canonical(gate.offset()) {
            return Err(Exception::GP0);
        }
        self.set_accessed(selector, descriptor)?;
        self.write_frame(cpl, bottom, frame)?;

        self.s.seg[Seg::Cs as usize] = cached(selector & !3 | u16::from(cpl), descriptor);
        if inner {
            // SS becomes null with RPL = CPL (§6.14.4); its DPL is the level.
            let attr = arch::descriptor::Attr(u32::from(cpl) << 13);
            self.s.seg[Seg::Ss as usize] = Segment { selector: u16::from(cpl), attr, ..Segment::default() };
        }
        self.s.regs.set(gpr::RSP, bottom);
        self.s.rip = gate.offset();
        self.enter_handler_flags(gate.kind() == INTERRUPT_GATE);
        Ok(())
    }

    /// Writes a stack frame with the rights of privilege level `cpl`, which
    /// then stays in force; on `Err` nothing has changed.
    pub(crate) fn write_frame(&mut self, cpl: u8, la: u64, frame: &[u8]) -> Result<(), Exception> {
        let old = self.s.cpl;
        if old != cpl {
            self.set_cpl(cpl);
        }
        let result = self.write_bytes(la, frame, Seg::Ss as u8);
        if result.is_err() && old != cpl {
            self.set_cpl(old);
        }
        result
    }
}
