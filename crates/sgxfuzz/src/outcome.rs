//! What an instruction came to against what the model allows.

use arch::regs::{gpr, mxcsr, rflags};

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::{Event, Trap, outside_base};
use crate::model::access::{Access, Place, Way};
use crate::model::entry::{GPR, GPR_RIP};
use crate::model::walk::error;
use crate::model::{Answer, Page};

/// An access within one page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub la: u64,
    pub len: u64,
    pub access: Access,
}

impl Stage {
    /// The accesses to `len` bytes at `la`, by pages.
    pub(crate) fn of(la: u64, len: u64, access: Access) -> Vec<Stage> {
        let first = len.min(PAGE - (la & 0xfff));
        let mut stages = vec![Stage { la, len: first, access }];
        if first < len {
            stages.push(Stage { la: la + first, len: len - first, access });
        }
        stages
    }
}

/// A stage with the ways it may go.
pub(crate) type Judged = (Stage, Vec<Way>);

impl Fuzz {
    pub(crate) fn judge(&self, lp: usize, stages: &[Stage], user: bool) -> Vec<Judged> {
        let ways = |s: &Stage| self.model.ways(&self.machine.ram, lp, s.la, s.access, user);
        stages.iter().map(|stage| (*stage, ways(stage))).collect()
    }

    /// Checks that a trap is one of those that the stages may end in.
    pub(crate) fn may_trap(&mut self, trap: &Trap, judged: &[Judged], inside: bool) -> Result<(), String> {
        let allowed = judged.iter().any(|(stage, ways)| {
            let address = if inside { stage.la & !0xfff } else { stage.la };
            ways.iter().any(|way| match way {
                Way::PageFault(code) => trap.vector == 14 && trap.error == *code && trap.cr2 == address,
                Way::Protection => trap.vector == 13 && trap.error == 0,
                Way::To(_) => false,
            })
        });
        if !allowed {
            return Err(format!("it faults, but the model says {judged:x?}"));
        }
        if trap.error & error::SGX != 0 {
            self.counts.refused += 1;
        }
        Ok(())
    }

    /// Checks that every stage may succeed.
    pub(crate) fn may_succeed(&self, judged: &[Judged]) -> Result<(), String> {
        let possible = |ways: &[Way]| ways.iter().any(|way| matches!(way, Way::To(_)));
        match judged.iter().find(|(_, ways)| !possible(ways)) {
            Some(refused) => Err(format!("it succeeds, but the model says {refused:x?}")),
            None => Ok(()),
        }
    }

    /// Notes what translations the stages may leave.
    pub(crate) fn note(&mut self, lp: usize, judged: &[Judged]) {
        for (stage, _) in judged {
            self.model.note(&self.machine.ram, lp, stage.la, stage.access);
        }
    }

    fn bytes_at(&self, place: Place, len: u64) -> Vec<u8> {
        let mut bytes = vec![0xff; len as usize];
        match place {
            Place::Ones => {}
            Place::Ram(at) => {
                self.machine.ram.read(at, &mut bytes);
            }
            Place::Epc(page, at) => {
                let content = &self.model.pages[page].content;
                // A page that is not of an enclave has no content to be read.
                if let Some(from) = content.get(at..at + len as usize) {
                    bytes.copy_from_slice(from);
                } else {
                    bytes.fill(0);
                }
            }
        }
        bytes
    }

    /// What the stages may read: for each its possible bytes.
    pub(crate) fn readable(&self, judged: &[Judged]) -> Vec<Vec<Vec<u8>>> {
        let of = |(stage, ways): &Judged| {
            let places = ways.iter().filter_map(|way| match way {
                Way::To(place) => Some(self.bytes_at(*place, stage.len)),
                _ => None,
            });
            places.collect()
        };
        judged.iter().map(of).collect()
    }

    /// Checks what was read.
    pub(crate) fn has_read(&self, seen: &[u8], options: &[Vec<Vec<u8>>]) -> Result<(), String> {
        let mut rest = seen;
        for choices in options {
            let len = choices.first().map_or(0, Vec::len).min(rest.len());
            let (now, later) = rest.split_at(len);
            if !choices.iter().any(|choice| choice == now) {
                return Err(format!("it reads {seen:x?}, but the model says {options:x?}"));
            }
            rest = later;
        }
        Ok(())
    }

    /// Carries a write out in the model, and checks that it is where it belongs.
    pub(crate) fn has_written(&mut self, bytes: &[u8], judged: &[Judged]) -> Result<(), String> {
        let mut rest = bytes;
        for (stage, ways) in judged {
            let (now, later) = rest.split_at(stage.len as usize);
            rest = later;
            let mut found = None;
            for way in ways {
                let Way::To(place) = way else { continue };
                let real = match *place {
                    Place::Ones => now.to_vec(),
                    Place::Ram(_) => self.bytes_at(*place, stage.len),
                    Place::Epc(page, at) => self.machine.content(page)[at..at + now.len()].to_vec(),
                };
                if real == now {
                    found = Some(*place);
                    break;
                }
            }
            match found {
                None => return Err(format!("what is written at {:#x} is not there: {ways:x?}", stage.la)),
                Some(Place::Epc(page, at)) => {
                    let content = &mut self.model.pages[page].content;
                    match content.get_mut(at..at + now.len()) {
                        Some(to) => to.copy_from_slice(now),
                        None => return Err(format!("EPC page {page} was written, which is no enclave's")),
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Compares a leaf's result with the model's answer; the leaf was executed at CPL 3
    /// inside (`inside`) or outside, or at CPL 0.
    pub(crate) fn answered(&self, lp: usize, event: Event, rax: u64, answer: Answer) -> Result<(), String> {
        let wrong = || format!("the model says {answer:x?}, RAX is {:#x}", self.machine.get(lp, gpr::RAX));
        let good = match (event, answer) {
            (Event::Done, Answer::Code(code)) => self.machine.get(lp, gpr::RAX) == code,
            (Event::Done, Answer::Quiet) => self.machine.get(lp, gpr::RAX) == rax,
            (Event::Trap(trap), _) => return self.trapped(&trap, answer, false),
            _ => false,
        };
        if good { Ok(()) } else { Err(wrong()) }
    }

    /// Compares a leaf's fault with the model's answer.
    pub(crate) fn trapped(&self, trap: &Trap, answer: Answer, inside: bool) -> Result<(), String> {
        let address = |la: u64| if inside { la & !0xfff } else { la };
        let good = match answer {
            Answer::Fault(vector) => trap.vector == vector && vector != 14,
            Answer::PageFault(la, sgx) => {
                let bits = error::P | if sgx { error::SGX } else { 0 };
                trap.vector == 14
                    && trap.error & (error::P | error::SGX | error::RSVD) == bits
                    && trap.cr2 == address(la)
            }
            Answer::Paging(la, code) => trap.vector == 14 && trap.error == code && trap.cr2 == address(la),
            Answer::Code(_) | Answer::Quiet => false,
        };
        if good { Ok(()) } else { Err(format!("it faults, but the model says {answer:x?}")) }
    }

    /// Checks an asynchronous exit: what the handler sees, and what the frame has.
    /// `registers` are those inside at the fault, those of `unknown` excepted.
    pub(crate) fn exited(
        &mut self,
        lp: usize,
        trap: &Trap,
        rip: u64,
        registers: &[u64; 16],
        unknown: &[usize],
    ) -> Result<(), String> {
        self.counts.exits += 1;
        let inside = self.model.aex(lp).ok_or("an exit, but the model has the processor outside")?;
        if self.machine.inside(lp) {
            return Err("the handler runs in enclave mode".into());
        }
        let tf = if inside.saved_tf { rflags::TF } else { 0 };
        if trap.readable && (trap.rip != inside.aep || trap.rsp != inside.outside_stack[0]) {
            return Err(format!("the exit is to {:#x} with RSP {:#x}", trap.rip, trap.rsp));
        }
        // After an opt-in entry TF is what it was inside.
        let tf_wrong = !inside.opt_in && trap.rflags & rflags::TF != tf;
        if trap.readable && (trap.rflags & rflags::STATUS != 0 || tf_wrong) {
            return Err(format!("RFLAGS after the exit are {:#x}", trap.rflags));
        }
        if trap.vector == 14 && trap.cr2 & 0xfff != 0 {
            return Err(format!("CR2 tells more than the page: {:#x}", trap.cr2));
        }
        for number in (0..16).filter(|&n| n != gpr::RSP) {
            let expected = match number {
                gpr::RAX => 3,
                gpr::RBX => inside.tcs_la,
                gpr::RCX => inside.aep,
                gpr::RBP => inside.outside_stack[1],
                _ => 0,
            };
            let value = self.machine.get(lp, number);
            if value != expected {
                return Err(format!("register {number} is {value:#x} after the exit, not {expected:#x}"));
            }
        }
        let s = &self.machine.cpu(lp).s;
        if s.vec.iter().any(|vector| vector.0 != [0; 8]) || s.mxcsr != mxcsr::RESET {
            return Err("vector registers keep something after the exit".into());
        }
        self.host_state(lp)?;

        // The frame, as the enclave finds it.
        let real = self.machine.content(inside.frame);
        let exinfo = self.model.enclaves[&inside.enclave].exinfo;
        let page = &mut self.model.pages[inside.frame];
        let zone = 1024..GPR - if exinfo { 16 } else { 0 };
        if real[zone.clone()] != page.content[zone] {
            return Err("the exit writes beyond the frame's fields".into());
        }
        page.content = real;
        for (number, value) in registers.iter().enumerate() {
            let saved = page.word(GPR + 8 * number);
            if !unknown.contains(&number) && saved != *value {
                return Err(format!("the frame has {saved:#x} for register {number}"));
            }
        }
        told(trap, exinfo, page)?;
        if page.word(GPR_RIP) != rip {
            return Err(format!("the frame's RIP is {:#x}, not {rip:#x}", page.word(GPR_RIP)));
        }
        self.compare(inside.tcs)
    }

    /// FS, GS and XCR0 are the host's.
    pub(crate) fn host_state(&self, lp: usize) -> Result<(), String> {
        let s = &self.machine.cpu(lp).s;
        let bases = [s.seg[4].base, s.seg[5].base];
        if bases != [outside_base(lp, 0), outside_base(lp, 1)] || s.xcr0.bits() != 7 {
            return Err(format!("FS and GS are {bases:x?} outside, XCR0 {:#x}", s.xcr0.bits()));
        }
        Ok(())
    }
}

/// Checks what the frame tells the enclave of the event (*SDM vol. 3D, "EXITINFO"*,
/// "MISC Region"): EXITINFO of some exceptions, with EXINFO also of #GP and #PF, with
/// error code and whole address.
fn told(trap: &Trap, exinfo: bool, page: &Page) -> Result<(), String> {
    let info = page.word(GPR + 160) & 0xffff_ffff;
    let (valid, hardware, software) = (1 << 31, 3 << 8, 6 << 8);
    let expected = match trap.vector {
        3 => valid | software | 3,
        vector @ (0 | 1 | 6) => valid | hardware | u64::from(vector),
        vector @ (13 | 14) if exinfo => valid | hardware | u64::from(vector),
        _ => 0,
    };
    if info != expected {
        return Err(format!("EXITINFO is {info:#x}, not {expected:#x}"));
    }
    if exinfo && matches!(trap.vector, 13 | 14) {
        let address = if trap.vector == 14 { trap.cr2 } else { 0 };
        let (told, code) = (page.word(GPR - 16) & !0xfff, page.word(GPR - 8));
        if told != address || code != u64::from(trap.error) {
            return Err(format!("EXINFO tells {told:#x}, error {code:#x}"));
        }
    }
    Ok(())
}
