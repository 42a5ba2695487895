//! Descriptor-table registers, and instructions that inspect descriptors
//! (*SDM vol. 3A §2.4, §5.10; vol. 2*).

use arch::Exception;
use arch::descriptor::{Attr, Descriptor, system_type};
use arch::paging::is_canonical;
use arch::regs::{Cr4, rflags};
use iced_x86::{Code, Mnemonic as M};
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};
use crate::segmentation::{gp, is_null, not_present};
use crate::state::{Segment, TableRegister};

type Ran = Result<Flow, Exception>;

impl Cpu {
    /// CR4.UMIP keeps user code from SGDT, SIDT, SLDT, STR and SMSW.
    pub(super) fn check_umip(&self) -> Result<(), Exception> {
        if self.s.cpl > 0 && self.s.cr4.contains(Cr4::UMIP) { Err(Exception::GP0) } else { Ok(()) }
    }

    /// LLDT, LTR, LAR and their like exist in protected mode only.
    fn require_protected(&self) -> Result<(), Exception> {
        if self.protected() { Ok(()) } else { Err(Exception::UD) }
    }

    fn set_zf(&mut self, on: bool) {
        self.s.flags.update(rflags::ZF, if on { rflags::ZF } else { 0 });
    }
}

/// SGDT, SIDT: `IDT`; `W` is the width of the base.
fn store_table<const IDT: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.check_umip()?;
    let table = if IDT { cpu.s.idtr } else { cpu.s.gdtr };
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    let n = 2 + W::BYTES;
    let la = cpu.ea(op, n, true)?;
    cpu.write_bytes(la, &bytes[..n as usize], op.seg)?;
    Ok(Flow::Next)
}

/// LGDT, LIDT; `misc` bytes of the base count.
fn load_table<const IDT: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_cpl0()?;
    let n = 2 + W::BYTES;
    let la = cpu.ea(op, n, false)?;
    let mut bytes = [0; 16];
    cpu.read_bytes(la, &mut bytes[..n as usize], op.seg)?;
    let bytes = u128::from_le_bytes(bytes);
    let base = (bytes >> 16) as u64 & (u64::MAX >> (64 - 8 * u32::from(op.misc.clamp(1, 8))));
    if !is_canonical(base) {
        return Err(Exception::GP0);
    }
    let table = TableRegister { base, limit: bytes as u16 };
    if IDT {
        cpu.s.idtr = table;
    } else {
        cpu.s.gdtr = table;
    }
    Ok(Flow::Next)
}

fn store_table_build<const IDT: bool>(b: &mut Build<'_>) -> Option<Handler> {
    Some(match b.insn.code() {
        Code::Sgdt_m1664 | Code::Sidt_m1664 => any(store_table::<IDT, u64>),
        _ => any(store_table::<IDT, u32>),
    })
}

fn load_table_build<const IDT: bool>(b: &mut Build<'_>) -> Option<Handler> {
    let (misc, handler): (u8, Handler) = match b.insn.code() {
        Code::Lgdt_m1664 | Code::Lidt_m1664 => (8, any(load_table::<IDT, u64>)),
        // With a 16-bit operand the base has 24 bits.
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 => (3, any(load_table::<IDT, u32>)),
        _ => (4, any(load_table::<IDT, u32>)),
    };
    b.op.misc = misc;
    Some(handler)
}

/// The 16-bit operand of LLDT, LTR, VERR, VERW: a register or memory.
fn operand(cpu: &mut Cpu, op: &Op) -> Result<u16, Exception> {
    if op.misc != 0 {
        let la = cpu.ea(op, 2, false)?;
        return cpu.load::<u16>(la, op.seg);
    }
    Ok(cpu.s.regs.read::<u16>(op.src))
}

fn operand_build(b: &mut Build<'_>, n: u32) {
    if b.is_mem(n) {
        b.op.misc = 1;
    } else {
        b.op.src = b.reg(n);
    }
}

fn system_segment(selector: u16, descriptor: Descriptor, high: u64, attr: Attr) -> Segment {
    let base = u64::from(descriptor.base()) | high << 32;
    Segment { selector, attr, limit: descriptor.limit(), base }
}

fn lldt(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector = operand(cpu, op)?;
    if is_null(selector) {
        cpu.s.ldtr = Segment { selector, ..Segment::default() };
        return Ok(Flow::Next);
    }
    if selector & 4 != 0 {
        return Err(gp(selector));
    }
    let (descriptor, high) = cpu.read_system_descriptor(selector)?.ok_or(gp(selector))?;
    let attr = descriptor.attr();
    if attr.is_user() || attr.kind() != system_type::LDT || high >> 40 & 0x1f != 0 {
        return Err(gp(selector));
    }
    if !attr.present() {
        return Err(not_present(selector));
    }
    let segment = system_segment(selector, descriptor, high, attr);
    if !is_canonical(segment.base) {
        return Err(gp(selector));
    }
    cpu.s.ldtr = segment;
    Ok(Flow::Next)
}

fn ltr(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    let selector = operand(cpu, op)?;
    if is_null(selector) {
        return Err(Exception::GP0);
    }
    if selector & 4 != 0 {
        return Err(gp(selector));
    }
    let (descriptor, high) = cpu.read_system_descriptor(selector)?.ok_or(gp(selector))?;
    let attr = descriptor.attr();
    let available = match attr.kind() {
        system_type::TSS => true,
        system_type::TSS16 => !cpu.ia32e(),
        _ => false,
    };
    if attr.is_user() || !available || high >> 40 & 0x1f != 0 {
        return Err(gp(selector));
    }
    if !attr.present() {
        return Err(not_present(selector));
    }
    let segment = system_segment(selector, descriptor, high, Attr(attr.0 | 1 << 9));
    if !is_canonical(segment.base) {
        return Err(gp(selector));
    }
    // The busy bit, in memory and in the register.
    if let Some(la) = cpu.descriptor_address(selector, 8) {
        cpu.set_bits_system(la.wrapping_add(4), 1 << 9)?;
    }
    cpu.s.tr = segment;
    Ok(Flow::Next)
}

fn load_system_build<const TR: bool>(b: &mut Build<'_>) -> Option<Handler> {
    operand_build(b, 0);
    if TR { Some(any(ltr)) } else { Some(any(lldt)) }
}

fn store_reg<const TR: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let selector = if TR { cpu.s.tr.selector } else { cpu.s.ldtr.selector };
    cpu.s.regs.write(op.dst, W::truncate(u64::from(selector)));
    Ok(Flow::Next)
}

fn store_mem<const TR: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    cpu.check_umip()?;
    let selector = if TR { cpu.s.tr.selector } else { cpu.s.ldtr.selector };
    let la = cpu.ea(op, 2, true)?;
    cpu.store(la, selector, op.seg)?;
    Ok(Flow::Next)
}

fn store_system_build<const TR: bool>(b: &mut Build<'_>) -> Option<Handler> {
    if b.is_mem(0) {
        return if TR { Some(any(store_mem::<true>)) } else { Some(any(store_mem::<false>)) };
    }
    b.op.dst = b.reg(0);
    let width = b.width(0);
    match (TR, width) {
        (true, 2) => Some(any(store_reg::<true, u16>)),
        (true, 4) => Some(any(store_reg::<true, u32>)),
        (true, _) => Some(any(store_reg::<true, u64>)),
        (false, 2) => Some(any(store_reg::<false, u16>)),
        (false, 4) => Some(any(store_reg::<false, u32>)),
        (false, _) => Some(any(store_reg::<false, u64>)),
    }
}

/// True if code at the current level, through `selector`, can name a segment
/// with these attributes at all.
fn visible(cpu: &Cpu, selector: u16, attr: Attr) -> bool {
    attr.is_conforming() || attr.dpl() >= cpu.s.cpl.max(selector as u8 & 3)
}

/// VERR (`WRITE` false), VERW.
fn verify<const WRITE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    let selector = operand(cpu, op)?;
    let descriptor = if is_null(selector) { None } else { cpu.read_descriptor(selector)? };
    let good = descriptor.is_some_and(|descriptor| {
        let attr = descriptor.attr();
        let kind = if WRITE { attr.is_writable() } else { attr.is_readable() };
        attr.is_user() && kind && visible(cpu, selector, attr)
    });
    cpu.set_zf(good);
    Ok(Flow::Next)
}

fn verify_build<const WRITE: bool>(b: &mut Build<'_>) -> Option<Handler> {
    operand_build(b, 0);
    Some(any(verify::<WRITE>))
}

/// What LAR and LSL tell of (*SDM vol. 2A, LAR table 3-53; LSL table 3-56*).
fn inspectable(cpu: &Cpu, attr: Attr, limit: bool) -> bool {
    use system_type::{CALL_GATE, CALL_GATE16, LDT, TASK_GATE, TSS, TSS_BUSY, TSS16, TSS16_BUSY};
    if attr.is_user() {
        return true;
    }
    match attr.kind() {
        LDT | TSS | TSS_BUSY => true,
        CALL_GATE => !limit,
        TSS16 | TSS16_BUSY => !cpu.ia32e(),
        CALL_GATE16 | TASK_GATE => !cpu.ia32e() && !limit,
        _ => false,
    }
}

/// LAR (`LIMIT` false), LSL.
fn inspect<const LIMIT: bool, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    let selector = operand(cpu, op)?;
    let descriptor = if is_null(selector) { None } else { cpu.read_descriptor(selector)? };
    let found = descriptor.filter(|descriptor| {
        let attr = descriptor.attr();
        inspectable(cpu, attr, LIMIT) && visible(cpu, selector, attr)
    });
    if let Some(descriptor) = found {
        let value = if LIMIT {
            u64::from(descriptor.limit())
        } else {
            // Bits 16–19 of the access rights are undefined: as processors do, the limit's.
            descriptor.0 >> 32 & 0x00ff_ff00
        };
        cpu.s.regs.write(op.dst, W::truncate(value));
    }
    cpu.set_zf(found.is_some());
    Ok(Flow::Next)
}

fn inspect_build<const LIMIT: bool>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    operand_build(b, 1);
    match b.width(0) {
        2 => Some(any(inspect::<LIMIT, u16>)),
        4 => Some(any(inspect::<LIMIT, u32>)),
        _ => Some(any(inspect::<LIMIT, u64>)),
    }
}

fn arpl_reg(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    let (a, b) = (cpu.s.regs.read::<u16>(op.dst), cpu.s.regs.read::<u16>(op.src));
    let adjust = a & 3 < b & 3;
    if adjust {
        cpu.s.regs.write(op.dst, a & !3 | b & 3);
    }
    cpu.set_zf(adjust);
    Ok(Flow::Next)
}

fn arpl_mem(cpu: &mut Cpu, op: &Op) -> Ran {
    cpu.require_protected()?;
    let la = cpu.ea(op, 2, true)?;
    let b = u64::from(cpu.s.regs.read::<u16>(op.src));
    let a = cpu.update::<u16>(la, op.seg, |a| if a & 3 < b & 3 { a & !3 | b & 3 } else { a })?;
    cpu.set_zf(a & 3 < b & 3);
    Ok(Flow::Next)
}

fn arpl_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.src = b.reg(1);
    if b.is_mem(0) {
        return Some(any(arpl_mem));
    }
    b.op.dst = b.reg(0);
    Some(any(arpl_reg))
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build)
}

const LGDT: &str = "LGDT/LIDT—Load Global/Interrupt Descriptor Table Register";

/// This file's part of the instruction table.
pub(in crate::exec) const ROWS: &[Row] = &[
    row(M::Sgdt, "SGDT—Store Global Descriptor Table Register", store_table_build::<false>)
        .gate(Gate::Control)
        .outside(),
    row(M::Sidt, "SIDT—Store Interrupt Descriptor Table Register", store_table_build::<true>)
        .gate(Gate::Control)
        .outside(),
    row(M::Lgdt, LGDT, load_table_build::<false>).gate(Gate::Cpl0),
    row(M::Lidt, LGDT, load_table_build::<true>).gate(Gate::Cpl0),
    row(M::Lldt, "LLDT—Load Local Descriptor Table Register", load_system_build::<false>).gate(Gate::Cpl0),
    row(M::Ltr, "LTR—Load Task Register", load_system_build::<true>).gate(Gate::Cpl0),
    row(M::Sldt, "SLDT—Store Local Descriptor Table Register", store_system_build::<false>)
        .gate(Gate::Control)
        .outside(),
    row(M::Str, "STR—Store Task Register", store_system_build::<true>).gate(Gate::Control).outside(),
    row(M::Verr, "VERR/VERW—Verify a Segment for Reading or Writing", verify_build::<false>),
    row(M::Verw, "VERR/VERW—Verify a Segment for Reading or Writing", verify_build::<true>),
    row(M::Lar, "LAR—Load Access Rights Byte", inspect_build::<false>),
    row(M::Lsl, "LSL—Load Segment Limit", inspect_build::<true>),
    row(M::Arpl, "ARPL—Adjust RPL Field of Segment Selector", arpl_build),
];
