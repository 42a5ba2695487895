//! The one place where a translation is formed. Whatever decides over an
//! access — paging, then the EPC's access control — decides here; the TLB then
//! repeats the answer.

use arch::paging::PAGE_MASK;
use arch::regs::Cr4;
use arch::{Exception, Vector};

use super::tlb::{NO_FAST_PATH, SLOW};
use super::walk::{Access, Leaf, Paging, Rights};
use crate::Cpu;
use crate::epc::{ABORT_PAGE, Target};

/// Where a linear address leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Physical address.
    pub gpa: u64,
    /// Host address of that byte, `None` for a device.
    pub host: Option<*mut u8>,
}

impl Cpu {
    /// Control state of paging.
    pub(crate) fn paging(&self) -> Paging {
        Paging {
            cr0: self.s.cr0,
            cr3: self.s.cr3,
            cr4: self.s.cr4,
            efer: self.s.efer,
            pdpte: self.s.pdpte,
            phys_bits: self.model.phys_bits,
            epc: self.sgx.as_ref().map_or((0, 0), |sgx| (sgx.first, sgx.bytes)),
        }
    }

    /// Rights of explicit data accesses in the current mode.
    #[inline]
    pub(crate) fn rights(&self) -> Rights {
        if self.s.cpl == 3 {
            Rights::User
        } else if self.s.rflags & arch::regs::rflags::AC != 0 || !self.s.cr4.contains(Cr4::SMAP) {
            Rights::SupervisorAc
        } else {
            Rights::Supervisor
        }
    }

    /// To be called when CPL, RFLAGS.AC, CR0.AM or CR4.SMAP have changed.
    #[inline]
    pub fn update_rights(&mut self) {
        let rights = self.rights();
        self.align_check = rights == Rights::User
            && self.s.rflags & arch::regs::rflags::AC != 0
            && self.s.cr0.contains(arch::regs::Cr0::AM);
        self.tlb.set_rights(if self.align_check { NO_FAST_PATH } else { rights as u8 });
    }

    fn page_fault(&mut self, la: u64, code: u32) -> Exception {
        self.fault_addr = la;
        Exception::pf(code)
    }

    /// A page fault at `la` with the bits of `code` and those that say what kind
    /// of access it was.
    pub(crate) fn page_fault_for(&mut self, la: u64, access: Access, rights: Rights, code: u32) -> Exception {
        let kind = self.paging().code(access, rights == Rights::User);
        self.page_fault(la, code | kind)
    }

    /// Walks the page tables for canonical `la`, with their faults and flags.
    pub(crate) fn walk(&mut self, la: u64, access: Access, rights: Rights) -> Result<Leaf, Exception> {
        self.paging().walk(&self.ram, la, access, rights).map_err(|code| self.page_fault(la, code))
    }

    /// Translates a data access within one page, forming the translation if
    /// the TLB does not hold it. `la` is canonical.
    pub(crate) fn translate(&mut self, la: u64, access: Access, rights: Rights) -> Result<Place, Exception> {
        let tag = self.tlb.tag(la);
        let entry = *self.tlb.entry_for(la, rights as u8);
        let found = if access == Access::Write { entry.write } else { entry.read };
        let entry = if found & !SLOW == tag { entry } else { self.fill(la, access, rights)? };
        let gpa = entry.gpa | la & !PAGE_MASK;
        let host = (entry.addend != 0).then(|| entry.addend.wrapping_add(la) as *mut u8);
        Ok(Place { gpa, host })
    }

    fn fill(&mut self, la: u64, access: Access, rights: Rights) -> Result<super::tlb::Entry, Exception> {
        let leaf = self.walk(la, access, rights)?;
        if leaf.large {
            self.tlb.note_large(la);
        }
        // A write to a clean page must come back here to set its dirty flag.
        let mut writable = leaf.writable && leaf.dirty;
        let gpa = leaf.gpa & PAGE_MASK;
        let (gpa, host) = match self.target(la, gpa, access, rights)? {
            Target::Outside => (gpa, self.ram.page(gpa)),
            Target::Epc(page, allowed) => {
                writable &= allowed.contains(sgx::epcm::Flags::W) || sgx::planted!(WriteByTranslation);
                (gpa, Some(self.plaintext(page, la, access, rights)?))
            }
            Target::Abort => (ABORT_PAGE, None),
        };
        let tag = self.tlb.tag(la);
        let (addend, slow) = match host {
            Some(host) => {
                ((host as u64).wrapping_sub(la & PAGE_MASK), self.watched(la) || self.debugger_watches(la))
            }
            None => (0, true),
        };
        let mut entry = super::tlb::Entry { gpa, addend, read: tag | if slow { SLOW } else { 0 }, write: 0 };
        if writable {
            entry.write = entry.read | if self.ram.code().has_code(gpa >> 12) { SLOW } else { 0 };
        }
        *self.tlb.entry_mut(la, rights as u8) = entry;
        // Code may have appeared between the look and the entry; the announcement
        // is then pending for this processor, and the next block boundary deals with it.
        Ok(entry)
    }

    /// Translates an instruction fetch.
    pub(crate) fn translate_fetch(&mut self, la: u64) -> Result<u64, Exception> {
        if !arch::paging::is_canonical(la) {
            return Err(Exception::GP0);
        }
        let user = self.s.cpl == 3;
        if let Some(page) = self.tlb.fetch(la, user) {
            return Ok(page | la & !PAGE_MASK);
        }
        let rights = if user { Rights::User } else { Rights::Supervisor };
        let leaf = self.walk(la, Access::Fetch, rights)?;
        if leaf.large {
            self.tlb.note_large(la);
        }
        let gpa = match self.target(la, leaf.gpa, Access::Fetch, rights)? {
            Target::Abort => ABORT_PAGE | la & !PAGE_MASK,
            Target::Outside | Target::Epc(..) => leaf.gpa,
        };
        self.tlb.fill_fetch(la, user, gpa);
        Ok(gpa)
    }

    /// Translates for the debugger: no faults, no A and D bits, no TLB.
    pub fn debug_translate(&self, la: u64) -> Option<u64> {
        self.paging().peek(&self.ram, la)
    }

    /// True if a data breakpoint lies in the page of `la`.
    pub(crate) fn watched(&self, la: u64) -> bool {
        self.s.dr7 & arch::regs::dr7::ENABLES != 0
            && !self.hides_breakpoint(la)
            && (0..4).any(|i| {
                let length = [1, 2, 8, 4][(self.s.dr7 >> (18 + 4 * i) & 3) as usize];
                self.s.dr7 >> (2 * i) & 3 != 0
                    && self.s.dr7 >> (16 + 4 * i) & 3 != 0
                    && ((self.s.dr[i] ^ la) & PAGE_MASK == 0
                        || (self.s.dr[i].wrapping_add(length - 1) ^ la) & PAGE_MASK == 0)
            })
    }

    /// A non-canonical or out-of-limit address faults by segment: `#SS(0)` or `#GP(0)`.
    #[cold]
    pub(crate) fn segment_fault(seg: u8) -> Exception {
        let vector =
            if seg == arch::regs::Seg::Ss as u8 { Vector::StackFault } else { Vector::GeneralProtection };
        Exception::new(vector, 0)
    }
}
