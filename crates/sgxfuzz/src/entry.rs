//! Into enclaves and out of them: EENTER, ERESUME, EEXIT.

use arch::regs::{gpr, rflags};

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::Event;
use crate::model::Kind;
use crate::model::entry::GPR;

impl Fuzz {
    /// EENTER or ERESUME.
    pub(crate) fn enter(&mut self, lp: usize, la: u64, resume: bool, tf: bool) -> Result<(), String> {
        let tf = tf && !resume;
        let number = if resume { 3 } else { 2 };
        let registers = [(gpr::RAX, number), (gpr::RBX, la), (gpr::RCX, AEP)];
        let Some((rip, _, _)) = self.prepare(lp, Gadget::Enclu, true, &registers)? else { return Ok(()) };
        let stack = [self.machine.get(lp, gpr::RSP), self.machine.get(lp, gpr::RBP)];
        if tf {
            self.machine.cpu_mut(lp).s.rflags |= rflags::TF;
        }
        let entered = self.model.enter(&self.machine.ram, lp, resume, la, stack, tf);
        let event = self.machine.run(lp, rip, true);
        self.last = Some(event);
        let entered = match (entered, event) {
            (Ok(entered), event) => match event {
                Event::Done => entered,
                Event::Trap(trap)
                    if trap.vector == 1 && tf && self.model.inside[lp].as_ref().is_some_and(|i| i.opt_in) =>
                {
                    let mut all = [0; 16];
                    (0..16).for_each(|n| all[n] = 0x1000_0000 + n as u64);
                    let unknown = [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RSP, gpr::RBP];
                    self.counts.entries += 1;
                    return self.exited(lp, &trap, entered.rip, &all, &unknown);
                }
                _ => return Err("it faults, but the model has it enter".into()),
            },
            (Err(answer), Event::Trap(trap)) => return self.trapped(&trap, answer, false),
            (Err(answer), _) => return Err(format!("it enters, but the model says {answer:x?}")),
        };
        self.counts.entries += 1;
        let frame = self.model.inside[lp].as_ref().map_or(0, |inside| inside.frame);
        let s = &self.machine.cpu(lp).s;
        if s.enclave.is_none() || s.rip != entered.rip {
            return Err(format!("it goes on at {:#x}, not {:#x}", s.rip, entered.rip));
        }
        let bases = [s.seg[4].base, s.seg[5].base];
        if bases != entered.bases {
            return Err(format!("bases inside are {bases:x?}, not {:x?}", entered.bases));
        }
        if resume {
            let page = &self.model.pages[frame];
            for number in 0..16 {
                let (now, saved) = (s.regs.get(number), page.word(GPR + 8 * number));
                if now != saved {
                    return Err(format!("register {number} is {now:#x} inside, the frame has {saved:#x}"));
                }
            }
            let components = page.word(512);
            for number in 0..16 {
                let low = if components & 2 != 0 {
                    [0, 8].map(|at| page.word(160 + 16 * number + at))
                } else {
                    [0; 2]
                };
                let high = if components & 4 != 0 {
                    [0, 8].map(|at| page.word(576 + 16 * number + at))
                } else {
                    [0; 2]
                };
                if s.vec[number].0[..4] != [low, high].concat()[..] {
                    return Err(format!("vector register {number} is not what the frame has"));
                }
            }
        } else if s.regs.get(gpr::RAX) != entered.cssa || s.regs.get(gpr::RCX) != rip + 3 {
            return Err("RAX and RCX do not tell CSSA and the next instruction".into());
        }
        Ok(())
    }

    /// EEXIT, after the enclave has cleared its registers.
    pub(crate) fn eexit(&mut self, lp: usize) -> Result<(), String> {
        if self.model.inside[lp].is_none() {
            return Ok(());
        }
        let mut registers: Vec<_> = (0..16).map(|n| (n, 0x3000_0000 + n as u64)).collect();
        registers[gpr::RAX].1 = 4;
        registers[gpr::RBX].1 = AEP;
        let Some((rip, all, judged)) = self.prepare(lp, Gadget::Enclu, true, &registers)? else {
            return Ok(());
        };
        self.machine.set_vectors(lp, || 0);
        let mut event = self.machine.run(lp, rip, true);
        let tf = self.model.inside[lp].as_ref().is_some_and(|inside| inside.saved_tf);
        if tf && event == Event::Done && !self.machine.inside(lp) {
            // The trap is taken on the boundary after EEXIT.
            event = self.machine.resume(lp, 1);
        }
        self.last = Some(event);
        match event {
            Event::Trap(trap) if trap.vector == 1 && tf => {
                self.may_succeed(&judged)?;
                self.model.eexit(lp);
                if trap.rip != AEP {
                    return Err(format!("single-stepping stops at {:#x}", trap.rip));
                }
                return self.host_state(lp);
            }
            Event::Done => {}
            _ => return self.trap_at(lp, event, rip, &all, &[], &judged).map(|_| ()),
        }
        self.may_succeed(&judged)?;
        if tf {
            return Err("TF outside does not trap after EEXIT".into());
        }
        let inside = self.model.eexit(lp).ok_or("outside already")?;
        let changed = (0..16)
            .find(|&n| self.machine.get(lp, n) != if n == gpr::RCX { inside.aep } else { registers[n].1 });
        if let Some(number) = changed {
            return Err(format!("EEXIT changes register {number}"));
        }
        if self.machine.cpu(lp).s.rip != AEP {
            return Err("EEXIT does not arrive".into());
        }
        self.compare(inside.tcs)?;
        self.host_state(lp)
    }

    /// A free thread of the enclave of `secs`, for a processor outside, and whether to
    /// resume it.
    pub(crate) fn thread(&mut self, lp: usize, secs: usize) -> Option<(u64, bool)> {
        let id = self.model.secs(secs).filter(|_| self.model.inside[lp].is_none())?;
        let free = |n: &usize| {
            let page = &self.model.pages[*n];
            page.kind == Kind::Tcs && page.owner == Some(id) && page.word(0) == 0
        };
        let all: Vec<usize> = (0..self.model.pages.len()).filter(free).collect();
        if all.is_empty() {
            return None;
        }
        let page = self.rng.pick(&all);
        let (counts, la) = (self.model.pages[page].word(24), self.model.pages[page].la);
        let (used, frames) = (counts & 0xffff_ffff, counts >> 32);
        Some((la, used != 0 && (used >= frames || self.rng.one_in(2))))
    }
}
