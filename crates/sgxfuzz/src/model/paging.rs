//! ENCLS, the leaves that move pages out of the EPC and back, and tracking (*SDM vol.
//! 3D*, each leaf's own section).

use super::{Answer, GP, Id, Kind, Model, Page, window};

/// A page outside the EPC, as EWB has left it in memory.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Evicted {
    /// What is in memory: content, PCMD, and LINADDR of PAGEINFO.
    pub bytes: Vec<u8>,
    pub pcmd: Vec<u8>,
    pub la: u64,
    /// Its version, and the key it was written under.
    pub version: u64,
    pub key: u64,
    /// The page itself.
    pub page: Page,
}

/// Operands of the ELD leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Load {
    pub target: usize,
    /// PAGEINFO.SECS, if it is not zero.
    pub secs: Option<usize>,
    pub va: usize,
    pub slot: usize,
    /// Place of the evicted page in memory.
    pub place: u64,
    pub blocked: bool,
    /// ELDBC, ELDUC: conflicts are told by a code.
    pub coded: bool,
}

fn pf(page: usize) -> Answer {
    Answer::PageFault(window(page), true)
}

impl Model {
    /// EBLOCK.
    pub fn eblock(&mut self, number: usize) -> Answer {
        let cycle = self.enclave_of(number).map(|enclave| enclave.cycle);
        let page = &mut self.pages[number];
        match page.kind {
            Kind::Free => return Answer::Code(6),
            Kind::Secs => return Answer::Code(18),
            Kind::Va => return Answer::Code(5),
            _ if page.blocked => return Answer::Code(3),
            _ => {}
        }
        (page.blocked, page.cycle) = (true, cycle.expect("a page has an enclave"));
        Answer::Code(0)
    }

    fn begin_cycle(&mut self, id: Id) -> Answer {
        let cycle = self.enclaves[&id].cycle;
        if self.threads(id).any(|inside| inside.cycle < cycle) {
            return Answer::Code(17);
        }
        self.enclaves.get_mut(&id).expect("it is there").cycle += 1;
        Answer::Code(0)
    }

    /// ETRACK.
    pub fn etrack(&mut self, secs: usize) -> Answer {
        match self.secs(secs) {
            Some(id) => self.begin_cycle(id),
            None => pf(secs),
        }
    }

    /// ETRACKC.
    pub fn etrackc(&mut self, number: usize) -> Answer {
        match (self.pages[number].kind, self.pages[number].owner) {
            (Kind::Free, _) => Answer::Code(6),
            (_, Some(id)) => self.begin_cycle(id),
            _ => Answer::Code(27),
        }
    }

    /// EWB; success leaves the page in [`Model::evicted`], without the bytes in memory.
    pub fn ewb(&mut self, number: usize, va: usize, slot: usize) -> Answer {
        if number == va {
            return GP;
        }
        let page = &self.pages[number];
        if page.kind == Kind::Free {
            return pf(number);
        }
        if self.pages[va].kind != Kind::Va {
            return Answer::PageFault(window(va) + slot as u64 * 8, true);
        }
        match (page.kind, page.owner) {
            (Kind::Secs, Some(id)) => {
                if self.children(id) != 0 {
                    return Answer::Code(13);
                }
                self.enclaves.get_mut(&id).expect("a SECS has an enclave").secs = None;
            }
            (_, Some(id)) => {
                if !page.blocked {
                    return Answer::Code(10);
                }
                if !self.tracked(id, page.cycle) {
                    return Answer::Code(11);
                }
            }
            _ => {}
        }
        self.next_version += 1;
        let page = std::mem::replace(&mut self.pages[number], Page::free());
        let (la, version, key) = (page.la, self.next_version, self.key);
        self.evicted.push(Evicted { bytes: Vec::new(), pcmd: Vec::new(), la, version, key, page });
        let old = std::mem::replace(&mut self.pages[va].slots[slot], self.next_version);
        Answer::Code(if old == 0 { 0 } else { 12 })
    }

    /// The ELD leaves, of what memory holds: content, PCMD and LINADDR.
    pub fn eld(&mut self, load: &Load, bytes: &[u8], pcmd: &[u8], la: u64) -> Answer {
        let conflict = if load.coded { Answer::Code(7) } else { GP };
        if load.target == load.va {
            return conflict;
        }
        if self.pages[load.target].kind != Kind::Free {
            return pf(load.target);
        }
        if self.pages[load.va].kind != Kind::Va {
            return Answer::PageFault(window(load.va) + load.slot as u64 * 8, true);
        }
        // The type that memory claims decides whether a SECS is needed.
        let mut owner = None;
        if matches!(pcmd[1], 1 | 2 | 4) {
            match load.secs {
                // Linear address 0 is RAM.
                None => return Answer::PageFault(0, false),
                Some(secs) if secs == load.target => return conflict,
                Some(secs) => match self.secs(secs) {
                    Some(id) => owner = Some(id),
                    None => return pf(secs),
                },
            }
        } else if load.secs.is_some() {
            return GP;
        }
        let version = self.pages[load.va].slots[load.slot];
        let found = self.evicted.iter().find(|evicted| {
            evicted.version == version
                && evicted.key == self.key
                && evicted.bytes == bytes
                && evicted.pcmd == *pcmd
                && evicted.la == la
                && (!evicted.page.kind.is_child() || evicted.page.owner == owner)
        });
        let Some(found) = found else { return Answer::Code(9) };
        let mut page = found.page.clone();
        self.pages[load.va].slots[load.slot] = 0;
        page.blocked = false;
        if page.kind.is_child() {
            page.blocked = load.blocked;
            page.cycle = owner.map_or(0, |id| self.enclaves[&id].cycle);
        }
        if let (Kind::Secs, Some(id)) = (page.kind, page.owner) {
            let enclave = self.enclaves.get_mut(&id).expect("a SECS has an enclave");
            (enclave.secs, enclave.cycle) = (Some(load.target), 0);
        }
        self.pages[load.target] = page;
        Answer::Code(0)
    }

    /// EUPDATESVN, without an update: a new paging key all the same.
    pub fn eupdatesvn(&mut self) -> Answer {
        if self.pages.iter().any(|page| page.kind != Kind::Free) {
            return Answer::Code(30);
        }
        self.key += 1;
        Answer::Code(31)
    }
}
