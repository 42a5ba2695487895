//! Protected mode without IA-32e mode: a [`World`] whose first processor
//! starts in 32-bit code at CPL 0, with 32-bit descriptors, a 32-bit TSS and
//! the paging mode that the test wants.

use arch::descriptor::{Attr, Descriptor};
use arch::paging::pte;
use arch::regs::{Cr0, Cr4, Efer, Seg, gpr};
use cpu::mmu::walk::PagingMode;
use cpu::state::{Segment, TableRegister};

use crate::{CODE, GDT, IDT, RAM, STACK, STUBS, TSS, USER_STACK, World};

/// As [`crate::guest!`], for 32-bit code.
#[macro_export]
macro_rules! guest32 {
    ($name:ident, $($line:literal),+ $(,)?) => {
        $crate::guest!($name, ".code32", $($line,)+ ".code64");
    };
}

/// As [`crate::guest!`], for 16-bit code.
#[macro_export]
macro_rules! guest16 {
    ($name:ident, $($line:literal),+ $(,)?) => {
        $crate::guest!($name, ".code16", $($line,)+ ".code64");
    };
}

/// Selectors of the GDT; tests add others from [`FREE`](sel::FREE) on.
#[allow(missing_docs)]
pub mod sel {
    pub const KERNEL_CS: u16 = 0x80;
    pub const KERNEL_DS: u16 = 0x88;
    pub const USER_CS: u16 = 0x93;
    pub const USER_DS: u16 = 0x9b;
    pub const CODE16: u16 = 0xa0;
    pub const DATA16: u16 = 0xa8;
    pub const TSS: u16 = 0xb0;
    pub const FREE: u16 = 0xc0;
}

/// Code segment of [`World::real`].
pub const REAL_CS: u16 = 0x1000;
/// Stack segment of [`World::real`].
pub const REAL_SS: u16 = 0x2000;
/// Page directory of 32-bit paging; with PAE paging, page-directory-pointer table.
pub const ROOT: u64 = 0x60_0000;
/// Tables below it, a page each.
const TABLES: u64 = 0x60_1000;

/// A task gate, call gate, interrupt gate or trap gate (*SDM vol. 3A §5.8.3,
/// §6.11*); `count` is the number of parameters.
pub fn gate(kind: u64, dpl: u64, selector: u16, offset: u64, count: u64) -> u64 {
    offset & 0xffff
        | u64::from(selector) << 16
        | count << 32
        | kind << 40
        | dpl << 45
        | 1 << 47
        | (offset >> 16 & 0xffff) << 48
}

/// Gate types (*SDM vol. 3A table 3-2*).
#[allow(missing_docs)]
pub mod kind {
    pub const CALL16: u64 = 4;
    pub const TASK: u64 = 5;
    pub const INTERRUPT16: u64 = 6;
    pub const TRAP16: u64 = 7;
    pub const CALL32: u64 = 12;
    pub const INTERRUPT32: u64 = 14;
    pub const TRAP32: u64 = 15;
}

impl World {
    /// One processor at CPL 0 in 32-bit code at [`CODE`], with `paging`, whose
    /// tables map all of RAM to itself for everyone.
    pub fn legacy(code: &[u8], paging: PagingMode) -> World {
        let mut world = World::new(code);
        world.legacy_descriptors();
        let s = &mut world.cpu().s;
        let data = Segment { selector: sel::KERNEL_DS, attr: Attr::DATA, limit: u32::MAX, base: 0 };
        s.seg = [data; 6];
        s.seg[Seg::Cs as usize] =
            Segment { selector: sel::KERNEL_CS, attr: Attr(0x00c0_9b00), limit: u32::MAX, base: 0 };
        s.tr = Segment { selector: sel::TSS, attr: Attr::TSS_BUSY, limit: 0x67, base: TSS };
        s.gdtr = TableRegister { base: GDT, limit: 0x7ff };
        s.idtr = TableRegister { base: IDT, limit: 0x7ff };
        s.cr0 = Cr0::PE | Cr0::ET | Cr0::NE | Cr0::WP | Cr0::MP;
        s.cr4 = Cr4::OSFXSR | Cr4::OSXMMEXCPT;
        s.efer = Efer::empty();
        s.cr3 = ROOT;
        s.rip = CODE;
        s.regs.set(gpr::RSP, STACK);
        match paging {
            PagingMode::None => {}
            PagingMode::Bits32 => {
                s.cr0 |= Cr0::PG;
                s.cr4 |= Cr4::PSE;
            }
            _ => {
                s.cr0 |= Cr0::PG;
                s.cr4 |= Cr4::PAE;
                s.efer = Efer::NXE;
                s.pdpte = [TABLES | pte::P, 0, 0, 0];
            }
        }
        world.legacy_tables(paging);
        world.cpu().state_changed();
        world
    }

    /// One processor in real-address mode in 16-bit code at [`REAL_CS`]:0, its
    /// stack in the 64 KiB at [`REAL_SS`], interrupt vectors at 0.
    pub fn real(code: &[u8]) -> World {
        let mut world = World::legacy(code, PagingMode::None);
        for n in 0..256u64 {
            world.write32(n * 4, (STUBS + n * 16) as u32);
        }
        world.write(u64::from(REAL_CS) << 4, code);
        let segment = |selector: u16, attr: u32| Segment {
            selector,
            attr: Attr(attr),
            limit: 0xffff,
            base: u64::from(selector) << 4,
        };
        let s = &mut world.cpu().s;
        s.seg = [segment(0, 0x9300); 6];
        s.seg[Seg::Cs as usize] = segment(REAL_CS, 0x9b00);
        s.seg[Seg::Ss as usize] = segment(REAL_SS, 0x9300);
        s.idtr = TableRegister { base: 0, limit: 0x3ff };
        s.cr0 = Cr0::ET;
        s.cr4 = Cr4::empty();
        s.rip = 0;
        s.regs.set(gpr::RSP, 0x1000);
        world.cpu().state_changed();
        world
    }

    fn legacy_descriptors(&mut self) {
        for n in 0..256u64 {
            self.gate32(n as u8, gate(kind::INTERRUPT32, 0, sel::KERNEL_CS, STUBS + n * 16, 0));
        }
        let gdt = [
            (sel::KERNEL_CS, 0x00cf_9b00_0000_ffff_u64),
            (sel::KERNEL_DS, 0x00cf_9300_0000_ffff),
            (sel::USER_CS, 0x00cf_fb00_0000_ffff),
            (sel::USER_DS, 0x00cf_f300_0000_ffff),
            (sel::CODE16, 0x0000_9b00_0000_ffff),
            (sel::DATA16, 0x0000_9300_0000_ffff),
            (sel::TSS, 0x0000_8b00_7800_0067),
        ];
        for (selector, descriptor) in gdt {
            self.descriptor(selector, descriptor);
        }
        self.write(TSS, &[0; 0x68]);
        self.write64(TSS + 4, STACK | u64::from(sel::KERNEL_DS) << 32);
    }

    fn legacy_tables(&mut self, paging: PagingMode) {
        let flags = pte::P | pte::W | pte::U;
        match paging {
            PagingMode::Bits32 => {
                for page in 0..RAM >> 12 {
                    self.write32(TABLES + page * 4, (page << 12 | flags) as u32);
                }
                for table in 0..RAM >> 22 {
                    self.write32(ROOT + table * 4, ((TABLES + table * 0x1000) | flags) as u32);
                }
            }
            PagingMode::Pae => {
                self.write64(ROOT, TABLES | pte::P);
                for table in 0..RAM >> 21 {
                    self.write64(TABLES + table * 8, (TABLES + (table + 1) * 0x1000) | flags);
                }
                for page in 0..RAM >> 12 {
                    self.write64(TABLES + 0x1000 + page * 8, page << 12 | flags);
                }
            }
            _ => {}
        }
    }

    /// Physical address of the entry that maps the page of `la`.
    pub fn legacy_pte(paging: PagingMode, la: u64) -> u64 {
        match paging {
            PagingMode::Bits32 => TABLES + (la >> 12) * 4,
            _ => TABLES + 0x1000 + (la >> 12) * 8,
        }
    }

    /// Physical address of the entry above it, in a page directory.
    pub fn legacy_pde(paging: PagingMode, la: u64) -> u64 {
        match paging {
            PagingMode::Bits32 => ROOT + (la >> 22) * 4,
            _ => TABLES + (la >> 21) * 8,
        }
    }

    /// Writes a page-table entry, 4 or 8 bytes as the mode has them.
    pub fn write_entry(&self, paging: PagingMode, at: u64, value: u64) {
        match paging {
            PagingMode::Bits32 => self.write32(at, value as u32),
            _ => self.write64(at, value),
        }
    }

    /// Reads one.
    pub fn read_entry(&self, paging: PagingMode, at: u64) -> u64 {
        match paging {
            PagingMode::Bits32 => u64::from(self.read32(at)),
            _ => self.read64(at),
        }
    }

    /// Writes a descriptor of the GDT.
    pub fn descriptor(&self, selector: u16, value: u64) {
        self.write64(GDT + u64::from(selector & !7), value);
    }

    /// Writes a segment descriptor with base and limit; `attr` as in [`Attr`].
    pub fn segment(&self, selector: u16, base: u32, limit: u32, attr: u32) {
        self.descriptor(selector, Descriptor::new(base, limit, Attr(attr)).0);
    }

    /// Writes an eight-byte gate of the IDT.
    pub fn gate32(&self, vector: u8, gate: u64) {
        self.write64(IDT + u64::from(vector) * 8, gate);
    }

    /// Makes the first processor start in 32-bit user mode.
    pub fn legacy_user(&mut self) -> &mut Self {
        let s = &mut self.cpu().s;
        let data = Segment { selector: sel::USER_DS, attr: Attr(0x00c0_f300), limit: u32::MAX, base: 0 };
        s.seg = [data; 6];
        s.seg[Seg::Cs as usize] =
            Segment { selector: sel::USER_CS, attr: Attr(0x00c0_fb00), limit: u32::MAX, base: 0 };
        s.cpl = 3;
        s.regs.set(gpr::RSP, USER_STACK);
        self.cpu().state_changed();
        self
    }

    /// Writes a doubleword of RAM.
    pub fn write32(&self, gpa: u64, value: u32) {
        self.write(gpa, &value.to_le_bytes());
    }

    /// Reads a doubleword of RAM.
    pub fn read32(&self, gpa: u64) -> u32 {
        self.read64(gpa) as u32
    }

    /// Doubleword `n` of the frame on the current stack (0: error code or EIP).
    pub fn frame32(&mut self, n: u64) -> u32 {
        let s = &self.cpu().s;
        let sp = s.regs.get(gpr::RSP) & if s.seg[Seg::Ss as usize].attr.big() { 0xffff_ffff } else { 0xffff };
        let at = s.seg[Seg::Ss as usize].base + sp + 4 * n;
        self.read32(at)
    }

    /// Word `n` likewise.
    pub fn frame16(&mut self, n: u64) -> u16 {
        let s = &self.cpu().s;
        let sp = s.regs.get(gpr::RSP) & if s.seg[Seg::Ss as usize].attr.big() { 0xffff_ffff } else { 0xffff };
        let at = s.seg[Seg::Ss as usize].base + sp + 2 * n;
        self.read32(at) as u16
    }
}
