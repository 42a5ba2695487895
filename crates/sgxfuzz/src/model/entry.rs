//! EENTER, ERESUME, EDECCSSA, EEXIT and the asynchronous exit (*SDM vol. 3D*, the
//! leaves' sections and "Enclave Exiting Events").

use mem::Ram;

use super::access::Access;
use super::walk::walk;
use super::{Answer, GP, Id, Inside, Kind, Model};
use crate::layout::*;
use crate::template::MODE64;

/// Offset of GPRSGX in the last page of a frame.
pub const GPR: usize = 4096 - 184;
/// Offsets in GPRSGX: RFLAGS, RIP, URSP, URBP, bases of FS and GS.
pub const GPR_RIP: usize = GPR + 136;
/// URSP, followed by URBP.
pub const GPR_URSP: usize = GPR + 144;
/// FSBASE, followed by GSBASE.
pub const GPR_FS: usize = GPR + 168;
/// XSTATE_BV.
const XSTATE_BV: usize = 512;

// Fields of a TCS.
const STATE: usize = 0;
const FLAGS: usize = 8;
const OSSA: usize = 16;
const CSSA: usize = 24;
const OENTRY: usize = 32;
const AEP_FIELD: usize = 40;
const OFS: usize = 48;
const OGS: usize = 56;

/// Where an entry goes on, and with what.
#[derive(Clone, Debug)]
pub struct Entered {
    /// RIP.
    pub rip: u64,
    /// Bases of FS and GS.
    pub bases: [u64; 2],
    /// TCS.CSSA before.
    pub cssa: u64,
}

fn canonical(la: u64) -> bool {
    la as i64 >> 47 == 0 || la as i64 >> 47 == -1
}

impl Model {
    /// The EPC page an operand leads to at CPL 3.
    pub fn operand(&self, ram: &Ram, la: u64, access: Access) -> Result<usize, Answer> {
        let physical = walk(ram, la, access, true).map_err(|code| Answer::Paging(la, code))?;
        self.epc_page(physical).ok_or(Answer::PageFault(la, false))
    }

    /// The page of SSA frame `index` of a TCS.
    fn frame(&self, ram: &Ram, id: Id, tcs: usize, index: u64) -> Result<usize, Answer> {
        let base = self.enclaves[&id].base;
        let la = base.wrapping_add(self.pages[tcs].word(OSSA)).wrapping_add(index * PAGE);
        let number = self.operand(ram, la, Access::Write)?;
        let page = &self.pages[number];
        let good = page.kind == Kind::Reg
            && !page.blocked
            && !page.unaccepted()
            && page.la == la
            && page.owner == Some(id)
            && page.r
            && page.w;
        if good { Ok(number) } else { Err(Answer::PageFault(la, true)) }
    }

    /// EENTER, or ERESUME, of the TCS at `la`.
    pub fn enter(
        &mut self,
        ram: &Ram,
        lp: usize,
        resume: bool,
        la: u64,
        stack: [u64; 2],
        tf: bool,
    ) -> Result<Entered, Answer> {
        if self.inside[lp].is_some() || la & 0xfff != 0 {
            return Err(GP);
        }
        let number = self.operand(ram, la, Access::Read)?;
        let tcs = &self.pages[number];
        if tcs.blocked || tcs.kind != Kind::Tcs || tcs.la != la || tcs.unaccepted() {
            return Err(Answer::PageFault(la, true));
        }
        let id = tcs.owner.expect("a TCS has an enclave");
        let enclave = &self.enclaves[&id];
        let (flags, counts) = (tcs.word(FLAGS), tcs.word(CSSA));
        let (cssa, nssa) = (counts & 0xffff_ffff, counts >> 32);
        let unaligned = (tcs.word(OSSA) | tcs.word(OFS) | tcs.word(OGS)) & 0xfff != 0;
        let notify = enclave.flags & 0x400 != 0;
        let agrees = flags & 1 != 0 || (flags & 2 != 0) == notify;
        if unaligned || flags & !3 != 0 || !enclave.init || enclave.flags & MODE64 == 0 || !agrees {
            return Err(GP);
        }
        let index = if resume {
            cssa.checked_sub(1).ok_or(GP)?
        } else if cssa < nssa {
            cssa
        } else {
            return Err(GP);
        };
        let base = enclave.base;
        let (oentry, bases) =
            (tcs.word(OENTRY), [tcs.word(OFS), tcs.word(OGS)].map(|o| base.wrapping_add(o)));
        let (active, cycle) = (tcs.word(STATE) != 0, enclave.cycle);
        let frame = self.frame(ram, id, number, index)?;
        let saved = &self.pages[frame];
        let (rip, bases) = if resume {
            (saved.word(GPR_RIP), [saved.word(GPR_FS), saved.word(GPR_FS + 8)])
        } else {
            (base.wrapping_add(oentry), bases)
        };
        if !canonical(rip) || !bases.iter().all(|&base| canonical(base)) || active {
            return Err(GP);
        }
        let mxcsr = saved.word(24) & 0xffff_ffff;
        let header = saved.word(XSTATE_BV) & !crate::template::XFRM | saved.word(520) | saved.word(528);
        if resume && (header != 0 || mxcsr & !0xffff != 0) {
            return Err(GP);
        }

        if resume {
            self.pages[number].set_word(CSSA, counts - 1);
        } else {
            self.pages[frame].set_word(GPR_URSP, stack[0]);
            self.pages[frame].set_word(GPR_URSP + 8, stack[1]);
        }
        self.pages[number].set_word(STATE, 1);
        self.pages[number].set_word(AEP_FIELD, AEP);
        let opt_in = flags & 1 != 0;
        self.inside[lp] = Some(Inside {
            enclave: id,
            tcs: number,
            tcs_la: la,
            frame,
            aep: AEP,
            outside_stack: [self.pages[frame].word(GPR_URSP), self.pages[frame].word(GPR_URSP + 8)],
            opt_in,
            saved_tf: tf && !opt_in,
            cycle,
            cache: Vec::new(),
        });
        Ok(Entered { rip, bases, cssa })
    }

    /// EDECCSSA.
    pub fn edeccssa(&mut self, ram: &Ram, lp: usize) -> Answer {
        let Some(inside) = &self.inside[lp] else { return GP };
        let (id, tcs) = (inside.enclave, inside.tcs);
        let counts = self.pages[tcs].word(CSSA);
        if counts & 0xffff_ffff == 0 {
            return GP;
        }
        match self.frame(ram, id, tcs, (counts & 0xffff_ffff) - 1) {
            Err(answer) => answer,
            Ok(frame) => {
                self.pages[tcs].set_word(CSSA, counts - 1);
                let stack = [self.pages[frame].word(GPR_URSP), self.pages[frame].word(GPR_URSP + 8)];
                if let Some(inside) = &mut self.inside[lp] {
                    (inside.frame, inside.outside_stack) = (frame, stack);
                }
                Answer::Quiet
            }
        }
    }

    /// EEXIT.
    pub fn eexit(&mut self, lp: usize) -> Option<Inside> {
        let inside = self.inside[lp].take()?;
        self.pages[inside.tcs].set_word(STATE, 0);
        Some(inside)
    }

    /// An asynchronous exit; what it writes to the frame is the caller's to look at.
    pub fn aex(&mut self, lp: usize) -> Option<Inside> {
        let inside = self.eexit(lp)?;
        let counts = self.pages[inside.tcs].word(CSSA);
        self.pages[inside.tcs].set_word(CSSA, counts + 1);
        Some(inside)
    }
}
