//! Segment registers: MOV, PUSH, POP, LDS to LGS, and the FS and GS bases
//! (*SDM vol. 1 §7.3.12, §7.3.13; vol. 3A §3.4*).

use arch::Exception;
use arch::paging::is_canonical;
use arch::regs::{Cr4, Seg, gpr};
use iced_x86::{Mnemonic as M, Register};
use mem::raw::Width;

use super::by_wide_width;
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Gate, Group, Row};

type Ran = Result<Flow, Exception>;

const SS: u8 = Seg::Ss as u8;

/// Loads a segment register; SS brings a shadow (*SDM vol. 2B, MOV*).
fn load(cpu: &mut Cpu, seg: u8, selector: u16) -> Result<(), Exception> {
    cpu.load_segment(usize::from(seg), selector)?;
    if seg == SS {
        cpu.shadow = true;
        cpu.stop_block();
    }
    Ok(())
}

fn mov_sreg_reg(cpu: &mut Cpu, op: &Op) -> Ran {
    let selector = cpu.s.regs.read::<u16>(op.src);
    load(cpu, op.aux, selector)?;
    Ok(Flow::Next)
}

fn mov_sreg_mem(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, 2, false)?;
    let selector = cpu.load::<u16>(la, op.seg)?;
    load(cpu, op.aux, selector)?;
    Ok(Flow::Next)
}

fn mov_reg_sreg<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let selector = cpu.s.seg[usize::from(op.aux).min(5)].selector;
    cpu.s.regs.write(op.dst, W::truncate(u64::from(selector)));
    Ok(Flow::Next)
}

fn mov_mem_sreg(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, 2, true)?;
    let selector = cpu.s.seg[usize::from(op.aux).min(5)].selector;
    cpu.store(la, selector, op.seg)?;
    Ok(Flow::Next)
}

/// MOV whose operand `n` is a segment register.
pub(super) fn mov(b: &mut Build<'_>, n: u32) -> Option<Handler> {
    b.op.aux = b.reg_number(n);
    if n == 0 {
        if b.insn.op_register(0) == Register::CS {
            return None;
        }
        if b.is_mem(1) {
            return Some(any(mov_sreg_mem));
        }
        b.op.src = b.reg(1);
        return Some(any(mov_sreg_reg));
    }
    if b.is_mem(0) {
        return Some(any(mov_mem_sreg));
    }
    b.op.dst = b.reg(0);
    by_wide_width!(b.width(0), mov_reg_sreg)
}

fn push<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let selector = cpu.s.seg[usize::from(op.aux).min(5)].selector;
    cpu.push(W::truncate(u64::from(selector)))?;
    Ok(Flow::Next)
}

fn pop<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let selector = cpu.peek::<W>(0)?.zext() as u16;
    // The size of the stack that is popped is that of the old SS.
    let rsp = cpu.s.regs.get(gpr::RSP);
    cpu.drop_stack(W::BYTES);
    if let Err(fault) = load(cpu, op.aux, selector) {
        cpu.s.regs.set(gpr::RSP, rsp);
        return Err(fault);
    }
    Ok(Flow::Next)
}

fn stack_width(b: &Build<'_>) -> usize {
    b.insn.stack_pointer_increment().unsigned_abs() as usize
}

/// PUSH of a segment register.
pub(super) fn push_segment(b: &mut Build<'_>) -> Option<Handler> {
    b.op.aux = b.reg_number(0);
    by_wide_width!(stack_width(b), push)
}

/// POP of a segment register.
pub(super) fn pop_segment(b: &mut Build<'_>) -> Option<Handler> {
    b.op.aux = b.reg_number(0);
    by_wide_width!(stack_width(b), pop)
}

/// LDS, LES, LFS, LGS, LSS: a far pointer from memory.
fn far_pointer<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES + 2, false)?;
    let offset = cpu.load::<W>(la, op.seg)?;
    let selector = cpu.load::<u16>(la.wrapping_add(W::BYTES), op.seg)?;
    load(cpu, op.aux, selector)?;
    cpu.s.regs.write(op.dst, offset);
    Ok(Flow::Next)
}

fn far_pointer_build<const SEG: u8>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    b.op.aux = SEG;
    by_wide_width!(b.width(0), far_pointer)
}

/// RDFSBASE and its relatives: 64-bit mode with CR4.FSGSBASE.
fn require_base_instructions(cpu: &Cpu) -> Result<(), Exception> {
    if cpu.s.long64() && cpu.s.cr4.contains(Cr4::FSGSBASE) { Ok(()) } else { Err(Exception::UD) }
}

fn read_base<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    require_base_instructions(cpu)?;
    let base = cpu.s.seg[usize::from(op.aux).min(5)].base;
    cpu.s.regs.write(op.dst, W::truncate(base));
    Ok(Flow::Next)
}

fn write_base<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    require_base_instructions(cpu)?;
    let base = cpu.s.regs.read::<W>(op.dst).zext();
    if !is_canonical(base) {
        return Err(Exception::GP0);
    }
    cpu.s.seg[usize::from(op.aux).min(5)].base = base;
    Ok(Flow::Next)
}

fn read_base_build<const SEG: u8>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    b.op.aux = SEG;
    if b.width(0) == 8 { Some(any(read_base::<u64>)) } else { Some(any(read_base::<u32>)) }
}

fn write_base_build<const SEG: u8>(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    b.op.aux = SEG;
    if b.width(0) == 8 { Some(any(write_base::<u64>)) } else { Some(any(write_base::<u32>)) }
}

/// SWAPGS: exchanges the GS base with IA32_KERNEL_GS_BASE.
fn swapgs(cpu: &mut Cpu, _op: &Op) -> Ran {
    if !cpu.s.long64() {
        return Err(Exception::UD);
    }
    cpu.require_cpl0()?;
    std::mem::swap(&mut cpu.s.seg[Seg::Gs as usize].base, &mut cpu.s.msr.kernel_gs_base);
    Ok(Flow::Next)
}

const FS: u8 = Seg::Fs as u8;
const GS: u8 = Seg::Gs as u8;
const LDS: &str = "LDS/LES/LFS/LGS/LSS—Load Far Pointer";

const fn base(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::System, build).gate(Gate::Control)
}

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Lds, LDS, Group::DataTransfer, far_pointer_build::<{ Seg::Ds as u8 }>).outside(),
    Row::new(M::Les, LDS, Group::DataTransfer, far_pointer_build::<{ Seg::Es as u8 }>).outside(),
    Row::new(M::Lfs, LDS, Group::DataTransfer, far_pointer_build::<FS>).outside(),
    Row::new(M::Lgs, LDS, Group::DataTransfer, far_pointer_build::<GS>).outside(),
    Row::new(M::Lss, LDS, Group::DataTransfer, far_pointer_build::<SS>).outside(),
    base(M::Rdfsbase, "RDFSBASE/RDGSBASE—Read FS/GS Segment Base", read_base_build::<FS>),
    base(M::Rdgsbase, "RDFSBASE/RDGSBASE—Read FS/GS Segment Base", read_base_build::<GS>),
    base(M::Wrfsbase, "WRFSBASE/WRGSBASE—Write FS/GS Segment Base", write_base_build::<FS>),
    base(M::Wrgsbase, "WRFSBASE/WRGSBASE—Write FS/GS Segment Base", write_base_build::<GS>),
    Row::new(M::Swapgs, "SWAPGS—Swap GS Base Register", Group::System, |_| Some(any(swapgs)))
        .gate(Gate::Cpl0),
];
