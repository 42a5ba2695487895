//! Carries steps out.

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::put64;
use crate::model::window;
use crate::step::Step;

impl Fuzz {
    /// Executes a step and compares.
    pub(crate) fn execute(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Kernel { leaf, twist } => self.kernel_leaf(leaf, twist),
            Step::Enter { lp, la, resume, tf } if self.model.inside[lp].is_none() => {
                self.enter(lp, la, resume, tf)
            }
            Step::Enter { .. } => Ok(()),
            Step::GoIn { lp, secs } => match self.thread(lp, secs) {
                Some((la, resume)) => self.enter(lp, la, resume, false),
                None => Ok(()),
            },
            Step::Exit { lp } => self.eexit(lp),
            Step::Leaf { lp, leaf } => self.leaf(lp, leaf),
            Step::Misplaced { lp, number } => self.misplaced(lp, number),
            Step::Memory { lp, gadget, la, user } => {
                // A fault at CPL 0 would use the stack that PUSH is at.
                let user = user || gadget == Gadget::Push || self.model.inside[lp].is_some();
                self.memory(lp, gadget, la, user, None)
            }
            Step::Copy { lp, from, to, bytes } => {
                let cross = |la: u64| (la & 0xfff) + bytes > PAGE;
                if cross(from) || cross(to) { Ok(()) } else { self.copy(lp, from, to, bytes) }
            }
            Step::Secinfo { lp, la, flags } => {
                if self.model.inside[lp].is_none() {
                    return Ok(());
                }
                let from = SPARE + 0xe00;
                self.machine.ram.write(from, &[0; 64]);
                put64(&self.machine.ram, from, flags);
                self.copy(lp, from, la, 64)
            }
            Step::Patch { lp, la, value } => self.memory(lp, Gadget::Store64, la, true, Some(patch(value))),
            Step::Jump { lp, la } => self.jump(lp, la),
            Step::Fault { lp, gadget } => self.fault(lp, gadget),
            Step::Interrupt { lp } => self.interrupt(lp),
            Step::Stack { lp, la } => self.stack(lp, la),
            Step::Breakpoint { lp, la } => self.breakpoint(lp, la),
            Step::Map { la, entry } => {
                self.map(la, entry);
                Ok(())
            }
            Step::MapAll { secs } => {
                self.map_all(secs);
                Ok(())
            }
            Step::Large { on } => {
                self.large(on);
                Ok(())
            }
            Step::Table { page } => {
                self.table(page);
                Ok(())
            }
            Step::Tamper { place, at, bit } => {
                self.tamper(place, at, bit);
                Ok(())
            }
            Step::Replay { place, record } => {
                self.replay(place, record);
                Ok(())
            }
            Step::Debugger { lp, la } => self.debugger(lp, la),
            Step::Device { page } => self.device(window(page)),
        }
    }
}
