//! Plans: what a kernel does that wants its enclaves to run, and an attacker who
//! wants to get somewhere. Any step of them may come too late or be in vain.

use crate::fuzz::Fuzz;
use crate::layout::*;
use crate::machine::PROCESSORS;
use crate::model::leaf::{Content, Encls};
use crate::model::paging::Load;
use crate::model::{Id, Kind};
use crate::step::Step;
use crate::template::{DEBUG, MODE64, pages};

impl Fuzz {
    pub(crate) fn make_plan(&mut self) {
        let running = self.running();
        let built = self.of_kind(Kind::Secs).len();
        let free = self.free_pages().len();
        let Some((secs, id)) = running else { return self.build() };
        if built < 3 && free > 14 && self.rng.one_in(2) {
            return self.build();
        }
        match self.rng.below(30) {
            29 => self.change_code(secs, id),
            26..=28 => self.odd_leaf(secs, id),
            24 | 25 => self.keys(secs, id),
            0..=4 => self.visit(secs, id),
            5..=7 => self.reclaim(secs, id),
            8..=10 => self.reload(),
            11..=13 => self.grow(secs, id),
            14 | 15 => self.restrict(secs, id),
            16 | 17 => self.trim(secs, id),
            18 => self.remove(secs, id),
            19 | 20 => self.look_both_ways(secs, id),
            21 => self.nest(secs, id),
            22 => self.debug(id),
            _ => self.stale(secs, id),
        }
    }

    /// Builds an enclave from the template.
    pub(crate) fn build(&mut self) {
        let free = self.free_pages();
        if free.len() < pages().len() + 2 {
            if let Some(&secs) = self.of_kind(Kind::Secs).first()
                && let Some(id) = self.model.secs(secs)
            {
                self.remove(secs, id);
            }
            return;
        }
        let mut free = free.into_iter();
        let Some(secs) = free.next() else { return };
        let which = self.rng.below(3) as usize;
        let base = BASES[which];
        let flags = if which == 1 { MODE64 | DEBUG } else { MODE64 };
        self.plan.push_back(Self::leaf_step(Encls::Ecreate {
            target: secs,
            base,
            flags,
            exinfo: which != 0,
        }));
        for (n, (added, page)) in pages().iter().zip(&mut free).enumerate() {
            let la = base + added.page * PAGE;
            let content = Content::Template(n);
            let leaf = Encls::Eadd { target: page, secs, la, secinfo: added.secinfo, content };
            self.plan.push_back(Self::mapped(la, page));
            self.plan.push_back(Self::leaf_step(leaf));
            self.plan.push_back(Self::leaf_step(Encls::Eextend { secs, page, chunk: 0 }));
        }
        self.plan.push_back(Self::leaf_step(Encls::Einit { secs }));
        if self.of_kind(Kind::Va).is_empty()
            && let Some(page) = free.next()
        {
            self.plan.push_back(Self::leaf_step(Encls::Epa { page }));
        }
    }

    /// Enters by a TCS, on a processor that is outside.
    pub(crate) fn go_in(&mut self, secs: usize, id: Id) -> usize {
        let start = self.rng.below(PROCESSORS as u64) as usize;
        let lp = (0..PROCESSORS)
            .map(|n| (start + n) % PROCESSORS)
            .find(|&lp| self.model.inside[lp].is_none())
            .unwrap_or(start);
        self.plan.push_back(Step::Exit { lp });
        self.plan.push_back(Step::MapAll { secs });
        if self.rng.one_in(8) {
            let la = self.model.enclaves[&id].base + (P_TCS + self.rng.below(2)) * PAGE;
            self.plan.push_back(Step::Enter { lp, la, resume: false, tf: true });
        }
        self.plan.push_back(Step::GoIn { lp, secs });
        lp
    }

    /// Enters unless somebody is inside; the processor.
    pub(crate) fn at_home(&mut self, secs: usize, id: Id) -> usize {
        let inside = (0..PROCESSORS)
            .find(|&lp| self.model.inside[lp].as_ref().is_some_and(|inside| inside.enclave == id));
        match inside {
            Some(lp) => {
                self.plan.push_back(Step::MapAll { secs });
                lp
            }
            None => self.go_in(secs, id),
        }
    }

    pub(crate) fn touch(&mut self, lp: usize, gadget: Gadget, la: u64) {
        self.plan.push_back(Step::Memory { lp, gadget, la, user: true });
    }

    /// Stores secrets, loads them.
    pub(crate) fn visit(&mut self, secs: usize, id: Id) {
        let lp = self.at_home(secs, id);
        let base = self.model.enclaves[&id].base;
        for _ in 0..4 {
            let page = self.rng.pick(&[P_DATA, P_RWX, P_DATA, P_RO, P_X]);
            let la = base + page * PAGE + 0xa00 + self.rng.below(100) * 8;
            let gadget = self.rng.pick(&[Gadget::Store64, Gadget::Load64, Gadget::VStore, Gadget::Xadd]);
            self.touch(lp, gadget, la);
        }
        for _ in 0..self.rng.below(3) {
            let la = base + P_RWX * PAGE + 0xd00 + self.rng.below(3) * 8;
            self.plan.push_back(Step::Patch { lp, la, value: self.rng.below(1 << 16) as u32 });
            self.plan.push_back(Step::Jump { lp, la });
        }
        let la = base + self.rng.pick(&[P_CODE, P_RWX, P_X, P_RO, P_DATA]) * PAGE;
        self.plan.push_back(Step::Jump { lp, la });
    }

    /// A child page of an enclave.
    pub(crate) fn child(&mut self, id: Id) -> Option<usize> {
        let own = |n: &usize| self.model.pages[*n].kind.is_child() && self.model.pages[*n].owner == Some(id);
        let all: Vec<usize> = (0..self.model.pages.len()).filter(own).collect();
        (!all.is_empty()).then(|| self.rng.pick(&all))
    }

    pub(crate) fn kick(&mut self) {
        for lp in 0..PROCESSORS {
            if !self.rng.one_in(6) {
                self.plan.push_back(Step::Interrupt { lp });
            }
        }
    }

    /// Evicts a page.
    pub(crate) fn reclaim(&mut self, secs: usize, id: Id) {
        let Some(page) = self.child(id) else { return };
        let vas = self.of_kind(Kind::Va);
        let Some(&va) = vas.first() else {
            if let Some(&page) = self.free_pages().first() {
                self.plan.push_back(Self::leaf_step(Encls::Epa { page }));
            }
            return;
        };
        let empty = self.model.pages[va].slots.iter().position(|&slot| slot == 0);
        let slot = if self.rng.one_in(8) { 0 } else { empty.unwrap_or(0) };
        let place = self.free_place();
        let la = self.model.pages[page].la;
        self.plan.push_back(Step::Map { la, entry: 0 });
        self.plan.push_back(Self::leaf_step(Encls::Eblock { page }));
        self.plan.push_back(Self::leaf_step(Encls::Etrack { secs }));
        self.kick();
        self.plan.push_back(Self::leaf_step(Encls::Ewb { page, va, slot, place }));
        if self.rng.one_in(2) {
            self.plan.push_back(Step::MapAll { secs });
        }
    }

    /// A place in memory that no page is waiting in.
    pub(crate) fn free_place(&mut self) -> u64 {
        self.rng.below(SWAPS)
    }

    /// Loads an evicted page: the right one mostly, or an older version of it.
    pub(crate) fn reload(&mut self) {
        let records = self.model.evicted.len();
        if records == 0 {
            return;
        }
        let record = records - 1 - self.rng.below(records.min(12) as u64) as usize;
        let evicted = &self.model.evicted[record];
        let (version, owner, la) = (evicted.version, evicted.page.owner, evicted.la);
        let is_child = evicted.page.kind.is_child();
        // Another page that was at the same place in an enclave, of whatever version.
        let rivals: Vec<usize> = (0..records)
            .filter(|&n| {
                n != record && self.model.evicted[n].la == la && self.model.evicted[n].page.kind.is_child()
            })
            .collect();
        let replayed = if self.rng.one_in(5) && !rivals.is_empty() { self.rng.pick(&rivals) } else { record };
        let holds = |n: &usize| self.model.pages[*n].slots.contains(&version);
        let Some(va) = (0..self.model.pages.len()).find(holds) else { return };
        let slot = self.model.pages[va].slots.iter().position(|&v| v == version).unwrap_or(0);
        let Some(&target) = self.free_pages().first() else { return };
        let mut secs = owner.filter(|_| is_child).and_then(|id| self.model.enclaves[&id].secs);
        if self.rng.one_in(6) && is_child {
            secs = self.of_kind(Kind::Secs).first().copied();
        }
        let place = self.rng.below(SWAPS);
        self.plan.push_back(Step::Replay { place, record: replayed });
        if self.rng.one_in(5) {
            let at = self.rng.pick(&[0, 1, 100, PAGE, PAGE + 1, PAGE + 112, PAGE + 129]);
            self.plan.push_back(Step::Tamper { place, at, bit: self.rng.below(8) as u8 });
        }
        let load = Load { target, secs, va, slot, place, blocked: self.rng.one_in(4), coded: false };
        self.plan.push_back(Self::leaf_step(Encls::Eld { load }));
        if self.rng.one_in(3) {
            // Once more.
            let target = self.free_pages().last().copied().unwrap_or(target);
            self.plan.push_back(Self::leaf_step(Encls::Eld { load: Load { target, ..load } }));
        }
        if let Some(id) = owner
            && let Some(secs) = self.model.enclaves[&id].secs
        {
            self.visit(secs, id);
        }
    }

    pub(crate) fn at(&self, id: Id, la: u64) -> Option<usize> {
        (0..self.model.pages.len()).find(|&n| {
            let page = &self.model.pages[n];
            page.kind.is_child() && page.owner == Some(id) && page.la == la
        })
    }
}
