//! Plans of SGX2: pages added, restricted and trimmed while the enclave runs.

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::model::enclu::Enclu;
use crate::model::leaf::Encls;
use crate::model::{Id, Kind};
use crate::step::Step;
use crate::template::{R, W, X};

/// Where an enclave puts the SECINFO for its leaves: in a data page.
pub(crate) const SECINFO: u64 = P_DATA * PAGE + 0xc00;

impl Fuzz {
    pub(crate) fn secinfo_flags(rwx: u64, kind: Kind) -> u64 {
        rwx & (R | W | X) | kind.number() << 8
    }

    /// The enclave puts a SECINFO in place and executes a leaf.
    pub(crate) fn ask(&mut self, lp: usize, base: u64, flags: u64, leaf: Enclu) {
        self.plan.push_back(Step::Secinfo { lp, la: base + SECINFO, flags });
        self.plan.push_back(Step::Leaf { lp, leaf });
    }

    /// Adds a page to a running enclave.
    pub(crate) fn grow(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let mut la = base + (P_FREE + self.rng.below(5)) * PAGE;
        let Some(&target) = self.free_pages().first() else { return };
        self.plan.push_back(Self::leaf_step(Encls::Eaug { target, secs, la }));
        let lp = self.at_home(secs, id);
        if self.rng.one_in(4) {
            // It is offered in another place.
            la = base + (P_FREE + self.rng.below(5)) * PAGE;
            self.plan.push_back(Self::mapped(la, target));
        }
        if self.rng.one_in(3) {
            self.touch(lp, Gadget::Load64, la + 0xa00);
            self.at_home(secs, id);
        }
        let secinfo = base + SECINFO;
        if self.rng.one_in(3) {
            let source = base + self.rng.pick(&[P_DATA, P_RO, P_X, P_RWX]) * PAGE;
            let rwx = self.rng.pick(&[1, 3, 5, 7]);
            let flags = Self::secinfo_flags(rwx, Kind::Reg);
            self.ask(lp, base, flags, Enclu::Eacceptcopy { secinfo, la, source });
        } else {
            let flags = Self::secinfo_flags(3, Kind::Reg) | 8;
            self.ask(lp, base, flags, Enclu::Eaccept { secinfo, la });
        }
        self.touch(lp, Gadget::Store64, la + 0xa08);
        self.touch(lp, Gadget::Load64, la + 0xa08);
        if self.rng.one_in(3) {
            let flags = Self::secinfo_flags(self.rng.below(8), Kind::Reg);
            self.ask(lp, base, flags, Enclu::Emodpe { secinfo, la });
        }
    }

    /// Takes permissions of a page away.
    pub(crate) fn restrict(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let la = base + self.rng.pick(&[P_RWX, P_DATA, P_FREE, P_FREE + 1]) * PAGE;
        let Some(page) = self.at(id, la) else { return };
        let lp = self.at_home(secs, id);
        self.touch(lp, Gadget::Store64, la + 0xa10);
        let keep = self.rng.pick(&[0, 1, 3, 5]);
        self.plan.push_back(Self::leaf_step(Encls::Emodpr { page, keep }));
        let page = &self.model.pages[page];
        let now = u64::from(page.r) | u64::from(page.w) << 1 | u64::from(page.x) << 2;
        let secinfo = base + SECINFO;
        if self.rng.one_in(2) {
            self.plan.push_back(Self::leaf_step(Encls::Etrack { secs }));
        }
        if self.rng.one_in(2) {
            self.kick();
        }
        self.plan.push_back(Step::GoIn { lp, secs });
        let flags = Self::secinfo_flags(now & keep, Kind::Reg) | 32;
        self.ask(lp, base, flags, Enclu::Eaccept { secinfo, la });
        self.touch(lp, Gadget::Store64, la + 0xa10);
        if !self.rng.one_in(3) {
            let flags = Self::secinfo_flags(self.rng.pick(&[2, 3]), Kind::Reg);
            self.ask(lp, base, flags, Enclu::Emodpe { secinfo, la });
        }
    }

    /// Trims a page and removes it.
    pub(crate) fn trim(&mut self, secs: usize, id: Id) {
        let base = self.model.enclaves[&id].base;
        let la = base + self.rng.pick(&[P_FREE, P_FREE + 1, P_FREE + 2, P_RO, P_X]) * PAGE;
        let Some(page) = self.at(id, la) else { return };
        let lp = self.at_home(secs, id);
        self.touch(lp, Gadget::Load64, la + 0xa00);
        self.plan.push_back(Self::leaf_step(Encls::Emodt { page, to: Kind::Trim.number() }));
        self.touch(lp, Gadget::Load64, la + 0xa00);
        let secinfo = base + SECINFO;
        let flags = Self::secinfo_flags(0, Kind::Trim) | 16;
        if self.rng.one_in(3) {
            self.ask(lp, base, flags, Enclu::Eaccept { secinfo, la });
        }
        self.plan.push_back(Self::leaf_step(Encls::Etrack { secs }));
        self.kick();
        self.go_in(secs, id);
        self.ask(lp, base, flags, Enclu::Eaccept { secinfo, la });
        self.plan.push_back(Self::leaf_step(Encls::Eremove { page }));
    }
}
