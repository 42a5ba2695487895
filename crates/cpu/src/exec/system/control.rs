//! Control and debug registers, LMSW, SMSW, CLTS, XCR0 (*SDM vol. 3A §2.5,
//! §2.6, §9.8; vol. 3B §17.2; vol. 2B, MOV—Move to/from Control Registers*).

use arch::Exception;
use arch::descriptor::system_type;
use arch::regs::{Cr0, Cr4, Efer, Xcr0, dr6, dr7, gpr};
use iced_x86::{CpuidFeature, Mnemonic as M};
use mem::raw::Width;

use crate::chain::any;
use crate::decode::Build;
use crate::exec::vector;
use crate::mmu::walk::{Paging, PagingMode};
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};
use crate::{Cpu, Model};

type Ran = Result<Flow, Exception>;

/// CR4 bits that every model has.
const CR4_BASE: Cr4 = Cr4::TSD
    .union(Cr4::DE)
    .union(Cr4::PSE)
    .union(Cr4::PAE)
    .union(Cr4::MCE)
    .union(Cr4::PGE)
    .union(Cr4::PCE)
    .union(Cr4::OSFXSR)
    .union(Cr4::OSXMMEXCPT)
    .union(Cr4::PCIDE)
    .union(Cr4::SMEP);
/// CR4 bits whose change makes translations void (*SDM vol. 3A §4.10.4.1*).
const CR4_PAGING: Cr4 =
    Cr4::PSE.union(Cr4::PAE).union(Cr4::PGE).union(Cr4::PCIDE).union(Cr4::SMEP).union(Cr4::SMAP);
/// Bits whose change loads the registers of PAE paging (*SDM vol. 3A §4.4.1*).
const CR0_PDPTE: Cr0 = Cr0::CD.union(Cr0::NW).union(Cr0::PG);
const CR4_PDPTE: Cr4 = Cr4::PAE.union(Cr4::PGE).union(Cr4::PSE).union(Cr4::SMEP);

/// CR4 bits of the model; all others are reserved.
pub(crate) fn cr4_allowed(model: &Model) -> Cr4 {
    let mut bits = CR4_BASE;
    let mut add = |on: bool, bit| bits |= if on { bit } else { Cr4::empty() };
    add(model.has(CpuidFeature::FSGSBASE), Cr4::FSGSBASE);
    add(model.has(CpuidFeature::XSAVE), Cr4::OSXSAVE);
    add(model.has(CpuidFeature::SMAP), Cr4::SMAP);
    add(crate::cpuid::has_umip(model), Cr4::UMIP);
    bits
}

/// XCR0 bits of the model.
pub(crate) fn xcr0_allowed(model: &Model) -> Xcr0 {
    let mut bits = Xcr0::X87 | Xcr0::SSE;
    if model.has(CpuidFeature::AVX) {
        bits |= Xcr0::AVX;
    }
    if model.has(CpuidFeature::AVX512F) {
        bits |= Xcr0::OPMASK | Xcr0::ZMM_HI256 | Xcr0::HI16_ZMM;
    }
    bits
}

/// Whether XCR0 of the model can have that value (*SDM vol. 3A §2.6*).
pub(crate) fn is_xcr0(model: &Model, value: Xcr0) -> bool {
    let avx512 = Xcr0::OPMASK | Xcr0::ZMM_HI256 | Xcr0::HI16_ZMM;
    xcr0_allowed(model).contains(value)
        && value.contains(Xcr0::X87)
        && (!value.contains(Xcr0::AVX) || value.contains(Xcr0::SSE))
        && (!value.intersects(avx512) || value.contains(avx512 | Xcr0::AVX))
}

impl Cpu {
    /// To be called when CR0, CR4, EFER or XCR0 have changed.
    pub fn control_changed(&mut self) {
        self.vector_closed = vector::closed(&self.s);
        self.update_rights();
    }

    /// MOV to CR0.
    fn write_cr0(&mut self, value: u64) -> Result<(), Exception> {
        const KNOWN: Cr0 = Cr0::all();
        if value >> 32 != 0 {
            return Err(Exception::GP0);
        }
        // Reserved bits of the low half are ignored; ET is always one.
        let new = (Cr0::from_bits_retain(value) & KNOWN) | Cr0::ET;
        let old = self.s.cr0;
        let changed = old ^ new;
        if new.contains(Cr0::PG) && !new.contains(Cr0::PE) || new.contains(Cr0::NW) && !new.contains(Cr0::CD)
        {
            return Err(Exception::GP0);
        }
        let mut efer = self.s.efer;
        if changed.contains(Cr0::PG) {
            if new.contains(Cr0::PG) {
                if efer.contains(Efer::LME) {
                    self.check_long_mode_entry()?;
                    efer |= Efer::LMA;
                }
            } else {
                if self.s.long64() || self.s.cr4.contains(Cr4::PCIDE) {
                    return Err(Exception::GP0);
                }
                efer &= !Efer::LMA;
            }
        }
        if changed.intersects(CR0_PDPTE) {
            self.load_pdptes(new, self.s.cr3, self.s.cr4)?;
        }
        self.s.cr0 = new;
        self.s.efer = efer;
        if changed.intersects(CR0_PDPTE | Cr0::PE | Cr0::WP) {
            self.flush_all();
        }
        self.control_changed();
        Ok(())
    }

    /// Setting CR0.PG with EFER.LME enters IA-32e mode (*SDM vol. 3A §9.8.5*).
    fn check_long_mode_entry(&self) -> Result<(), Exception> {
        let entry = self.s.cr4.contains(Cr4::PAE)
            && !self.s.seg[1].attr.long()
            && !matches!(self.s.tr.attr.kind(), system_type::TSS16 | system_type::TSS16_BUSY);
        if entry { Ok(()) } else { Err(Exception::GP0) }
    }

    /// Loads the page-directory-pointer registers if the control registers to
    /// be mean PAE paging; `#GP(0)`, and they stay, if reserved bits are set
    /// (*SDM vol. 3A §4.4.1*).
    fn load_pdptes(&mut self, cr0: Cr0, cr3: u64, cr4: Cr4) -> Result<(), Exception> {
        if PagingMode::of(cr0, cr4, self.s.efer) == PagingMode::Pae {
            let paging = Paging { cr0, cr3, cr4, ..self.paging() };
            self.s.pdpte = paging.read_pdptes(&self.ram).ok_or(Exception::GP0)?;
        }
        Ok(())
    }

    /// MOV to CR3: bit 63 keeps the address space's translations if PCIDs are in use.
    fn write_cr3(&mut self, value: u64) -> Result<(), Exception> {
        let pcide = self.s.cr4.contains(Cr4::PCIDE);
        let keep = pcide && value >> 63 != 0;
        let value = if pcide { value & !(1 << 63) } else { value };
        if value >> self.model.phys_bits != 0 {
            return Err(Exception::GP0);
        }
        self.load_pdptes(self.s.cr0, value, self.s.cr4)?;
        self.s.cr3 = value;
        self.select_address_space(!keep);
        Ok(())
    }

    fn write_cr4(&mut self, value: u64) -> Result<(), Exception> {
        let new = Cr4::from_bits_retain(value);
        if !cr4_allowed(&self.model).contains(new) {
            return Err(Exception::GP0);
        }
        let changed = self.s.cr4 ^ new;
        if self.ia32e() && !new.contains(Cr4::PAE) {
            return Err(Exception::GP0);
        }
        if changed.contains(Cr4::PCIDE)
            && new.contains(Cr4::PCIDE)
            && (!self.ia32e() || self.s.cr3 & 0xfff != 0)
        {
            return Err(Exception::GP0);
        }
        if changed.intersects(CR4_PDPTE) {
            self.load_pdptes(self.s.cr0, self.s.cr3, new)?;
        }
        self.s.cr4 = new;
        if changed.intersects(CR4_PAGING) {
            self.flush_all();
        }
        self.control_changed();
        Ok(())
    }

    pub(crate) fn write_control(&mut self, number: u8, value: u64) -> Result<(), Exception> {
        match number {
            0 => self.write_cr0(value),
            2 => {
                self.s.cr2 = value;
                Ok(())
            }
            3 => self.write_cr3(value),
            4 => self.write_cr4(value),
            _ => self.write_cr8(value),
        }
    }

    fn read_control(&self, number: u8) -> u64 {
        match number {
            0 => self.s.cr0.bits(),
            2 => self.s.cr2,
            3 => self.s.cr3,
            4 => self.s.cr4.bits(),
            _ => self.read_cr8(),
        }
    }

    /// CPL 0; DR4 and DR5 stand for DR6 and DR7 unless CR4.DE; DR7.GD traps
    /// (*SDM vol. 3B §17.2.2, §17.2.4*).
    fn debug_register(&mut self, number: u8) -> Result<u8, Exception> {
        let number = match number {
            4 | 5 if self.s.cr4.contains(Cr4::DE) => return Err(Exception::UD),
            4 | 5 => number + 2,
            number => number,
        };
        self.require_cpl0()?;
        if self.s.dr7 & dr7::GD != 0 {
            self.pending_db = dr6::BD;
            return Err(Exception::DB);
        }
        Ok(number)
    }

    fn write_debug(&mut self, number: u8, value: u64) -> Result<(), Exception> {
        /// DR7 without what is reserved as zero.
        const DR7: u64 = 0xffff_23ff;
        let number = self.debug_register(number)?;
        if number >= 6 && value >> 32 != 0 {
            return Err(Exception::GP0);
        }
        let before = (self.s.dr, self.s.dr7 & dr7::ENABLES);
        match number {
            0..4 => self.s.dr[usize::from(number)] = value,
            6 => self.s.dr6 = value & (0xf | dr6::BD | dr6::BS | dr6::BT) | dr6::FIXED,
            _ => self.s.dr7 = value & DR7 | dr7::FIXED,
        }
        // Watched pages are kept from the TLB's fast path.
        let enables = self.s.dr7 & dr7::ENABLES;
        if number != 6 && (before.1 | enables) != 0 {
            self.flush_all();
        }
        Ok(())
    }
}

fn mov_to_cr<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let value = cpu.s.regs.read::<W>(op.src).zext();
    cpu.write_control(op.aux, value)?;
    Ok(Flow::Next)
}

fn mov_from_cr<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let value = cpu.read_control(op.aux);
    cpu.s.regs.write(op.dst, W::truncate(value));
    Ok(Flow::Next)
}

fn mov_to_dr<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = cpu.s.regs.read::<W>(op.src).zext();
    cpu.write_debug(op.aux, value)?;
    Ok(Flow::Next)
}

fn mov_from_dr<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let value = match cpu.debug_register(op.aux)? {
        6 => cpu.s.dr6,
        7 => cpu.s.dr7,
        n => cpu.s.dr[usize::from(n & 3)],
    };
    cpu.s.regs.write(op.dst, W::truncate(value));
    Ok(Flow::Next)
}

/// Notes register numbers and picks the width of the general register.
fn special_operands(b: &mut Build<'_>, n: u32) -> Option<bool> {
    b.op.aux = b.reg_number(n);
    b.ends = n == 0;
    let general = 1 - n;
    if n == 0 {
        b.op.src = b.reg(general);
    } else {
        b.op.dst = b.reg(general);
    }
    Some(b.width(general) == 8)
}

/// MOV whose operand `n` is a control register.
pub(super) fn mov_cr(b: &mut Build<'_>, n: u32) -> Option<Handler> {
    let wide = special_operands(b, n)?;
    if !matches!(b.op.aux, 0 | 2 | 3 | 4 | 8) {
        return None;
    }
    Some(match (n, wide) {
        (0, true) => any(mov_to_cr::<u64>),
        (0, false) => any(mov_to_cr::<u32>),
        (_, true) => any(mov_from_cr::<u64>),
        (_, false) => any(mov_from_cr::<u32>),
    })
}

/// MOV whose operand `n` is a debug register.
pub(super) fn mov_dr(b: &mut Build<'_>, n: u32) -> Option<Handler> {
    let wide = special_operands(b, n)?;
    if b.op.aux > 7 {
        return None;
    }
    Some(match (n, wide) {
        (0, true) => any(mov_to_dr::<u64>),
        (0, false) => any(mov_to_dr::<u32>),
        (_, true) => any(mov_from_dr::<u64>),
        (_, false) => any(mov_from_dr::<u32>),
    })
}

fn clts(cpu: &mut Cpu, _op: &Op) -> Ran {
    cpu.require_cpl0()?;
    cpu.s.cr0 &= !Cr0::TS;
    cpu.control_changed();
    Ok(Flow::Next)
}

/// LMSW: PE, MP, EM and TS; PE cannot be cleared.
fn lmsw(cpu: &mut Cpu, value: u16) -> Ran {
    cpu.require_cpl0()?;
    let value = u64::from(value & 15) | cpu.s.cr0.bits() & 1;
    cpu.write_cr0(cpu.s.cr0.bits() & !15 | value)?;
    Ok(Flow::Next)
}

fn lmsw_reg(cpu: &mut Cpu, op: &Op) -> Ran {
    lmsw(cpu, cpu.s.regs.read::<u16>(op.src))
}

fn lmsw_mem(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let la = cpu.ea(op, 2, false)?;
    let value = cpu.load::<u16>(la, op.seg)?;
    lmsw(cpu, value)
}

fn lmsw_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_mem(0) {
        return Some(any(lmsw_mem));
    }
    b.op.src = b.reg(0);
    Some(any(lmsw_reg))
}

fn smsw_reg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.check_umip()?;
    let value = cpu.s.cr0.bits();
    cpu.s.regs.write(op.dst, W::truncate(value));
    Ok(Flow::Next)
}

fn smsw_mem(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.check_umip()?;
    let la = cpu.ea(op, 2, true)?;
    let value = cpu.s.cr0.bits() as u16;
    cpu.store(la, value, op.seg)?;
    Ok(Flow::Next)
}

fn smsw_build(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_mem(0) {
        return Some(any(smsw_mem));
    }
    b.op.dst = b.reg(0);
    crate::exec::by_wide_width!(b.width(0), smsw_reg)
}

fn require_osxsave(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.s.cr4.contains(Cr4::OSXSAVE) { Ok(()) } else { Err(Exception::UD) }
}

/// XGETBV: XCR0, or with ECX = 1 those of its components that are in use.
fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_osxsave(cpu)?;
    let value = match cpu.s.regs.get(gpr::RCX) as u32 {
        0 => cpu.s.xcr0,
        1 if cpu.model.has(CpuidFeature::XSAVEC) => cpu.s.xcr0 & cpu.s.in_use(),
        _ => return Err(Exception::GP0),
    };
    cpu.set_edx_eax(value.bits());
    Ok(Flow::Next)
}

/// XSETBV (*SDM vol. 3A §2.6*).
fn xsetbv(cpu: &mut Cpu, _op: &Op) -> Ran {
    require_osxsave(cpu)?;
    cpu.require_cpl0()?;
    let new = Xcr0::from_bits_retain(cpu.edx_eax());
    if cpu.s.regs.get(gpr::RCX) as u32 != 0 || !is_xcr0(&cpu.model, new) {
        return Err(Exception::GP0);
    }
    cpu.s.xcr0 = new;
    cpu.control_changed();
    Ok(Flow::Next)
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build)
}

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Clts, "CLTS—Clear Task-Switched Flag in CR0", |_| Some(any(clts))).gate(Gate::Cpl0).ends(),
    row(M::Lmsw, "LMSW—Load Machine Status Word", lmsw_build).gate(Gate::Cpl0).ends(),
    row(M::Smsw, "SMSW—Store Machine Status Word", smsw_build).gate(Gate::Control).outside(),
    row(M::Xgetbv, "XGETBV—Get Value of Extended Control Register", |_| Some(any(xgetbv)))
        .gate(Gate::Control),
    row(M::Xsetbv, "XSETBV—Set Extended Control Register", |_| Some(any(xsetbv))).gate(Gate::Cpl0).ends(),
];
