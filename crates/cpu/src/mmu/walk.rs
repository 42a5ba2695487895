//! The page walk: 4-level paging (*SDM vol. 3A §4.5*), A and D bits (*§4.8*),
//! access rights (*§4.6*) and error codes (*§4.7*).

use arch::paging::{PAGE_MASK, pf, pte};
use arch::regs::{Cr0, Cr4, Efer};
use mem::Ram;
use mem::raw::Width;

/// What a translation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write, or the read half of a read-modify-write.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// With which rights an access is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rights {
    /// A user-mode access (CPL 3).
    User = 0,
    /// A supervisor-mode access that SMAP applies to: explicit with
    /// RFLAGS.AC = 0, or implicit (descriptor tables, TSS).
    Supervisor = 1,
    /// An explicit supervisor-mode access with RFLAGS.AC = 1.
    SupervisorAc = 2,
}

/// A finished walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Physical address of the byte asked for.
    pub gpa: u64,
    /// Writes are allowed with the rights of the walk.
    pub writable: bool,
    /// The dirty flag is set.
    pub dirty: bool,
    /// The translation is global.
    pub global: bool,
    /// Mapped by a 2 MiB or 1 GiB page.
    pub large: bool,
}

/// Control state a walk depends on.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// CR0.
    pub cr0: Cr0,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
    /// Bits of a physical address the model has (MAXPHYADDR).
    pub phys_bits: u32,
    /// The EPC: first byte and size. Tables there read as all ones.
    pub epc: (u64, u64),
}

impl Paging {
    /// Translates canonical linear address `la`, setting A and D as silicon
    /// does; on failure returns the page-fault error code.
    pub fn walk(&self, ram: &Ram, la: u64, access: Access, rights: Rights) -> Result<Leaf, u32> {
        if !self.cr0.contains(Cr0::PG) {
            return Ok(Leaf { gpa: la, writable: true, dirty: true, global: false, large: false });
        }
        let user = rights == Rights::User;
        let nxe = self.efer.contains(Efer::NXE);
        let code = self.code(access, user);
        let address = ((1u64 << self.phys_bits) - 1) & PAGE_MASK;
        // Bits above MAXPHYADDR up to 51 are reserved in every entry; XD is
        // reserved unless EFER.NXE; bits 52–62 are ignored.
        let reserved = (((1u64 << 52) - 1) & PAGE_MASK & !address) | if nxe { 0 } else { pte::NX };

        let mut table = self.cr3 & address;
        let mut rights_u = true;
        let mut rights_w = true;
        let mut nx = false;
        let mut shift = 39;
        loop {
            let at = table + (la >> shift & 0x1ff) * 8;
            let mut entry = self.read_entry(ram, at);
            loop {
                if entry & pte::P == 0 {
                    return Err(code);
                }
                let leaf = shift == 12 || entry & pte::PS != 0 && shift <= 30;
                let mut bad = entry & reserved != 0 || (shift == 39 && entry & pte::PS != 0);
                if leaf && shift > 12 {
                    // Between PAT (bit 12) and the frame nothing may be set.
                    bad |= entry & (((1u64 << shift) - 1) & !0x1fff) != 0;
                }
                if bad {
                    return Err(code | pf::P | pf::RSVD);
                }
                let (u, w, x) = (
                    rights_u && entry & pte::U != 0,
                    rights_w && entry & pte::W != 0,
                    nx || entry & pte::NX != 0,
                );
                let writable = w || !user && !self.cr0.contains(Cr0::WP);
                if leaf && !self.allowed(access, rights, u, writable, x) {
                    return Err(code | pf::P);
                }
                let mut set = pte::A;
                if leaf && access == Access::Write {
                    set |= pte::D;
                }
                if entry & set != set {
                    match update_entry(ram, at, entry, entry | set) {
                        Ok(()) => entry |= set,
                        // Another processor changed the entry: look again.
                        Err(now) => {
                            entry = now;
                            continue;
                        }
                    }
                }
                if leaf {
                    let mask = (1u64 << shift) - 1;
                    return Ok(Leaf {
                        gpa: (entry & address & !mask) | la & mask,
                        writable: self.allowed(Access::Write, rights, u, writable, x),
                        dirty: entry & pte::D != 0,
                        global: entry & pte::G != 0 && self.cr4.contains(Cr4::PGE),
                        large: shift > 12,
                    });
                }
                (rights_u, rights_w, nx) = (u, w, x);
                break;
            }
            table = entry & address;
            shift -= 9;
        }
    }

    /// The error code's bits that say what kind of access it was.
    pub(super) fn code(&self, access: Access, user: bool) -> u32 {
        let nxe = self.efer.contains(Efer::NXE);
        let mut code = if user { pf::U } else { 0 };
        match access {
            Access::Read => {}
            Access::Write => code |= pf::W,
            // I/D is reported only if XD or SMEP is in use.
            Access::Fetch if nxe || self.cr4.contains(Cr4::SMEP) => code |= pf::I,
            Access::Fetch => {}
        }
        code
    }

    /// A table entry; all ones are not what lies beyond RAM, but not present.
    /// The EPC reads as ones whatever mode the processor is in (*SDM vol. 3D,
    /// "Access Control Requirements"*), which sets reserved bits.
    fn read_entry(&self, ram: &Ram, at: u64) -> u64 {
        match ram.page(at) {
            // SAFETY: `page` vouches for the page; `at` is 8-aligned, so the
            // entry does not leave it.
            Some(page) => unsafe { u64::load(page.add((at & 0xfff) as usize)) },
            None if at.wrapping_sub(self.epc.0) < self.epc.1 && !sgx::planted!(WalkInEpc) => u64::MAX,
            None => 0,
        }
    }

    /// Access rights of *SDM vol. 3A §4.6.1*: `u`, `writable`, `nx` of the translation.
    fn allowed(&self, access: Access, rights: Rights, u: bool, writable: bool, nx: bool) -> bool {
        match (access, rights) {
            (_, Rights::User) if !u => false,
            (Access::Fetch, Rights::User) => !nx,
            (Access::Fetch, _) => !(nx || u && self.cr4.contains(Cr4::SMEP)),
            (_, Rights::Supervisor) if u && self.cr4.contains(Cr4::SMAP) => false,
            (Access::Read, _) => true,
            (Access::Write, _) => writable,
        }
    }
}

/// Sets accessed or dirty flags by a locked update, as processors do; gives
/// the entry's present value if it is no longer `old`.
fn update_entry(ram: &Ram, at: u64, old: u64, new: u64) -> Result<(), u64> {
    let Some(page) = ram.page(at) else { return Ok(()) };
    // SAFETY: as in `read_entry`.
    let found = unsafe { u64::compare_exchange(page.add((at & 0xfff) as usize), old, new) };
    if found != old {
        return Err(found);
    }
    ram.code().written(at, 8);
    Ok(())
}
