//! Chooses steps: mostly the next of a plan that makes sense, so that deep states are
//! reached; else anything.

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::PROCESSORS;
use crate::model::enclu::Enclu;
use crate::model::leaf::{Content, Encls};
use crate::model::paging::Load;
use crate::model::{Id, Kind, window};
use crate::step::{Step, Twist};
use crate::tamper::ENTRY;
use crate::template::{DEBUG, MODE64, R, SECINFO_REG, SECINFO_TCS, W};

/// Offsets at which writes do no harm to code, frames and TCS.
const ZONE: std::ops::Range<u64> = 0xa00..0xe00;

impl Fuzz {
    /// The next step.
    pub(crate) fn next_step(&mut self) -> Step {
        if !self.rng.one_in(6) {
            if let Some(step) = self.plan.pop_front() {
                return step;
            }
            if !self.rng.one_in(3) {
                self.make_plan();
            }
        }
        self.random()
    }

    pub(crate) fn any_page(&mut self) -> usize {
        let used: Vec<usize> =
            (0..EPC_PAGES as usize).filter(|&n| self.model.pages[n].kind != Kind::Free).collect();
        if used.is_empty() || self.rng.one_in(6) {
            return self.rng.below(EPC_PAGES) as usize;
        }
        self.rng.pick(&used)
    }

    /// A page of a kind, mostly.
    fn page_of(&mut self, kind: Kind) -> usize {
        let all = self.of_kind(kind);
        if all.is_empty() || self.rng.one_in(12) { self.any_page() } else { self.rng.pick(&all) }
    }

    /// The SECS of a running enclave, mostly.
    pub(crate) fn running(&mut self) -> Option<(usize, Id)> {
        let all: Vec<_> = self.of_kind(Kind::Secs);
        let all: Vec<_> = all
            .into_iter()
            .filter_map(|page| Some((page, self.model.secs(page)?)))
            .filter(|(_, id)| self.model.enclaves[id].init)
            .collect();
        (!all.is_empty()).then(|| self.rng.pick(&all))
    }

    pub(crate) fn inside_lp(&mut self) -> Option<usize> {
        let start = self.rng.below(PROCESSORS as u64) as usize;
        (0..PROCESSORS).map(|n| (start + n) % PROCESSORS).find(|&lp| self.model.inside[lp].is_some())
    }

    /// A page in an enclave's range.
    pub(crate) fn el_page(&mut self, base: u64) -> u64 {
        let data = [P_DATA, P_DATA, P_RWX, P_RWX, P_RO, P_X, P_CODE];
        base + PAGE
            * match self.rng.below(8) {
                0..=4 => self.rng.pick(&data),
                5 => self.rng.below(P_FREE),
                _ => P_FREE + self.rng.below(5),
            }
    }

    /// A linear address for processor `lp` to use.
    fn address(&mut self, lp: usize) -> u64 {
        let base = match &self.model.inside[lp] {
            Some(inside) if !self.rng.one_in(8) => self.model.enclaves[&inside.enclave].base,
            _ => self.rng.pick(&BASES),
        };
        let offset = ZONE.start + self.rng.below(ZONE.end - ZONE.start - 40);
        match self.rng.below(20) {
            0 => window(self.any_page()) + offset,
            1 => SPARE + self.rng.below(SPARES) * PAGE + offset,
            2 => EPC_TABLE + self.rng.below(4) * PAGE + offset,
            // Across two pages, where nothing is written.
            3 if self.model.inside[lp].is_none() => self.el_page(base) + 0xffc,
            _ => self.el_page(base) + offset,
        }
    }

    pub(crate) fn leaf_step(leaf: Encls) -> Step {
        Step::Kernel { leaf, twist: Twist::None }
    }

    /// Maps a page at `la`.
    pub(crate) fn mapped(la: u64, page: usize) -> Step {
        Step::Map { la, entry: window(page) | ENTRY }
    }

    fn free(&mut self) -> usize {
        self.page_of(Kind::Free)
    }

    /// Any step at all.
    fn random(&mut self) -> Step {
        let lp = self.rng.below(PROCESSORS as u64) as usize;
        let lp = if self.rng.one_in(3) { lp } else { self.inside_lp().unwrap_or(lp) };
        match self.rng.below(32) {
            0..=4 => self.random_kernel(),
            5..=13 => {
                let gadgets = [
                    Gadget::Load64,
                    Gadget::Load64,
                    Gadget::Store64,
                    Gadget::Store64,
                    Gadget::Load8,
                    Gadget::Store8,
                    Gadget::Xadd,
                    Gadget::CmpXchg16,
                    Gadget::Stos,
                    Gadget::VLoad,
                    Gadget::VStore,
                    Gadget::Push,
                ];
                let (gadget, la) = (self.rng.pick(&gadgets), self.address(lp));
                Step::Memory { lp, gadget, la, user: !self.rng.one_in(3) }
            }
            14 => {
                let (from, to) = (self.address(lp), self.address(lp));
                // Into the enclave, or within: it gives nothing away itself.
                let inside = self.model.inside[lp].as_ref().map(|i| self.model.enclaves[&i.enclave].base);
                let base = inside.unwrap_or(ENCLAVES);
                let to = if (to.wrapping_sub(base)) < ELRANGE { to } else { self.el_page(base) + ZONE.start };
                Step::Copy { lp, from: from & !0x3f, to: to & !0x3f, bytes: 1 + self.rng.below(64) }
            }
            15 | 16 => {
                let page = self.address(lp) & !0xfff;
                let la = if self.rng.one_in(3) { page + 0xd00 + self.rng.below(3) * 8 } else { page };
                Step::Jump { lp, la }
            }
            17 => Step::Fault {
                lp,
                gadget: self.rng.pick(&[Gadget::Ud2, Gadget::Int3, Gadget::Cpuid, Gadget::Divide]),
            },
            18 if self.rng.one_in(3) => Step::Stack {
                lp,
                la: if self.rng.one_in(2) { window(self.any_page()) } else { self.address(lp) },
            },
            18 => Step::Interrupt { lp },
            19 => Step::Breakpoint { lp, la: self.address(lp) },
            20 | 21 => self.random_map(),
            22 => Step::Large { on: self.rng.one_in(4) },
            23 => Step::Table { page: self.any_page() },
            24 => Step::Tamper {
                place: self.rng.below(SWAPS),
                at: self.rng.below(PAGE + 136),
                bit: self.rng.below(8) as u8,
            },
            25 => {
                let records = self.model.evicted.len() as u64;
                Step::Replay { place: self.rng.below(SWAPS), record: self.rng.below(records.max(1)) as usize }
            }
            26 => Step::Debugger { lp, la: self.address(lp) },
            27 => Step::Device { page: self.any_page() },
            28 => Step::Misplaced { lp, number: self.rng.below(48) },
            29 => Step::Exit { lp },
            30 => self.random_enter(lp),
            _ => self.random_leaf(lp),
        }
    }

    fn random_enter(&mut self, lp: usize) -> Step {
        let base = self.rng.pick(&BASES);
        let la = match self.rng.below(12) {
            0 => self.el_page(base),
            1 => base + P_TCS * PAGE + 8,
            2 => SPARE,
            3 => window(self.any_page()),
            _ => base + (P_TCS + self.rng.below(2)) * PAGE,
        };
        Step::Enter { lp, la, resume: self.rng.one_in(2), tf: self.rng.one_in(6) }
    }

    fn random_map(&mut self) -> Step {
        let base = self.rng.pick(&BASES);
        let la = self.el_page(base);
        let right = (0..EPC_PAGES as usize).find(|&n| self.model.pages[n].la == la);
        let page = match right {
            Some(page) if self.rng.one_in(2) => page,
            _ => self.any_page(),
        };
        let entry = match self.rng.below(10) {
            0 => 0,
            1 => window(page) | ENTRY & !2,
            2 => window(page) | ENTRY & !4,
            3 => window(page) | ENTRY | 1 << 63,
            4 | 5 => (SPARE + self.rng.below(SPARES) * PAGE) | ENTRY,
            6 => window(page) | ENTRY | 1 << 51,
            7 => window(page) | ENTRY,
            _ => window(page) | ENTRY | 0x60,
        };
        Step::Map { la, entry }
    }

    fn random_kernel(&mut self) -> Step {
        let page = self.any_page();
        let (secs, base) = (self.page_of(Kind::Secs), self.rng.pick(&BASES));
        let slot = self.rng.below(3) as usize;
        let offset = self.rng.below(512) as usize * 8;
        let leaf = match self.rng.below(19) {
            0 => Encls::Ecreate {
                target: self.free(),
                base: base + if self.rng.one_in(6) { PAGE } else { 0 },
                flags: self.rng.pick(&[MODE64, MODE64 | DEBUG, MODE64 | 1, 0x80 | MODE64]),
                exinfo: self.rng.one_in(2),
            },
            1 => Encls::Eadd {
                target: self.free(),
                secs,
                la: self.el_page(base) + if self.rng.one_in(8) { 8 * ELRANGE } else { 0 },
                secinfo: self.rng.pick(&[SECINFO_REG | R | W, SECINFO_REG | W, SECINFO_REG, SECINFO_TCS | R]),
                content: Content::Fill(self.rng.below(3) as u8),
            },
            2 => Encls::Eextend { secs, page, chunk: self.rng.below(16) as usize },
            3 => Encls::Einit { secs },
            4 => Encls::Eremove { page },
            5 => Encls::Edbgrd { page, offset: self.rng.pick(&[8, 24, 80, offset]) },
            6 => {
                let tcs = self.model.pages[page].kind == Kind::Tcs;
                let zone = ZONE.start as usize + self.rng.below(64) as usize * 8;
                Encls::Edbgwr {
                    page,
                    offset: if tcs && !self.rng.one_in(3) { 8 } else { zone },
                    value: self.rng.below(2),
                }
            }
            7 => Encls::Eblock { page },
            8 => Encls::Epa { page: self.free() },
            9 | 10 => Encls::Ewb { page, va: self.page_of(Kind::Va), slot, place: self.rng.below(SWAPS) },
            11 => Encls::Etrack { secs },
            12 => Encls::Etrackc { page },
            13 => Encls::Eaug { target: self.free(), secs, la: self.el_page(base) },
            14 => Encls::Emodpr { page, keep: self.rng.below(8) },
            15 => Encls::Emodt { page, to: self.rng.pick(&[1, 4]) },
            16 => Encls::Erdinfo { page },
            17 => Encls::Eld {
                load: Load {
                    target: self.free(),
                    secs: (!self.rng.one_in(4)).then_some(secs),
                    va: self.page_of(Kind::Va),
                    slot,
                    place: self.rng.below(SWAPS),
                    blocked: self.rng.one_in(2),
                    coded: self.rng.one_in(2),
                },
            },
            _ => Encls::Eupdatesvn,
        };
        let twist = match self.rng.below(24) {
            0 => Twist::Unaligned,
            1 => Twist::Ram,
            _ => Twist::None,
        };
        Step::Kernel { leaf, twist }
    }

    fn random_leaf(&mut self, lp: usize) -> Step {
        let base = match &self.model.inside[lp] {
            Some(inside) => self.model.enclaves[&inside.enclave].base,
            None => return self.random_enter(lp),
        };
        let (la, source, output) = (self.el_page(base), self.el_page(base), self.el_page(base) + 0xa00);
        let secinfo = self.el_page(base) + 0xa00;
        let zeros = base + (P_SSA + self.rng.below(4)) * PAGE + 0x600;
        let leaf = match self.rng.below(8) {
            0 | 1 => Enclu::Ereport { target: zeros, data: source + 0x80, output },
            2 | 3 => Enclu::Egetkey { request: zeros, output },
            4 => Enclu::Eaccept { secinfo, la },
            5 => Enclu::Emodpe { secinfo, la },
            6 => Enclu::Eacceptcopy { secinfo, la, source },
            _ => Enclu::Edeccssa,
        };
        Step::Leaf { lp, leaf }
    }
}
