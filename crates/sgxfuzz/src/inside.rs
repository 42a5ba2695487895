//! What an enclave does beside accesses: its leaves, and what leaves it.

use arch::regs::{gpr, rflags};

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::Event;
use crate::model::access::{Access, Way};
use crate::model::enclu::Enclu;
use crate::model::walk::walk;
use crate::model::{Answer, GP};
use crate::outcome::{Judged, Stage};

impl Fuzz {
    /// An event that leaves the enclave whatever the EPCM says.
    pub(crate) fn fault(&mut self, lp: usize, gadget: Gadget) -> Result<(), String> {
        let inside = self.model.inside[lp].is_some();
        let Some((rip, all, judged)) = self.prepare(lp, gadget, true, &[(gpr::RCX, 0)])? else {
            return Ok(());
        };
        let opt_in = self.model.inside[lp].as_ref().is_some_and(|inside| inside.opt_in);
        let event = self.machine.run(lp, rip, false);
        self.last = Some(event);
        let vector = match gadget {
            Gadget::Int3 if !inside || opt_in => 3,
            Gadget::Divide => 0,
            _ => 6,
        };
        match event {
            Event::Trap(trap) if trap.vector == vector && !inside => Ok(()),
            Event::Trap(trap) if trap.vector == vector => {
                self.may_succeed(&judged)?;
                self.exited(lp, &trap, rip, &all, &[])
            }
            Event::Done if !inside && gadget == Gadget::Cpuid => Ok(()),
            Event::Trap(_) => self.trap_at(lp, event, rip, &all, &[], &judged).map(|_| ()),
            _ => Err("it does not fault".into()),
        }
    }

    /// A non-maskable interrupt.
    pub(crate) fn interrupt(&mut self, lp: usize) -> Result<(), String> {
        if self.model.inside[lp].is_none() {
            return Ok(());
        }
        let rip = self.gadget_at(lp, Gadget::Spin, true);
        let all = self.arm(lp, &[]);
        self.machine.cpu_mut(lp).s.rip = rip;
        let event = self.machine.interrupt(lp);
        self.last = Some(event);
        match event {
            Event::Trap(trap) if trap.vector == 2 => self.exited(lp, &trap, rip, &all, &[]),
            _ => Err("the interrupt does not arrive".into()),
        }
    }

    /// The same, with the handler's stack at `la`: in the EPC, as like as not. What is
    /// pushed there is pushed from outside.
    pub(crate) fn stack(&mut self, lp: usize, la: u64) -> Result<(), String> {
        let top = (la & !0xfff) + 0xb00;
        // Where nothing is mapped, the processor would shut down.
        if self.model.inside[lp].is_none() || walk(&self.machine.ram, top - 8, Access::Write, false).is_err()
        {
            return Ok(());
        }
        let old = self.machine.set_stack(lp, top);
        let result = self.interrupt(lp);
        self.machine.set_stack(lp, old);
        result?;
        for number in 0..self.model.pages.len() {
            if self.model.pages[number].kind.is_child() {
                self.compare(number)?;
            }
        }
        Ok(())
    }

    /// Breakpoints on an instruction of the enclave and on its data.
    pub(crate) fn breakpoint(&mut self, lp: usize, la: u64) -> Result<(), String> {
        let Some(inside) = &self.model.inside[lp] else { return Ok(()) };
        let opt_in = inside.opt_in;
        // Elsewhere breakpoints are nobody's secret.
        if !self.model.enclaves[&inside.enclave].has(la) {
            return Ok(());
        }
        let Some((rip, all, mut judged)) = self.prepare(lp, Gadget::Load64, true, &[(gpr::RBX, la)])? else {
            return Ok(());
        };
        let stages = self.judge(lp, &Stage::of(la, 8, Access::Read), true);
        let options = self.readable(&stages);
        judged.extend(stages);
        let s = &mut self.machine.cpu_mut(lp).s;
        // What was resumed after a fault would run over its breakpoint.
        s.rflags &= !rflags::RF;
        (s.dr[0], s.dr[1], s.dr7) = (rip, la & !7, 0x00b0_0405);
        let event = self.machine.run(lp, rip, true);
        self.last = Some(event);
        let s = &mut self.machine.cpu_mut(lp).s;
        (s.dr, s.dr6, s.dr7) = ([0; 4], 0xffff_0ff0, 0x400);
        match event {
            Event::Trap(trap) if trap.vector == 1 && opt_in => self.exited(lp, &trap, rip, &all, &[]),
            Event::Trap(trap) if trap.vector == 1 => Err("a breakpoint inside after an opt-out entry".into()),
            Event::Done if opt_in => Err("no breakpoint inside after an opt-in entry".into()),
            _ => {
                if self.trap_at(lp, event, rip, &all, &[], &judged)? {
                    return Ok(());
                }
                self.may_succeed(&judged)?;
                self.has_read(&self.machine.get(lp, gpr::RAX).to_le_bytes(), &options)?;
                self.note(lp, &judged);
                Ok(())
            }
        }
    }

    /// A leaf inside.
    pub(crate) fn leaf(&mut self, lp: usize, leaf: Enclu) -> Result<(), String> {
        if self.model.inside[lp].is_none() {
            return Ok(());
        }
        let [rax, rbx, rcx, rdx] = leaf.registers();
        let registers = [(gpr::RAX, rax), (gpr::RBX, rbx), (gpr::RCX, rcx), (gpr::RDX, rdx)];
        let Some((rip, all, judged)) = self.prepare(lp, Gadget::Enclu, true, &registers)? else {
            return Ok(());
        };
        let event = self.machine.run(lp, rip, true);
        self.last = Some(event);
        let fetched = judged[0].1.iter().any(|way| matches!(way, Way::To(_)));
        if let (Event::Trap(trap), Ok(())) = (event, self.may_fetch_fault(&event, &judged)) {
            return self.exited(lp, &trap, rip, &all, &[]);
        }
        if !fetched {
            return Err("it executes, but the model has the fetch fault".into());
        }
        let answer = self.model.enclu(&self.machine.ram, lp, leaf);
        if let Event::Trap(trap) = event {
            self.trapped(&trap, answer, true)?;
            return self.exited(lp, &trap, rip, &all, &[]);
        }
        self.answered(lp, event, rax, answer)?;
        if matches!(answer, Answer::Quiet | Answer::Code(0)) {
            self.counts.enclu[rax as usize] += 1;
            if let Some((la, len)) = leaf.output() {
                self.adopt(la, len)?;
            }
            if let Enclu::Eacceptcopy { la, .. } = leaf
                && let Ok(page) = self.model.operand(&self.machine.ram, la, Access::Read)
            {
                self.compare(page)?;
            }
        }
        self.note(lp, &judged);
        Ok(())
    }

    /// True (`Ok`) if the event is a fault of the fetch.
    pub(crate) fn may_fetch_fault(&mut self, event: &Event, judged: &[Judged]) -> Result<(), String> {
        match event {
            Event::Trap(trap) => self.may_trap(trap, &judged[..1], true),
            _ => Err(String::new()),
        }
    }

    /// Takes over what a leaf has written that the model cannot know.
    pub(crate) fn adopt(&mut self, la: u64, len: usize) -> Result<(), String> {
        let Ok(page) = self.model.operand(&self.machine.ram, la, Access::Write) else {
            return Err("the output is nowhere".into());
        };
        let (at, real) = ((la & 0xfff) as usize, self.machine.content(page));
        self.model.pages[page].content[at..at + len].copy_from_slice(&real[at..at + len]);
        self.compare(page)
    }

    /// ENCLU with a leaf of the other side, or ENCLS at CPL 3.
    pub(crate) fn misplaced(&mut self, lp: usize, number: u64) -> Result<(), String> {
        let inside = self.model.inside[lp].is_some();
        let encls = number >= 24;
        let number = match (encls, inside) {
            (true, _) => number - 24,
            (false, true) => 2 + number % 2,
            (false, false) => [0, 1, 4, 5, 6, 7, 9][number as usize % 7],
        };
        let gadget = if encls { Gadget::Encls } else { Gadget::Enclu };
        let registers = [(gpr::RAX, number), (gpr::RBX, AEP), (gpr::RCX, AEP), (gpr::RDX, 0)];
        let Some((rip, all, judged)) = self.prepare(lp, gadget, true, &registers)? else { return Ok(()) };
        let event = self.machine.run(lp, rip, true);
        self.last = Some(event);
        let answer = if encls { Answer::Fault(6) } else { GP };
        match event {
            Event::Trap(trap) if inside => {
                if self.may_fetch_fault(&event, &judged).is_err() {
                    self.trapped(&trap, answer, true)?;
                }
                self.exited(lp, &trap, rip, &all, &[])
            }
            Event::Trap(trap) => self.trapped(&trap, answer, false),
            _ => Err("it does not fault".into()),
        }
    }
}
