//! The kernel's steps: leaves of ENCLS, page tables, evicted pages.

use arch::regs::gpr;

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::{Event, PROCESSORS, get64, put64};
use crate::model::leaf::Encls;
use crate::model::paging::Load;
use crate::model::{Answer, GP, window};
use crate::step::{Step, Twist};

/// Address of a place's PCMD; PAGEINFO's LINADDR is kept behind it.
pub(crate) fn meta(place: u64) -> u64 {
    SWAP_META + place * 256
}

impl Fuzz {
    /// A processor that is outside; one is interrupted if there is none.
    pub(crate) fn outside_lp(&mut self) -> Result<usize, String> {
        let start = self.rng.below(PROCESSORS as u64) as usize;
        let all = (0..PROCESSORS).map(|n| (start + n) % PROCESSORS);
        match all.into_iter().find(|&lp| self.model.inside[lp].is_none()) {
            Some(lp) => Ok(lp),
            None => self.execute(Step::Interrupt { lp: start }).map(|()| start),
        }
    }

    /// Makes a processor that is outside see the page tables as they are.
    pub(crate) fn flush(&mut self, lp: usize) -> Result<(), String> {
        if self.dirty[lp] {
            self.machine.level(lp, false);
            self.public_registers(lp);
            self.machine.set(lp, &[(gpr::RAX, PML4)]);
            if self.machine.run(lp, KERNEL_CODE + Gadget::Cr3.offset(), true) != Event::Done {
                return Err("MOV CR3 faults".into());
            }
            self.dirty[lp] = false;
        }
        Ok(())
    }

    fn load_operands(&self, load: &Load) -> (Vec<u8>, Vec<u8>, u64) {
        let (mut bytes, mut pcmd) = (vec![0; PAGE as usize], vec![0; 128]);
        self.machine.ram.read(SWAP + load.place * PAGE, &mut bytes);
        self.machine.ram.read(meta(load.place), &mut pcmd);
        (bytes, pcmd, get64(&self.machine.ram, meta(load.place) + 128))
    }

    /// The model's answer, and what EDBGRD reads.
    fn predict(&mut self, leaf: &Encls) -> (Answer, Option<u64>) {
        let model = &mut self.model;
        let answer = match *leaf {
            Encls::Ecreate { target, base, flags, exinfo } => model.ecreate(target, base, flags, exinfo),
            Encls::Eadd { target, secs, la, secinfo, content } => {
                model.eadd(target, secs, la, secinfo, content)
            }
            Encls::Eextend { secs, page, chunk } => model.eextend(secs, page, chunk),
            Encls::Einit { secs } => model.einit(secs),
            Encls::Eremove { page } => model.eremove(page),
            Encls::Edbgrd { page, offset } => return model.edbgrd(page, offset),
            Encls::Edbgwr { page, offset, value } => model.edbgwr(page, offset, value),
            Encls::Eblock { page } => model.eblock(page),
            Encls::Epa { page } => model.epa(page),
            Encls::Ewb { page, va, slot, .. } => model.ewb(page, va, slot),
            Encls::Etrack { secs } => model.etrack(secs),
            Encls::Etrackc { page } => model.etrackc(page),
            Encls::Eaug { target, secs, la } => model.eaug(target, secs, la),
            Encls::Emodpr { page, keep } => model.emodpr(page, keep),
            Encls::Emodt { page, to } => model.emodt(page, to),
            Encls::Erdinfo { page } => model.erdinfo(page).0,
            Encls::Eld { load } => {
                let (bytes, pcmd, la) = self.load_operands(&load);
                self.model.eld(&load, &bytes, &pcmd, la)
            }
            Encls::Eupdatesvn => model.eupdatesvn(),
        };
        (answer, None)
    }

    /// Writes the operands in memory; gives RBX and RDX.
    fn operands(&mut self, leaf: &Encls) -> (u64, u64) {
        let ram = &self.machine.ram;
        let pageinfo = |linaddr: u64, source: u64, secinfo: u64, secs: u64| {
            for (n, word) in [linaddr, source, secinfo, secs].into_iter().enumerate() {
                put64(ram, OPERANDS + 8 * n as u64, word);
            }
        };
        let secinfo = |flags: u64| {
            ram.write(OPERANDS + 0x40, &[0; 64]);
            put64(ram, OPERANDS + 0x40, flags);
        };
        let slot_at = |va: usize, slot: usize| window(va) + 8 * slot as u64;
        let mut rdx = 0;
        let rbx = match *leaf {
            Encls::Ecreate { base, flags, exinfo, .. } => {
                ram.write(SOURCE, &crate::template::secs(base, flags, exinfo));
                secinfo(0);
                pageinfo(0, SOURCE, OPERANDS + 0x40, 0);
                OPERANDS
            }
            Encls::Eadd { secs, la, secinfo: flags, content, .. } => {
                ram.write(SOURCE, &content.bytes());
                secinfo(flags);
                pageinfo(la, SOURCE, OPERANDS + 0x40, window(secs));
                OPERANDS
            }
            Encls::Eaug { secs, la, .. } => {
                pageinfo(la, 0, 0, window(secs));
                OPERANDS
            }
            Encls::Eextend { secs, .. } => window(secs),
            Encls::Einit { .. } => {
                rdx = TOKEN;
                SIGSTRUCT
            }
            Encls::Edbgwr { value, .. } => value,
            Encls::Epa { .. } => 3,
            Encls::Ewb { va, slot, place, .. } => {
                pageinfo(0, SWAP + place * PAGE, meta(place), 0);
                rdx = slot_at(va, slot);
                OPERANDS
            }
            Encls::Eld { load } => {
                let la = get64(ram, meta(load.place) + 128);
                let source = SWAP + load.place * PAGE;
                pageinfo(la, source, meta(load.place), load.secs.map_or(0, window));
                rdx = slot_at(load.va, load.slot);
                OPERANDS
            }
            Encls::Emodpr { keep, .. } => {
                secinfo(keep);
                OPERANDS + 0x40
            }
            Encls::Emodt { to, .. } => {
                secinfo(to << 8);
                OPERANDS + 0x40
            }
            Encls::Erdinfo { .. } => OPERANDS + 0x80,
            _ => 0x5555,
        };
        (rbx, rdx)
    }

    /// Executes a leaf of the kernel.
    pub(crate) fn kernel_leaf(&mut self, leaf: Encls, twist: Twist) -> Result<(), String> {
        let lp = self.outside_lp()?;
        self.flush(lp)?;
        let (page, offset) = leaf.rcx();
        let rcx = match twist {
            Twist::None => window(page) + offset as u64,
            Twist::Unaligned => window(page) + offset as u64 + 1,
            Twist::Ram => SPARE,
        };
        self.machine.level(lp, false);
        self.public_registers(lp);
        let (rbx, rdx) = self.operands(&leaf);
        let ((answer, read), applied) = match (twist, &leaf) {
            (Twist::None, _) | (_, Encls::Eupdatesvn) => (self.predict(&leaf), true),
            (Twist::Unaligned, _) => ((GP, None), false),
            (Twist::Ram, Encls::Erdinfo { .. }) => ((Answer::Code(26), None), false),
            (Twist::Ram, _) => ((Answer::PageFault(SPARE, false), None), false),
        };
        // The model names pages; the fault is at the operand.
        let answer = match answer {
            Answer::PageFault(la, true) if la == window(page) => Answer::PageFault(rcx, true),
            other => other,
        };
        let number = leaf.number();
        let registers = [(gpr::RAX, number), (gpr::RBX, rbx), (gpr::RCX, rcx), (gpr::RDX, rdx)];
        self.machine.set(lp, &registers);
        let event = self.machine.run(lp, KERNEL_CODE + Gadget::Encls.offset(), true);
        self.last = Some(event);
        self.answered(lp, event, number, answer)?;
        if applied && matches!(answer, Answer::Quiet | Answer::Code(0 | 12)) {
            self.counts.encls[number as usize] += 1;
            self.succeeded(lp, &leaf, read)?;
        }
        Ok(())
    }

    /// Looks at what a leaf that has succeeded leaves.
    fn succeeded(&mut self, lp: usize, leaf: &Encls, read: Option<u64>) -> Result<(), String> {
        match *leaf {
            Encls::Edbgrd { .. } => {
                let seen = self.machine.get(lp, gpr::RBX);
                // It may be a secret, of a debug enclave.
                self.machine.set(lp, &[(gpr::RBX, 0)]);
                if read.is_some_and(|read| read != seen) {
                    return Err(format!("EDBGRD reads {seen:#x}, the model {read:x?}"));
                }
            }
            Encls::Erdinfo { page } => {
                let seen = [8, 16].map(|at| get64(&self.machine.ram, OPERANDS + 0x80 + at));
                let (_, expected) = self.model.erdinfo(page);
                if seen != expected {
                    return Err(format!("ERDINFO tells {seen:x?}, the model {expected:x?}"));
                }
            }
            Encls::Ewb { place, .. } => {
                let la = get64(&self.machine.ram, OPERANDS);
                put64(&self.machine.ram, meta(place) + 128, la);
                let (mut bytes, mut pcmd) = (vec![0; PAGE as usize], vec![0; 128]);
                self.machine.ram.read(SWAP + place * PAGE, &mut bytes);
                self.machine.ram.read(meta(place), &mut pcmd);
                let evicted = self.model.evicted.last_mut().ok_or("nothing was evicted")?;
                if la != evicted.la || u64::from(pcmd[1]) != evicted.page.kind.number() {
                    return Err(format!("EWB tells {la:#x}, type {}", pcmd[1]));
                }
                (evicted.bytes, evicted.pcmd) = (bytes, pcmd);
            }
            Encls::Eaug { target, .. } | Encls::Eadd { target, .. } => self.compare(target)?,
            Encls::Eld { load } if self.model.pages[load.target].kind.is_child() => {
                self.compare(load.target)?;
            }
            _ => {}
        }
        Ok(())
    }
}
