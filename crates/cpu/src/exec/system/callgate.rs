//! Far JMP and CALL through call gates (*SDM vol. 3A §5.8.3–5.8.5; vol. 2A,
//! CALL, "CALL-GATE"*). Task gates and task state segments end here too: task
//! switches are not implemented.

use arch::descriptor::{Attr, Descriptor, system_type};
use arch::paging::is_canonical;
use arch::regs::{Seg, gpr};
use arch::{Exception, Vector};
use zerocopy::IntoBytes;

use crate::Cpu;
use crate::op::Op;
use crate::segmentation::{cached, gp, is_null, not_present};
use crate::stack::Frame;
use crate::state::Segment;

const CS: usize = Seg::Cs as usize;
const SS: usize = Seg::Ss as usize;

/// A call gate that may be used.
struct Gate {
    /// Selector of the code segment.
    target: u16,
    offset: u64,
    /// Parameters copied to an inner stack.
    count: u8,
    /// Words of 32 bits (64 in IA-32e mode) are pushed, not of 16.
    wide: bool,
}

impl Cpu {
    /// Where a far JMP, or a far CALL that returns to `next`, goes whose
    /// selector names no code segment.
    pub(super) fn through_system_descriptor(
        &mut self,
        op: &Op,
        selector: u16,
        descriptor: Descriptor,
        next: Option<u64>,
    ) -> Result<(), Exception> {
        use system_type::{CALL_GATE, CALL_GATE16, TASK_GATE, TSS, TSS16};
        let attr = descriptor.attr();
        let long = self.ia32e();
        let gate = match attr.kind() {
            CALL_GATE => true,
            CALL_GATE16 => !long,
            TASK_GATE | TSS | TSS16 => false,
            _ => return Err(gp(selector)),
        };
        if long && !gate || attr.dpl() < self.s.cpl || selector as u8 & 3 > attr.dpl() {
            return Err(gp(selector));
        }
        if !gate {
            self.note_unimplemented(op);
            return Err(gp(selector));
        }
        let high = match self.read_system_descriptor(selector)? {
            Some((_, high)) if high >> 40 & 0x1f == 0 => high,
            _ => return Err(gp(selector)),
        };
        if !attr.present() {
            return Err(not_present(selector));
        }
        let wide = attr.kind() == CALL_GATE;
        let offset = descriptor.0 & 0xffff | if wide { descriptor.0 >> 32 & 0xffff_0000 } else { 0 };
        let gate = Gate {
            target: (descriptor.0 >> 16) as u16,
            offset: offset | high << 32,
            count: (descriptor.0 >> 32) as u8 & 0x1f,
            wide,
        };
        if is_null(gate.target) {
            return Err(Exception::GP0);
        }
        let code = self.read_descriptor(gate.target)?.ok_or(gp(gate.target))?;
        let attr = code.attr();
        if !attr.is_code() || attr.dpl() > self.s.cpl || long && (!attr.long() || attr.big()) {
            return Err(gp(gate.target));
        }
        if !attr.present() {
            return Err(not_present(gate.target));
        }
        let inner = !attr.is_conforming() && attr.dpl() < self.s.cpl;
        match (next, long) {
            (None, _) if inner => return Err(gp(gate.target)),
            (Some(next), true) if inner => self.call_inward_long(&gate, code, next)?,
            (Some(next), false) if inner => self.call_inward(&gate, code, next)?,
            _ => {
                let segment = self.code_segment(gate.target, code, gate.offset, self.s.cpl)?;
                let cs = u64::from(self.s.seg[CS].selector);
                match next {
                    Some(next) if long => self.push_pair::<u64>(cs, next)?,
                    Some(next) if gate.wide => self.push_pair::<u32>(cs, next)?,
                    Some(next) => self.push_pair::<u16>(cs, next)?,
                    None => {}
                }
                self.s.seg[CS] = segment;
            }
        }
        self.s.rip = gate.offset;
        Ok(())
    }

    /// A call to an inner privilege level: the stack of the TSS, with the old
    /// stack's pointer, the parameters, and where to return to.
    fn call_inward(&mut self, gate: &Gate, code: Descriptor, next: u64) -> Result<(), Exception> {
        let cpl = code.attr().dpl();
        let (stack, sp) = self.inner_stack(cpl)?;
        let segment = self.code_segment(gate.target, code, gate.offset, cpl)?;
        let mut frame = Frame::new(gate.wide);
        frame.push(u64::from(self.s.seg[SS].selector));
        frame.push(self.s.regs.get(gpr::RSP));
        for n in (0..i64::from(gate.count)).rev() {
            let parameter = if gate.wide {
                u64::from(self.peek::<u32>(4 * n)?)
            } else {
                u64::from(self.peek::<u16>(2 * n)?)
            };
            frame.push(parameter);
        }
        frame.push(u64::from(self.s.seg[CS].selector));
        frame.push(next);
        self.put_frame(cpl, stack, sp, &frame)?;
        self.s.seg[CS] = segment;
        Ok(())
    }

    /// The same in IA-32e mode: no parameters, SS null.
    fn call_inward_long(&mut self, gate: &Gate, code: Descriptor, next: u64) -> Result<(), Exception> {
        let cpl = code.attr().dpl();
        if !is_canonical(gate.offset) {
            return Err(Exception::GP0);
        }
        let top = self.read_tss::<u64>(4 + 8 * u64::from(cpl))?;
        let words = [
            next,
            u64::from(self.s.seg[CS].selector),
            self.s.regs.get(gpr::RSP),
            u64::from(self.s.seg[SS].selector),
        ];
        let bottom = top.wrapping_sub(32);
        if !is_canonical(bottom) || !is_canonical(top.wrapping_sub(1)) {
            return Err(Exception::new(Vector::StackFault, 0));
        }
        self.set_accessed(gate.target, code)?;
        self.write_frame(cpl, bottom, words.as_bytes())?;
        self.s.seg[CS] = cached(gate.target & !3 | u16::from(cpl), code);
        let attr = Attr(u32::from(cpl) << 13);
        self.s.seg[SS] = Segment { selector: u16::from(cpl), attr, ..Segment::default() };
        self.s.regs.set(gpr::RSP, bottom);
        Ok(())
    }
}
