//! The page walk: 32-bit, PAE and 4-level paging (*SDM vol. 3A §4.3–4.5*), A and
//! D bits (*§4.8*), access rights (*§4.6*) and error codes (*§4.7*).

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
    /// Mapped by a page of more than 4 KiB.
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
    /// The page-directory-pointer registers of PAE paging.
    pub pdpte: [u64; 4],
    /// Bits of a physical address the model has (MAXPHYADDR).
    pub phys_bits: u32,
    /// The EPC: first byte and size. Tables there read as all ones.
    pub epc: (u64, u64),
}

/// The paging modes (*SDM vol. 3A §4.1.1*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingMode {
    /// CR0.PG clear: linear addresses are physical.
    None,
    /// 32-bit paging (*§4.3*).
    Bits32,
    /// PAE paging (*§4.4*).
    Pae,
    /// 4-level paging (*§4.5*).
    Level4,
}

impl PagingMode {
    /// The mode that these registers name.
    pub fn of(cr0: Cr0, cr4: Cr4, efer: Efer) -> PagingMode {
        if !cr0.contains(Cr0::PG) {
            PagingMode::None
        } else if !cr4.contains(Cr4::PAE) {
            PagingMode::Bits32
        } else if efer.contains(Efer::LME) {
            PagingMode::Level4
        } else {
            PagingMode::Pae
        }
    }

    /// log2 of the bytes of an entry.
    fn entry_shift(self) -> u32 {
        if self == PagingMode::Bits32 { 2 } else { 3 }
    }

    /// Linear-address bits that index a table: one page of entries.
    fn index_bits(self) -> u32 {
        12 - self.entry_shift()
    }
}

/// A table to go on in: where, and the lowest bit of the linear address that
/// indexes it.
#[derive(Clone, Copy)]
struct Table {
    at: u64,
    shift: u32,
}

impl Paging {
    fn mode(&self) -> PagingMode {
        PagingMode::of(self.cr0, self.cr4, self.efer)
    }

    /// Bits 51:12 of what the model has of a physical address.
    fn address(&self) -> u64 {
        ((1u64 << self.phys_bits) - 1) & PAGE_MASK
    }

    /// XD exists and is not reserved.
    fn nxe(&self) -> bool {
        self.efer.contains(Efer::NXE) && self.cr4.contains(Cr4::PAE)
    }

    /// The table that a walk begins in; `None` if PAE's register for `la` has P clear.
    fn root(&self, mode: PagingMode, la: u64) -> Option<Table> {
        match mode {
            PagingMode::None | PagingMode::Level4 => Some(Table { at: self.cr3 & self.address(), shift: 39 }),
            PagingMode::Bits32 => Some(Table { at: self.cr3 & 0xffff_f000, shift: 22 }),
            PagingMode::Pae => {
                let pdpte = self.pdpte[(la >> 30 & 3) as usize];
                (pdpte & pte::P != 0).then_some(Table { at: pdpte & self.address(), shift: 21 })
            }
        }
    }

    /// Physical address of the entry for `la` in a table.
    fn entry_at(mode: PagingMode, table: Table, la: u64) -> u64 {
        let index = la >> table.shift & ((1 << mode.index_bits()) - 1);
        table.at + (index << mode.entry_shift())
    }

    /// True if a present entry maps a page rather than naming a table. PS in a
    /// PML4E is reserved, and without CR4.PSE ignored in 32-bit paging.
    fn is_leaf(&self, mode: PagingMode, shift: u32, entry: u64) -> bool {
        shift == 12
            || entry & pte::PS != 0
                && match mode {
                    PagingMode::Bits32 => self.cr4.contains(Cr4::PSE),
                    _ => shift <= 30,
                }
    }

    /// True if a present entry has reserved bits set (*tables 4-4 to 4-6, 4-9
    /// to 4-11, 4-15 to 4-20*).
    fn is_reserved(&self, mode: PagingMode, shift: u32, entry: u64, leaf: bool) -> bool {
        let below = |bits: u32| (1u64 << bits) - 1;
        let large = leaf && shift > 12;
        if mode == PagingMode::Bits32 {
            // Of a 4 MiB page: bits 21:13 that are not of the address (PSE-36).
            return large && entry & below(22) & !below(13 + self.pse36_bits()) != 0;
        }
        // Bits above MAXPHYADDR: up to 51, the rest ignored, but in PAE paging up to 62.
        let top = if mode == PagingMode::Pae { 63 } else { 52 };
        let mut reserved = below(top) & !below(self.phys_bits);
        if !self.nxe() {
            reserved |= pte::NX;
        }
        if large {
            // Between PAT (bit 12) and the frame.
            reserved |= below(shift) & !below(13);
        }
        if shift == 39 {
            reserved |= pte::PS;
        }
        entry & reserved != 0
    }

    /// Address bits above 32 that the directory entry of a 4 MiB page has.
    fn pse36_bits(&self) -> u32 {
        self.phys_bits.clamp(32, 40) - 32
    }

    /// Where the leaf `entry` maps `la`.
    fn frame(&self, mode: PagingMode, shift: u32, entry: u64, la: u64) -> u64 {
        let mask = (1u64 << shift) - 1;
        let frame = if mode == PagingMode::Bits32 && shift == 22 {
            entry & 0xffc0_0000 | (entry >> 13 & ((1 << self.pse36_bits()) - 1)) << 32
        } else {
            entry & self.address() & !mask
        };
        frame | la & mask
    }

    /// Translates linear address `la`, setting A and D as silicon does; on
    /// failure returns the page-fault error code. `la` is canonical, and below
    /// 4 GiB outside 4-level paging.
    pub fn walk(&self, ram: &Ram, la: u64, access: Access, rights: Rights) -> Result<Leaf, u32> {
        let mode = self.mode();
        if mode == PagingMode::None {
            return Ok(Leaf { gpa: la, writable: true, dirty: true, global: false, large: false });
        }
        let user = rights == Rights::User;
        let code = self.code(access, user);
        let mut table = self.root(mode, la).ok_or(code)?;
        let mut rights_u = true;
        let mut rights_w = true;
        let mut nx = false;
        loop {
            let at = Self::entry_at(mode, table, la);
            let mut entry = self.read_entry(ram, mode, at);
            loop {
                if entry & pte::P == 0 {
                    return Err(code);
                }
                let shift = table.shift;
                let leaf = self.is_leaf(mode, shift, entry);
                if self.is_reserved(mode, shift, entry, leaf) {
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
                    match update_entry(ram, mode, at, entry, entry | set) {
                        Ok(()) => entry |= set,
                        // Another processor changed the entry: look again.
                        Err(now) => {
                            entry = now;
                            continue;
                        }
                    }
                }
                if leaf {
                    return Ok(Leaf {
                        gpa: self.frame(mode, shift, entry, la),
                        writable: self.allowed(Access::Write, rights, u, writable, x),
                        dirty: entry & pte::D != 0,
                        global: entry & pte::G != 0 && self.cr4.contains(Cr4::PGE),
                        large: shift > 12,
                    });
                }
                (rights_u, rights_w, nx) = (u, w, x);
                break;
            }
            table = Table { at: entry & self.address(), shift: table.shift - mode.index_bits() };
        }
    }

    /// Translates without asking for rights and without setting A and D.
    pub fn peek(&self, ram: &Ram, la: u64) -> Option<u64> {
        let mode = self.mode();
        if mode == PagingMode::None {
            return Some(la);
        }
        let mut table = self.root(mode, la)?;
        loop {
            let entry = self.read_entry(ram, mode, Self::entry_at(mode, table, la));
            if entry & pte::P == 0 {
                return None;
            }
            if self.is_leaf(mode, table.shift, entry) {
                return Some(self.frame(mode, table.shift, entry, la));
            }
            if table.shift == 12 {
                return None;
            }
            table = Table { at: entry & self.address(), shift: table.shift - mode.index_bits() };
        }
    }

    /// What the page-directory-pointer registers become when they are loaded;
    /// `None` if an entry that is present has reserved bits set (*§4.4.1*).
    pub fn read_pdptes(&self, ram: &Ram) -> Option<[u64; 4]> {
        let mut pdpte = [0; 4];
        for (at, entry) in (self.cr3 & 0xffff_ffe0..).step_by(8).zip(&mut pdpte) {
            *entry = self.read_entry(ram, PagingMode::Pae, at);
        }
        pdpte.iter().all(|&entry| self.is_pdpte(entry)).then_some(pdpte)
    }

    /// Whether a page-directory-pointer register can hold that.
    pub fn is_pdpte(&self, entry: u64) -> bool {
        let reserved = !(self.address() | 0xe00 | pte::P | pte::PWT | pte::PCD);
        entry & pte::P == 0 || entry & reserved == 0
    }

    /// The error code's bits that say what kind of access it was.
    pub(super) fn code(&self, access: Access, user: bool) -> u32 {
        let mut code = if user { pf::U } else { 0 };
        match access {
            Access::Read => {}
            Access::Write => code |= pf::W,
            // I/D is reported only if XD or SMEP is in use.
            Access::Fetch if self.nxe() || self.cr4.contains(Cr4::SMEP) => code |= pf::I,
            Access::Fetch => {}
        }
        code
    }

    /// A table entry; all ones are not what lies beyond RAM, but not present.
    /// The EPC reads as ones whatever mode the processor is in (*SDM vol. 3D,
    /// "Access Control Requirements"*), which sets reserved bits.
    fn read_entry(&self, ram: &Ram, mode: PagingMode, at: u64) -> u64 {
        match ram.page(at) {
            // SAFETY: `page` vouches for the page; `at` is a multiple of the
            // entry's size, so the entry does not leave it.
            Some(page) => unsafe {
                let entry = page.add((at & 0xfff) as usize);
                if mode == PagingMode::Bits32 { u32::load(entry).zext() } else { u64::load(entry) }
            },
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
fn update_entry(ram: &Ram, mode: PagingMode, at: u64, old: u64, new: u64) -> Result<(), u64> {
    let Some(page) = ram.page(at) else { return Ok(()) };
    // SAFETY: as in `read_entry`.
    let found = unsafe {
        let entry = page.add((at & 0xfff) as usize);
        if mode == PagingMode::Bits32 {
            u32::compare_exchange(entry, old as u32, new as u32).zext()
        } else {
            u64::compare_exchange(entry, old, new)
        }
    };
    if found != old {
        return Err(found);
    }
    ram.code().written(at, 1 << mode.entry_shift());
    Ok(())
}
