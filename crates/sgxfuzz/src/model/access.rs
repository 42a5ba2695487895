//! Access control (*SDM vol. 3D, "Access-control Requirements"*).

use mem::Ram;

use super::walk::{error, kind_bits, walk};
use super::{Cached, Kind, Model};
use crate::layout::*;

/// Kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Read,
    Write,
    Fetch,
}

/// Where an access goes that does not fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// RAM, at a physical address.
    Ram(u64),
    /// An EPC page's content, at an offset.
    Epc(usize, usize),
    /// Nothing: reads give ones, writes are dropped.
    Ones,
}

/// One way in which an access may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It goes on.
    To(Place),
    /// A page fault with that error code.
    PageFault(u32),
    /// `#GP(0)`.
    Protection,
}

impl Model {
    /// What becomes of an access that paging leads to `physical`.
    fn judge(&self, lp: usize, la: u64, physical: u64, access: Access, user: bool) -> Way {
        let page = self.epc_page(physical);
        let elsewhere = match page {
            Some(_) => Way::To(Place::Ones),
            None if physical < RAM_BYTES => Way::To(Place::Ram(physical)),
            None => Way::To(Place::Ones),
        };
        let Some(inside) = &self.inside[lp] else { return elsewhere };
        let enclave = &self.enclaves[&inside.enclave];
        if !enclave.has(la) {
            return if access == Access::Fetch { Way::Protection } else { elsewhere };
        }
        let refused = Way::PageFault(error::P | error::SGX | kind_bits(access, user));
        let Some(number) = page else { return refused };
        let page = &self.pages[number];
        let permitted = match access {
            Access::Read => page.r,
            Access::Write => page.w,
            Access::Fetch => page.x,
        };
        let good = page.kind == Kind::Reg
            && page.owner == Some(inside.enclave)
            && page.la == la & !0xfff
            && !page.pending
            && !page.modified
            && !page.blocked
            && permitted;
        if good { Way::To(Place::Epc(number, (la & 0xfff) as usize)) } else { refused }
    }

    /// The ways in which an access to bytes of one page may go: as paging and the EPCM
    /// are now, or, inside, by a translation made since the entry.
    pub fn ways(&self, ram: &Ram, lp: usize, la: u64, access: Access, user: bool) -> Vec<Way> {
        let now = match walk(ram, la, access, user) {
            Ok(physical) => self.judge(lp, la, physical, access, user),
            // A fetch from outside ELRANGE is a matter of the address alone, but paging
            // comes first.
            Err(code) => Way::PageFault(code),
        };
        let mut ways = vec![now];
        let Some(inside) = &self.inside[lp] else { return ways };
        for cached in inside.cache.iter().filter(|c| c.la == la & !0xfff) {
            let fits = match access {
                Access::Read => cached.kind != Access::Fetch,
                other => cached.kind == other,
            };
            if fits {
                let physical = cached.physical | la & 0xfff;
                let place = match self.epc_page(physical) {
                    Some(page) if self.enclaves[&inside.enclave].has(la) => {
                        Place::Epc(page, (la & 0xfff) as usize)
                    }
                    Some(_) => Place::Ones,
                    None if physical < RAM_BYTES => Place::Ram(physical),
                    None => Place::Ones,
                };
                if !ways.contains(&Way::To(place)) {
                    ways.push(Way::To(place));
                }
            }
        }
        ways
    }

    /// Notes the translations that an access may have left behind. An entry made by a
    /// read allows writes too, where paging and the EPCM would.
    pub fn note(&mut self, ram: &Ram, lp: usize, la: u64, access: Access) {
        let Ok(physical) = walk(ram, la, access, true) else { return };
        if !matches!(self.judge(lp, la, physical, access, true), Way::To(_)) {
            return;
        }
        let mut kinds = vec![access];
        if access == Access::Read
            && walk(ram, la, Access::Write, true) == Ok(physical)
            && matches!(self.judge(lp, la, physical, Access::Write, true), Way::To(_))
        {
            kinds.push(Access::Write);
        }
        let Some(inside) = &mut self.inside[lp] else { return };
        for kind in kinds {
            let cached = Cached { la: la & !0xfff, physical: physical & !0xfff, kind };
            if !inside.cache.contains(&cached) {
                inside.cache.push(cached);
            }
        }
    }
}
