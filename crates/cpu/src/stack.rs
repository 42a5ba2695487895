//! Stacks of other privilege levels, outside 64-bit code: where the TSS says
//! they are, and the frames that calls and events put on them (*SDM vol. 3A
//! §5.8.5, §6.12.1*).

use arch::regs::{Seg, gpr};
use arch::{Exception, Vector};

use crate::Cpu;
use crate::op::EA_LEGACY;
use crate::segmentation::{StackRule, stack_fault};
use crate::state::Segment;

/// Words or doublewords that are to be put on a stack, all or none. The
/// largest frame is that of a call gate: 31 parameters, two pointers.
pub(crate) struct Frame {
    bytes: [u8; Frame::SIZE],
    at: usize,
    wide: bool,
}

impl Frame {
    const SIZE: usize = (31 + 4) * 4;

    /// An empty frame; `wide`: of doublewords.
    pub(crate) fn new(wide: bool) -> Self {
        Frame { bytes: [0; Frame::SIZE], at: Frame::SIZE, wide }
    }

    /// Puts a value below the others.
    pub(crate) fn push(&mut self, value: u64) {
        let n = if self.wide { 4 } else { 2 };
        self.at -= n;
        self.bytes[self.at..self.at + n].copy_from_slice(&value.to_le_bytes()[..n]);
    }
}

impl Cpu {
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
    /// level `cpl`; on `Err` nothing has changed. Without room it is `#SS`, with
    /// the selector of a stack that is switched to.
    pub(crate) fn put_frame(
        &mut self,
        cpl: u8,
        stack: Segment,
        sp: u64,
        frame: &Frame,
    ) -> Result<(), Exception> {
        let bytes = &frame.bytes[frame.at..];
        let rsp = self.s.regs.get(gpr::RSP);
        let mask = if stack.attr.big() { 0xffff_ffff } else { 0xffff };
        let bottom = sp.wrapping_sub(bytes.len() as u64) & mask;
        let before = std::mem::replace(&mut self.s.seg[Seg::Ss as usize], stack);
        let written = self
            .linear(EA_LEGACY, Seg::Ss as u8, bottom, bytes.len() as u64, true)
            .and_then(|la| self.write_frame(cpl, la, bytes));
        if let Err(fault) = written {
            self.s.seg[Seg::Ss as usize] = before;
            let switched = cpl != self.s.cpl && fault.vector == Vector::StackFault;
            return Err(if switched { stack_fault(stack.selector) } else { fault });
        }
        let kept = if stack.attr.big() { 0 } else { rsp & !0xffff };
        self.s.regs.set(gpr::RSP, kept | bottom);
        Ok(())
    }
}
