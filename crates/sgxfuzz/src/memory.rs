//! Memory accesses and jumps, from either side.

use arch::regs::gpr;

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::{Event, Machine};
use crate::model::access::{Access, Place, Way};
use crate::model::entry::GPR;
use crate::outcome::{Judged, Stage};

fn vector(machine: &Machine, lp: usize, number: usize) -> Vec<u8> {
    machine.cpu(lp).s.vec[number].0[..4].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// RIP of a gadget, the registers it is executed with, and its fetch.
pub(crate) type Prepared = (u64, [u64; 16], Vec<Judged>);

impl Fuzz {
    /// Linear address of a gadget for processor `lp`, inside or outside.
    pub(crate) fn gadget_at(&self, lp: usize, gadget: Gadget, user: bool) -> u64 {
        let page = match &self.model.inside[lp] {
            Some(inside) => self.model.enclaves[&inside.enclave].base + P_CODE * PAGE,
            None if user => USER_CODE,
            None => KERNEL_CODE,
        };
        page + gadget.offset()
    }

    /// Registers of a processor inside: secrets, but for those given.
    pub(crate) fn arm(&mut self, lp: usize, registers: &[(usize, u64)]) -> [u64; 16] {
        let mut all = [0; 16];
        all.fill_with(|| self.scanner.word());
        for &(number, value) in registers {
            all[number] = value;
        }
        for (number, value) in all.into_iter().enumerate() {
            self.machine.set(lp, &[(number, value)]);
        }
        let scanner = &mut self.scanner;
        self.machine.set_vectors(lp, || scanner.word());
        all
    }

    /// Prepares to execute a gadget: registers, and the fetch as the first stage. `None`
    /// if what would be executed is not the gadget.
    pub(crate) fn prepare(
        &mut self,
        lp: usize,
        gadget: Gadget,
        user: bool,
        registers: &[(usize, u64)],
    ) -> Result<Option<Prepared>, String> {
        let inside = self.model.inside[lp].is_some();
        if !inside {
            self.flush(lp)?;
            self.machine.level(lp, user);
            self.public_registers(lp);
            self.machine.set(lp, registers);
            let mut all = [0; 16];
            (0..16).for_each(|n| all[n] = self.machine.get(lp, n));
            return Ok(Some((self.gadget_at(lp, gadget, user), all, Vec::new())));
        }
        let rip = self.gadget_at(lp, gadget, true);
        let fetch = self.judge(lp, &[Stage { la: rip, len: 1, access: Access::Fetch }], true);
        let code = code_page();
        let at = gadget.offset() as usize;
        let len = gadget.bytes() as usize + 2;
        for way in &fetch[0].1 {
            if let Way::To(place) = way {
                let Place::Epc(page, offset) = *place else { return Ok(None) };
                let content = &self.model.pages[page].content;
                if content.get(offset..offset + len) != Some(&code[at..at + len]) {
                    return Ok(None);
                }
            }
        }
        let all = self.arm(lp, registers);
        Ok(Some((rip, all, fetch)))
    }

    /// A trap at `rip` that the stages allow: checks it.
    pub(crate) fn trap_at(
        &mut self,
        lp: usize,
        event: Event,
        rip: u64,
        all: &[u64; 16],
        unknown: &[usize],
        judged: &[Judged],
    ) -> Result<bool, String> {
        let inside = self.model.inside[lp].is_some();
        match event {
            Event::Done => Ok(false),
            Event::Broken => Err("the processor shuts down or hangs".into()),
            Event::Trap(trap) => {
                self.may_trap(&trap, judged, inside)?;
                if inside {
                    self.exited(lp, &trap, rip, all, unknown)?;
                } else if trap.rip != rip {
                    return Err(format!("the fault is at {:#x}, not {rip:#x}", trap.rip));
                }
                Ok(true)
            }
        }
    }

    /// A load, store or locked operation.
    /// Stores `given`, or else a secret into the enclave, anything into memory outside.
    pub(crate) fn memory(
        &mut self,
        lp: usize,
        gadget: Gadget,
        la: u64,
        user: bool,
        given: Option<u64>,
    ) -> Result<(), String> {
        let (len, access) = match gadget {
            Gadget::Load64 => (8, Access::Read),
            Gadget::Load8 => (1, Access::Read),
            Gadget::VLoad => (32, Access::Read),
            Gadget::Store8 => (1, Access::Write),
            Gadget::VStore => (32, Access::Write),
            Gadget::CmpXchg16 => (16, Access::Write),
            Gadget::Stos => (1 + self.rng.below(40), Access::Write),
            _ => (8, Access::Write),
        };
        let la = match gadget {
            Gadget::Xadd => la & !7,
            Gadget::CmpXchg16 => la & !15,
            Gadget::Stos => la.min(la | 0xfff) & !0x3f,
            _ => la,
        };
        let secret = match &self.model.inside[lp] {
            Some(inside) => self.model.enclaves[&inside.enclave].has(la),
            None => false,
        };
        let word = match given {
            Some(word) => word,
            None if secret => self.scanner.word(),
            None => 0x2020_2020_0000_0000 | self.rng.below(1 << 20),
        };
        let mut registers = vec![(gpr::RBX, la), (gpr::RCX, word), (gpr::RSI, la), (gpr::RAX, 0x77)];
        match gadget {
            Gadget::Push => registers.push((gpr::RSP, la + 8)),
            Gadget::Stos => registers.extend([(gpr::RDI, la), (gpr::RCX, len)]),
            Gadget::CmpXchg16 => registers.extend([(gpr::RDX, 0x77), (gpr::RBX, word)]),
            _ => {}
        }
        let stages = self.judge(lp, &Stage::of(la, len, access), user);
        let options = self.readable(&stages);
        if gadget == Gadget::CmpXchg16 && self.rng.one_in(2) {
            // So that it matches.
            if let Some(now) = options.first().and_then(|choices| choices.first()) {
                let words =
                    [0, 8].map(|at| u64::from_le_bytes(now[at..at + 8].try_into().unwrap_or_default()));
                registers.extend([(gpr::RAX, words[0]), (gpr::RDX, words[1])]);
            }
        }
        let Some((rip, all, mut judged)) = self.prepare(lp, gadget, user, &registers)? else { return Ok(()) };
        if self.model.inside[lp].is_none() || !secret {
            self.machine.set_vectors(lp, || word);
        }
        let stored = vector(&self.machine, lp, 0);
        judged.extend(stages.iter().cloned());
        let event = self.machine.run(lp, rip, false);
        self.last = Some(event);
        let inside = self.model.inside[lp].is_some();
        if self.trap_at(lp, event, rip, &all, &[], &judged)? {
            return Ok(());
        }
        self.may_succeed(&judged)?;
        if inside && secret {
            self.counts.inside += 1;
        }
        let value = |number| self.machine.get(lp, number).to_le_bytes();
        match gadget {
            Gadget::Load64 => self.has_read(&value(gpr::RAX), &options)?,
            Gadget::Load8 => self.has_read(&value(gpr::RAX)[..1], &options)?,
            Gadget::VLoad => self.has_read(&vector(&self.machine, lp, 0), &options)?,
            Gadget::Store64 | Gadget::Push => self.has_written(&word.to_le_bytes(), &stages)?,
            Gadget::Store8 => self.has_written(&word.to_le_bytes()[..1], &stages)?,
            Gadget::VStore => self.has_written(&stored, &stages)?,
            Gadget::Stos => self.has_written(&vec![all[gpr::RAX] as u8; len as usize], &stages)?,
            Gadget::Xadd => {
                let old = value(gpr::RCX);
                self.has_read(&old, &options)?;
                let new = u64::from_le_bytes(old).wrapping_add(word);
                self.has_written(&new.to_le_bytes(), &stages)?;
            }
            _ => {
                let old = [value(gpr::RAX), value(gpr::RDX)].concat();
                let compared = [all[gpr::RAX].to_le_bytes(), all[gpr::RDX].to_le_bytes()].concat();
                self.has_read(&old, &options)?;
                let new = [word.to_le_bytes(), all[gpr::RCX].to_le_bytes()].concat();
                self.has_written(if old == compared { &new } else { &old }, &stages)?;
            }
        }
        self.note(lp, &judged);
        Ok(())
    }

    /// REP MOVSB.
    pub(crate) fn copy(&mut self, lp: usize, from: u64, to: u64, bytes: u64) -> Result<(), String> {
        let source = self.judge(lp, &[Stage { la: from, len: bytes, access: Access::Read }], true);
        let target = self.judge(lp, &[Stage { la: to, len: bytes, access: Access::Write }], true);
        let options = self.readable(&source);
        let registers = [(gpr::RSI, from), (gpr::RDI, to), (gpr::RCX, bytes)];
        let Some((rip, all, mut judged)) = self.prepare(lp, Gadget::Movs, true, &registers)? else {
            return Ok(());
        };
        judged.extend([source[0].clone(), target[0].clone()]);
        let event = self.machine.run(lp, rip, false);
        self.last = Some(event);
        if self.trap_at(lp, event, rip, &all, &[gpr::RSI, gpr::RDI, gpr::RCX], &judged)? {
            return Ok(());
        }
        self.may_succeed(&judged)?;
        let mut wrong = Ok(());
        for choice in &options[0] {
            wrong = self.has_written(choice, &target);
            if wrong.is_ok() {
                break;
            }
        }
        wrong?;
        self.note(lp, &judged);
        Ok(())
    }

    /// A jump to `la`.
    pub(crate) fn jump(&mut self, lp: usize, la: u64) -> Result<(), String> {
        let inside = self.model.inside[lp].is_some();
        let stages = self.judge(lp, &[Stage { la, len: 8, access: Access::Fetch }], true);
        let ones = stages[0].1.contains(&Way::To(Place::Ones));
        let options = self.readable(&stages);
        let effects: Vec<_> = options[0].iter().map(|code| effect(code)).collect();
        if !ones && effects.contains(&None) {
            return Ok(());
        }
        let Some((rip, all, mut judged)) = self.prepare(lp, Gadget::Jump, true, &[(gpr::RBX, la)])? else {
            return Ok(());
        };
        judged.extend(stages.iter().cloned());
        let event = self.machine.run(lp, rip, false);
        self.last = Some(event);
        if let (Event::Trap(trap), true, false) = (event, ones, inside) {
            // All ones are no instruction.
            if trap.vector == 6 && trap.rip == la {
                return Ok(());
            }
            return Err(format!("the abort page executes to vector {}", trap.vector));
        }
        // The jump itself completes before its target faults.
        let at = match (event, &judged[0]) {
            (Event::Trap(trap), _) if !inside => trap.rip,
            (Event::Trap(_), (_, ways)) if ways.iter().any(|way| matches!(way, Way::To(_))) => {
                let saved = self.model.inside[lp].as_ref().map_or(0, |inside| inside.frame);
                let real = self.machine.content(saved);
                let word = &real[GPR + 136..GPR + 144];
                u64::from_le_bytes(word.try_into().unwrap_or_default())
            }
            _ => rip,
        };
        if at != rip && at != la {
            return Err(format!("the fault is at {at:#x}, neither the jump nor its target"));
        }
        if self.trap_at(lp, event, at, &all, &[], &judged)? {
            return Ok(());
        }
        self.may_succeed(&judged)?;
        let (rip, rax) = (self.machine.cpu(lp).s.rip, self.machine.get(lp, gpr::RAX));
        let good = effects.iter().flatten().any(|effect| match effect {
            None => rip == la && rax == all[gpr::RAX],
            Some(value) => rip == la + 5 && rax == u64::from(*value),
        });
        if !good {
            return Err(format!("the jump arrives at {rip:#x}, RAX is {rax:#x}; the code is {options:x?}"));
        }
        self.note(lp, &judged);
        Ok(())
    }
}
