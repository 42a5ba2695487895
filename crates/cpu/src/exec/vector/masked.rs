//! Moves under a mask and gathers: element by element, so that elements that
//! are not asked for cannot fault.

use arch::Exception;
use iced_x86::{EncodingKind, Mnemonic as M, OpKind};
use mem::raw::Width;

use super::{Ran, gate, mmx};
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};
use crate::state::{Regs, VectorReg};
use crate::{Cpu, truncate};

#[inline(always)]
fn get<W: Width>(register: &VectorReg, i: usize) -> W {
    let bits = i * W::BITS as usize;
    W::truncate(register.0[(bits / 64) & 7] >> (bits % 64))
}

#[inline(always)]
fn set<W: Width>(register: &mut VectorReg, i: usize, value: W) {
    let bits = i * W::BITS as usize;
    let mask = u64::MAX >> (64 - W::BITS) << (bits % 64);
    let word = &mut register.0[(bits / 64) & 7];
    *word = *word & !mask | value.zext() << (bits % 64);
}

/// The most significant bit of an element.
#[inline(always)]
fn sign<W: Width>(value: W) -> bool {
    (value.sext() as i64) < 0
}

/// Linear address of `n` bytes at an effective address not yet truncated.
#[inline(always)]
fn linear(cpu: &Cpu, op: &Op, offset: u64, n: u64, write: bool) -> Result<u64, Exception> {
    cpu.linear(op.ea, op.seg, truncate(op.ea, offset), n, write)
}

/// Runs `f` without alignment checks, which these instructions do not make.
fn unchecked(cpu: &mut Cpu, f: impl FnOnce(&mut Cpu) -> Result<(), Exception>) -> Result<(), Exception> {
    let checked = std::mem::replace(&mut cpu.align_check, false);
    let result = f(cpu);
    cpu.align_check = checked;
    result
}

/// VMASKMOV, VPMASKMOV from memory. `dst` register, `src` mask, `aux` elements.
fn mask_load<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<true>(cpu)?;
    let offset = cpu.ea_offset(op);
    let mask = cpu.s.vec[usize::from(op.src & 31)];
    let mut value = VectorReg::default();
    unchecked(cpu, |cpu| {
        for i in 0..usize::from(op.aux) {
            if sign(get::<W>(&mask, i)) {
                let la = linear(cpu, op, offset.wrapping_add(i as u64 * W::BYTES), W::BYTES, false)?;
                set(&mut value, i, cpu.load::<W>(la, op.seg)?);
            }
        }
        Ok(())
    })?;
    cpu.s.vec[usize::from(op.dst & 31)] = value;
    Ok(Flow::Next)
}

/// VMASKMOV, VPMASKMOV to memory; MASKMOVQ and MASKMOVDQU (of bytes).
fn mask_store<W: Width>(cpu: &mut Cpu, op: &Op, data: &VectorReg, mask: &VectorReg) -> Result<(), Exception> {
    let offset = cpu.ea_offset(op);
    unchecked(cpu, |cpu| {
        // All of it or nothing: first see whether it will fault.
        for store in [false, true] {
            for i in 0..usize::from(op.aux) {
                if sign(get::<W>(mask, i)) {
                    let la = linear(cpu, op, offset.wrapping_add(i as u64 * W::BYTES), W::BYTES, true)?;
                    if store {
                        cpu.store::<W>(la, get::<W>(data, i), op.seg)?;
                    } else if cpu.ram_write(la, W::BYTES).is_none() {
                        cpu.probe_write(la, W::BYTES, op.seg)?;
                    }
                }
            }
        }
        Ok(())
    })
}

fn vmaskmov_store<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<true>(cpu)?;
    let (data, mask) = (cpu.s.vec[usize::from(op.dst & 31)], cpu.s.vec[usize::from(op.src & 31)]);
    mask_store::<W>(cpu, op, &data, &mask)?;
    Ok(Flow::Next)
}

fn vmaskmov(b: &mut Build<'_>) -> Option<Handler> {
    let store = b.is_mem(0);
    b.op.src = b.reg_number(1);
    b.op.dst = b.reg_number(if store { 2 } else { 0 });
    let bytes = b.width(1);
    let quad = matches!(b.insn.mnemonic(), M::Vmaskmovpd | M::Vpmaskmovq);
    b.op.aux = (bytes / if quad { 8 } else { 4 }) as u8;
    match (quad, store) {
        (false, false) => Some(any(mask_load::<u32>)),
        (true, false) => Some(any(mask_load::<u64>)),
        (false, true) => Some(any(vmaskmov_store::<u32>)),
        (true, true) => Some(any(vmaskmov_store::<u64>)),
    }
}

fn maskmovdqu<const VEX: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let (data, mask) = (cpu.s.vec[usize::from(op.dst & 31)], cpu.s.vec[usize::from(op.src & 31)]);
    mask_store::<u8>(cpu, op, &data, &mask)?;
    Ok(Flow::Next)
}

fn maskmovq(cpu: &mut Cpu, op: &Op) -> Ran {
    mmx::gate(cpu, false)?;
    let register = |number| VectorReg([mmx::read(cpu, number), 0, 0, 0, 0, 0, 0, 0]);
    let (data, mask) = (register(op.dst), register(op.src));
    mask_store::<u8>(cpu, op, &data, &mask)?;
    mmx::enter(cpu);
    Ok(Flow::Next)
}

fn maskmov_bytes(b: &mut Build<'_>) -> Option<Handler> {
    let address = match b.insn.op0_kind() {
        OpKind::MemorySegDI => 2,
        OpKind::MemorySegEDI => 4,
        _ => 8,
    };
    b.segment(b.insn.memory_segment(), address);
    (b.op.base, b.op.index, b.op.disp) = (7 * 8, Regs::ZERO, 0);
    (b.op.dst, b.op.src) = (b.reg_number(1), b.reg_number(2));
    b.op.aux = 16;
    Some(match (b.insn.mnemonic(), b.insn.code().encoding()) {
        (M::Maskmovq, _) => {
            b.op.aux = 8;
            any(maskmovq)
        }
        (_, EncodingKind::VEX) => any(maskmovdqu::<true>),
        _ => any(maskmovdqu::<false>),
    })
}

/// Gathers of `D` by indices of `I`. `dst` destination, `src` mask, `aux`
/// index register, `imm` number of elements. An element that has arrived
/// loses its mask, so a fault later can be resumed (*SDM vol. 2C, VGATHER…*).
fn gather<I: Width, D: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<true>(cpu)?;
    let (dst, mask) = (usize::from(op.dst & 31), usize::from(op.src & 31));
    let index = cpu.s.vec[usize::from(op.aux & 31)];
    let base = cpu.s.regs.read64(op.base).wrapping_add(op.disp);
    let count = op.imm as usize;
    for i in 0..count {
        if sign(get::<D>(&cpu.s.vec[mask], i)) {
            let offset = base.wrapping_add(get::<I>(&index, i).sext() << (op.scale & 3));
            let la = linear(cpu, op, offset, D::BYTES, false)?;
            let value = cpu.load::<D>(la, op.seg)?;
            set(&mut cpu.s.vec[dst], i, value);
        }
        // Done with, also if it was not asked for: a fault further on shows it.
        set(&mut cpu.s.vec[mask], i, D::truncate(0));
    }
    cpu.s.vec[mask] = VectorReg::default();
    let words = (count * D::BYTES as usize).div_ceil(8);
    cpu.s.vec[dst].0[words..].fill(0);
    Ok(Flow::Next)
}

fn gather_build(b: &mut Build<'_>) -> Option<Handler> {
    let index = b.insn.memory_index();
    b.op.dst = b.reg_number(0);
    b.op.src = b.reg_number(2);
    b.op.aux = index.number() as u8;
    // The three registers must differ, else #UD.
    if b.op.dst == b.op.src || b.op.dst == b.op.aux || b.op.src == b.op.aux {
        return None;
    }
    let wide_index =
        matches!(b.insn.mnemonic(), M::Vgatherqps | M::Vgatherqpd | M::Vpgatherqd | M::Vpgatherqq);
    let index_bytes = if wide_index { 8 } else { 4 };
    let element = b.insn.memory_size().size();
    let count = (index.size() / index_bytes).min(b.width(0) / element);
    b.op.imm = count as i32;
    match (wide_index, element) {
        (false, 4) => Some(any(gather::<u32, u32>)),
        (false, 8) => Some(any(gather::<u32, u64>)),
        (true, 4) => Some(any(gather::<u64, u32>)),
        (true, 8) => Some(any(gather::<u64, u64>)),
        _ => None,
    }
}

const VMASKMOV: &str = "VMASKMOV—Conditional SIMD Packed Loads and Stores";
const VPMASKMOV: &str = "VPMASKMOV—Conditional SIMD Integer Packed Loads and Stores";
const MASKMOVDQU: &str = "MASKMOVDQU—Store Selected Bytes of Double Quadword";
const VGATHERD: &str = "VGATHERDPD/VGATHERQPD, VGATHERDPS/VGATHERQPS—Gather Packed Floating-Point Values";
const VPGATHER: &str = "VPGATHERDD/VPGATHERQD, VPGATHERDQ/VPGATHERQQ—Gather Packed Integer Values";

/// Masked moves and gathers.
pub(in crate::exec) const ROWS: &[Row] = &[
    Row::new(M::Vmaskmovps, VMASKMOV, Group::Avx, vmaskmov),
    Row::new(M::Vmaskmovpd, VMASKMOV, Group::Avx, vmaskmov),
    Row::new(M::Vpmaskmovd, VPMASKMOV, Group::Avx, vmaskmov),
    Row::new(M::Vpmaskmovq, VPMASKMOV, Group::Avx, vmaskmov),
    Row::new(M::Maskmovq, "MASKMOVQ—Store Selected Bytes of Quadword", Group::Mmx, maskmov_bytes),
    Row::new(M::Maskmovdqu, MASKMOVDQU, Group::Sse, maskmov_bytes),
    Row::new(M::Vmaskmovdqu, MASKMOVDQU, Group::Avx, maskmov_bytes),
    Row::new(M::Vgatherdps, VGATHERD, Group::Avx, gather_build),
    Row::new(M::Vgatherdpd, VGATHERD, Group::Avx, gather_build),
    Row::new(M::Vgatherqps, VGATHERD, Group::Avx, gather_build),
    Row::new(M::Vgatherqpd, VGATHERD, Group::Avx, gather_build),
    Row::new(M::Vpgatherdd, VPGATHER, Group::Avx, gather_build),
    Row::new(M::Vpgatherdq, VPGATHER, Group::Avx, gather_build),
    Row::new(M::Vpgatherqd, VPGATHER, Group::Avx, gather_build),
    Row::new(M::Vpgatherqq, VPGATHER, Group::Avx, gather_build),
];
