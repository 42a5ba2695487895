//! Plans of an attacker, and of an enclave with odd wishes.

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::PROCESSORS;
use crate::model::enclu::Enclu;
use crate::model::leaf::Encls;
use crate::model::{Id, Kind};
use crate::step::Step;

use crate::dynamic::SECINFO;

impl Fuzz {
    /// Debugs an enclave, or tries to.
    pub(crate) fn debug(&mut self, id: Id) {
        for _ in 0..3 {
            let Some(page) = self.child(id) else { return };
            let tcs = self.model.pages[page].kind == Kind::Tcs;
            let offset = if tcs { 8 } else { 0xa00 + self.rng.below(100) as usize * 8 };
            self.plan.push_back(Self::leaf_step(Encls::Edbgrd { page, offset }));
            let value = self.rng.below(2);
            self.plan.push_back(Self::leaf_step(Encls::Edbgwr { page, offset, value }));
        }
        if let Some(lp) = self.inside_lp() {
            let la = self.model.inside[lp].as_ref().map_or(0, |i| self.model.enclaves[&i.enclave].base);
            self.plan.push_back(Step::Breakpoint { lp, la: la + P_DATA * PAGE + 0xa00 });
        }
    }

    /// Keys and reports.
    pub(crate) fn keys(&mut self, secs: usize, id: Id) {
        let lp = self.at_home(secs, id);
        let base = self.model.enclaves[&id].base;
        let zeros = base + (P_SSA + self.rng.below(4)) * PAGE + 0x600;
        let pages = [P_DATA, P_RWX, P_DATA, P_RO, P_X, P_FREE, P_TCS];
        let (from, to) = (self.rng.pick(&pages), self.rng.pick(&pages));
        let (data, output) = (base + from * PAGE + 0xa80, base + to * PAGE + 0xa00);
        let target = if self.rng.one_in(4) { base + from * PAGE + 0x600 } else { zeros };
        self.plan.push_back(Step::Leaf { lp, leaf: Enclu::Ereport { target, data, output } });
        let mut request = base + from * PAGE + 0x800;
        if !self.rng.one_in(3) {
            request = zeros + 0x200;
            // KEYNAME where a SECINFO would have its flags.
            self.plan.push_back(Step::MapAll { secs });
            self.plan.push_back(Step::GoIn { lp, secs });
            self.plan.push_back(Step::Secinfo { lp, la: request, flags: self.rng.below(6) });
        }
        self.plan.push_back(Step::GoIn { lp, secs });
        self.plan.push_back(Step::Leaf { lp, leaf: Enclu::Egetkey { request, output } });
    }

    /// A leaf inside, of the enclave's own free choice.
    pub(crate) fn odd_leaf(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let (la, source) = (self.el_page(base), self.el_page(base));
        let lp = self.at_home(secs, id);
        if self.rng.one_in(3)
            && let Some(page) = self.at(id, la)
        {
            self.plan.push_back(Self::leaf_step(Encls::Eblock { page }));
        }
        let secinfo = base + SECINFO;
        let kind = self.rng.pick(&[Kind::Reg, Kind::Reg, Kind::Tcs, Kind::Trim]);
        // The page as it is, or as it might be.
        let now = self.at(id, la).map(|page| self.model.erdinfo(page).1[0] & 0xffff);
        let flags = match now {
            Some(flags) if self.rng.one_in(2) => flags,
            _ => Self::secinfo_flags(self.rng.below(8), kind) | self.rng.pick(&[0, 0, 8, 16, 32, 64]),
        };
        let leaf = match self.rng.below(3) {
            0 => Enclu::Eaccept { secinfo, la },
            1 => Enclu::Emodpe { secinfo, la },
            _ => Enclu::Eacceptcopy { secinfo, la, source },
        };
        let accepts = matches!(leaf, Enclu::Eaccept { .. });
        let flags = if accepts || self.rng.one_in(4) { flags } else { flags & 7 | 2 << 8 };
        self.ask(lp, base, flags, leaf);
        self.touch(lp, Gadget::Load64, la + 0xa00);
        if self.rng.one_in(4) {
            // SECINFO's page is blocked under the leaf.
            if let Some(page) = self.at(id, base + P_DATA * PAGE) {
                self.plan.push_back(Self::leaf_step(Encls::Eblock { page }));
            }
            self.plan.push_back(Step::Leaf { lp, leaf });
        }
    }

    /// The same address from inside and from outside, with the page, and with RAM,
    /// another page or nothing behind it.
    pub(crate) fn look_both_ways(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let la = base + self.rng.pick(&[P_DATA, P_RWX, P_RO, P_X, P_FREE + 3]) * PAGE;
        let lp = self.at_home(secs, id);
        if self.rng.one_in(2) {
            self.touch(lp, Gadget::Store64, la + 0xb00);
            self.plan.push_back(if self.rng.one_in(2) { Step::Exit { lp } } else { Step::Interrupt { lp } });
            for gadget in [Gadget::Load64, Gadget::VLoad, Gadget::Xadd, Gadget::Store64] {
                self.touch(lp, gadget, la + 0xb00);
            }
        } else {
            let to = if self.rng.one_in(2) { SPARE } else { EPC + self.any_page() as u64 * PAGE };
            self.plan.push_back(Step::Exit { lp });
            self.plan.push_back(Step::Map { la, entry: to | 7 });
            self.touch(lp, Gadget::Store64, la + 0xb00);
            self.plan.push_back(Step::GoIn { lp, secs });
        }
        self.touch(lp, Gadget::Load64, la + 0xb00);
        self.plan.push_back(Step::Jump { lp, la });
        // The page of the same place in another enclave.
        let others: Vec<usize> = (0..self.model.pages.len())
            .filter(|&n| self.model.pages[n].kind == Kind::Reg && self.model.pages[n].owner != Some(id))
            .filter(|&n| self.model.pages[n].la == la)
            .collect();
        let own: Vec<usize> = (0..self.model.pages.len())
            .filter(|&n| self.model.pages[n].kind == Kind::Reg && self.model.pages[n].owner == Some(id))
            .collect();
        for pages in [others, own] {
            if !pages.is_empty() {
                let page = self.rng.pick(&pages);
                self.go_in(secs, id);
                self.plan.push_back(Self::mapped(la, page));
                self.touch(lp, Gadget::Load64, la + 0xb00);
                self.touch(lp, Gadget::Store64, la + 0xb00);
            }
        }
    }

    /// Takes a page away under a processor that has a translation of it.
    pub(crate) fn stale(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let la = base + self.rng.pick(&[P_DATA, P_RWX, P_RO]) * PAGE;
        let Some(page) = self.at(id, la) else { return };
        let lp = self.at_home(secs, id);
        self.touch(lp, Gadget::Load64, la + 0xc00);
        let va = self.of_kind(Kind::Va).first().copied().unwrap_or(0);
        self.plan.push_back(Self::leaf_step(Encls::Eblock { page }));
        self.touch(lp, Gadget::Load64, la + 0xc00);
        if self.rng.one_in(2) {
            self.plan.push_back(Self::leaf_step(Encls::Etrack { secs }));
        }
        let place = self.rng.below(SWAPS);
        self.plan.push_back(Self::leaf_step(Encls::Ewb { page, va, slot: 7, place }));
        self.plan.push_back(Self::leaf_step(Encls::Eremove { page }));
        self.touch(lp, Gadget::Load64, la + 0xc00);
        self.plan.push_back(Step::Interrupt { lp });
        self.plan.push_back(Step::GoIn { lp, secs });
        self.touch(lp, Gadget::Load64, la + 0xc00);
    }

    /// Exits and entries one on the other, until frames run out.
    pub(crate) fn nest(&mut self, secs: usize, id: Id) {
        let lp = self.go_in(secs, id);
        let la = self.model.enclaves[&id].base + P_TCS * PAGE;
        for _ in 0..3 {
            self.plan.push_back(Step::Fault { lp, gadget: Gadget::Ud2 });
            self.plan.push_back(Step::Enter { lp, la, resume: false, tf: false });
            if self.rng.one_in(3) {
                self.plan.push_back(Step::Leaf { lp, leaf: Enclu::Edeccssa });
            }
        }
        for _ in 0..3 {
            self.plan.push_back(Step::Interrupt { lp });
            self.plan.push_back(Step::Enter { lp, la, resume: true, tf: false });
        }
        // The other processor on the same TCS.
        self.plan.push_back(Step::Enter { lp: PROCESSORS - 1 - lp, la, resume: false, tf: false });
    }

    /// Removes an enclave.
    pub(crate) fn remove(&mut self, secs: usize, id: Id) {
        self.kick();
        for number in 0..self.model.pages.len() {
            let page = &self.model.pages[number];
            if page.kind.is_child() && page.owner == Some(id) {
                self.plan.push_back(Self::leaf_step(Encls::Eremove { page: number }));
            }
        }
        self.plan.push_back(Self::leaf_step(Encls::Eremove { page: secs }));
    }

    /// Code that runs, and then is other code without a store of the processor's: by a
    /// debugger.
    pub(crate) fn change_code(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let (page_la, slot) = (base + P_RWX * PAGE, self.rng.below(3) * 8);
        let la = page_la + 0xd00 + slot;
        let lp = self.at_home(secs, id);
        let value = self.rng.below(1 << 16) as u32;
        self.plan.push_back(Step::Patch { lp, la, value });
        self.plan.push_back(Step::Jump { lp, la });
        let Some(page) = self.at(id, page_la) else { return };
        let offset = 0xd00 + slot as usize;
        let leaf = Encls::Edbgwr { page, offset, value: patch(value + 1) };
        self.plan.push_back(Self::leaf_step(leaf));
        if self.rng.one_in(2) {
            self.plan.push_back(Step::Interrupt { lp });
            self.plan.push_back(Step::GoIn { lp, secs });
        }
        self.plan.push_back(Step::Jump { lp, la });
    }
}
