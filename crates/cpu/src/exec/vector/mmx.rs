//! MMX: the x87 registers as eight 64-bit registers (*SDM vol. 1 §9, vol. 3A §12*).
//!
//! The state keeps the x87 registers in stack order. Every MMX instruction
//! makes TOP zero, after which that order is the order of MMX registers, too:
//! what comes in at another TOP is rotated first.

use arch::Exception;
use arch::regs::{Cr0, Cr4};
use iced_x86::Mnemonic as M;
use mem::raw::Width;

use super::{Ran, run, source};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};

/// x87 status word: an unmasked exception is pending.
const ES: u16 = 1 << 7;
/// x87 status word: TOP.
const TOP: u16 = 7 << 11;
/// Sign and exponent of an x87 register that MMX has written.
const ONES: u128 = 0xffff << 64;

/// `misc` of thunks: obeys MXCSR.
const MXCSR: u8 = 1;
/// Uses XMM registers, too.
const XMM: u8 = 2;
/// Has a memory source.
const MEMORY: u8 = 4;
/// Which must be 16-byte aligned.
const ALIGNED: u8 = 8;

/// Whether MMX instructions may be used now (*SDM vol. 3A §12.1, §12.5,
/// §23.25 tables for SIMD and MMX instructions*).
pub(super) fn gate(cpu: &Cpu, xmm: bool) -> Result<(), Exception> {
    if cpu.s.cr0.contains(Cr0::EM) || xmm && !cpu.s.cr4.contains(Cr4::OSFXSR) {
        Err(Exception::UD)
    } else if cpu.s.cr0.contains(Cr0::TS) {
        Err(Exception::NM)
    } else if cpu.s.x87.sw & ES != 0 {
        Err(Exception::MF)
    } else {
        Ok(())
    }
}

/// TOP becomes zero and every register valid.
pub(super) fn enter(cpu: &mut Cpu) {
    let x87 = &mut cpu.s.x87;
    let top = usize::from((x87.sw & TOP) >> 11);
    x87.st.rotate_right(top);
    x87.sw &= !TOP;
    x87.tag = 0xff;
}

/// Value of an MMX register, whatever TOP is.
pub(super) fn read(cpu: &Cpu, number: u8) -> u64 {
    let top = (cpu.s.x87.sw & TOP) >> 11;
    cpu.s.x87.st[usize::from(u16::from(number).wrapping_sub(top) & 7)] as u64
}

/// Writes an MMX register, after [`enter`].
fn write(cpu: &mut Cpu, number: u8, value: u64) {
    cpu.s.x87.st[usize::from(number & 7)] = ONES | u128::from(value);
}

/// The handler of a thunk that uses MMX registers.
pub(super) fn thunk_handler(b: &mut Build<'_>, mxcsr: bool) -> Handler {
    let insn = b.insn;
    let xmm = (0..insn.op_count()).any(|n| b.is_reg(n) && insn.op_register(n).is_xmm());
    let cvt_to_mmx = matches!(insn.mnemonic(), M::Cvtps2pi | M::Cvttps2pi | M::Cvtpd2pi | M::Cvttpd2pi);
    b.op.misc = 0;
    if mxcsr {
        b.op.misc |= MXCSR;
    }
    if xmm || cvt_to_mmx {
        b.op.misc |= XMM;
    }
    if b.op.aux != 0 {
        b.op.misc |= MEMORY;
    }
    if b.op.aux == 16 {
        b.op.misc |= ALIGNED;
    }
    any(thunk)
}

pub(super) fn thunk(cpu: &mut Cpu, op: &Op) -> Ran {
    gate(cpu, op.misc & XMM != 0)?;
    let mut memory = std::ptr::null_mut();
    if op.misc & MEMORY != 0 {
        let n = usize::from(op.aux);
        let la = cpu.ea(op, n as u64, false)?;
        if op.misc & ALIGNED != 0 {
            super::aligned(la, 16)?;
        }
        memory = source(cpu, la, n, op.seg)?.cast_mut();
    }
    if op.misc & MXCSR != 0 {
        let before = cpu.s.x87;
        enter(cpu);
        // To `precision`, `misc` would say something else; nothing here overflows.
        if let Err(exception) = run::run_controlled(cpu, &Op { misc: 0, ..*op }, memory) {
            cpu.s.x87 = before;
            return Err(exception);
        }
    } else {
        enter(cpu);
        // SAFETY: `memory` leads to the bytes that the thunk reads.
        unsafe { run::run_plain(cpu, op, memory) };
    }
    Ok(Flow::Next)
}

/// MOVD and MOVQ to an MMX register.
fn load<W: Width, const FROM_MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate(cpu, false)?;
    let value = if FROM_MEMORY {
        let la = cpu.ea(op, W::BYTES, false)?;
        cpu.load::<W>(la, op.seg)?
    } else {
        cpu.s.regs.read::<W>(op.src)
    };
    enter(cpu);
    write(cpu, op.dst, value.zext());
    Ok(Flow::Next)
}

/// MOVD, MOVQ and MOVNTQ from an MMX register.
fn store<W: Width, const TO_MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate(cpu, false)?;
    let value = W::truncate(read(cpu, op.src));
    if TO_MEMORY {
        let la = cpu.ea(op, W::BYTES, true)?;
        cpu.store::<W>(la, value, op.seg)?;
    } else {
        cpu.s.regs.write(op.dst, value);
    }
    enter(cpu);
    Ok(Flow::Next)
}

/// MOVQ between MMX registers.
fn copy(cpu: &mut Cpu, op: &Op) -> Ran {
    gate(cpu, false)?;
    let value = read(cpu, op.src);
    enter(cpu);
    write(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// MOVD, MOVQ and MOVNTQ with an MMX register.
pub(super) fn move_handler(b: &mut Build<'_>) -> Option<Handler> {
    let insn = b.insn;
    let mm = |n: u32| b.is_reg(n) && insn.op_register(n).is_mm();
    let (to, from) = (mm(0), mm(1));
    if to && from {
        (b.op.dst, b.op.src) = (b.reg_number(0), b.reg_number(1));
        return Some(any(copy));
    }
    if to {
        b.op.dst = b.reg_number(0);
        if b.is_reg(1) {
            b.op.src = b.reg(1);
        }
        return match (b.width(1), b.is_mem(1)) {
            (4, true) => Some(any(load::<u32, true>)),
            (8, true) => Some(any(load::<u64, true>)),
            (4, false) => Some(any(load::<u32, false>)),
            (8, false) => Some(any(load::<u64, false>)),
            _ => None,
        };
    }
    b.op.src = b.reg_number(1);
    if b.is_reg(0) {
        b.op.dst = b.reg(0);
    }
    match (b.width(0), b.is_mem(0)) {
        (4, true) => Some(any(store::<u32, true>)),
        (8, true) => Some(any(store::<u64, true>)),
        (4, false) => Some(any(store::<u32, false>)),
        (8, false) => Some(any(store::<u64, false>)),
        _ => None,
    }
}

/// EMMS: every register becomes empty.
pub(super) fn emms(cpu: &mut Cpu, _op: &Op) -> Ran {
    gate(cpu, false)?;
    enter(cpu);
    cpu.s.x87.tag = 0;
    Ok(Flow::Next)
}
