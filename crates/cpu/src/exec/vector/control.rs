//! MXCSR, clearing of registers, fences, prefetches and the non-temporal move
//! of general registers.

use arch::Exception;
use arch::regs::mxcsr;
use iced_x86::{EncodingKind, Mnemonic as M};
use mem::raw::Width;

use super::{Ran, gate, mmx, vector_registers};
use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

fn ldmxcsr<const VEX: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let la = cpu.ea(op, 4, false)?;
    let value = cpu.load::<u32>(la, op.seg)?;
    if value & !mxcsr::WRITABLE != 0 {
        return Err(Exception::GP0);
    }
    cpu.s.mxcsr = value;
    Ok(Flow::Next)
}

fn stmxcsr<const VEX: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    gate::<VEX>(cpu)?;
    let la = cpu.ea(op, 4, true)?;
    cpu.store::<u32>(la, cpu.s.mxcsr, op.seg)?;
    Ok(Flow::Next)
}

/// VZEROUPPER keeps the low 128 bits, VZEROALL (`ALL`) nothing.
fn vzero<const ALL: bool>(cpu: &mut Cpu, _op: &Op) -> Ran {
    gate::<true>(cpu)?;
    let count = vector_registers(cpu);
    for register in &mut cpu.s.vec[..count] {
        register.0[if ALL { 0 } else { 2 }..].fill(0);
    }
    Ok(Flow::Next)
}

fn fence(_cpu: &mut Cpu, _op: &Op) -> Ran {
    mem::raw::fence();
    Ok(Flow::Next)
}

/// LFENCE and SFENCE order what is in order anyway.
fn nothing(_cpu: &mut Cpu, _op: &Op) -> Ran {
    Ok(Flow::Next)
}

fn movnti<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, W::BYTES, true)?;
    cpu.store::<W>(la, cpu.s.regs.read::<W>(op.src), op.seg)?;
    Ok(Flow::Next)
}

fn movnti_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.src = b.reg(1);
    if b.width(1) == 8 { Some(any(movnti::<u64>)) } else { Some(any(movnti::<u32>)) }
}

fn is_vex(b: &Build<'_>) -> bool {
    b.insn.code().encoding() == EncodingKind::VEX
}

const FENCE: fn(&mut Build<'_>) -> Option<Handler> = |_| Some(any(fence));
const NOTHING: fn(&mut Build<'_>) -> Option<Handler> = |_| Some(any(nothing));
const LDMXCSR: fn(&mut Build<'_>) -> Option<Handler> =
    |b| if is_vex(b) { Some(any(ldmxcsr::<true>)) } else { Some(any(ldmxcsr::<false>)) };
const STMXCSR: fn(&mut Build<'_>) -> Option<Handler> =
    |b| if is_vex(b) { Some(any(stmxcsr::<true>)) } else { Some(any(stmxcsr::<false>)) };

const LOAD: &str = "LDMXCSR—Load MXCSR Register";
const STORE: &str = "STMXCSR—Store MXCSR Register State";
const PREFETCH: &str = "PREFETCHh—Prefetch Data Into Caches";
const PREFETCHW: &str = "PREFETCHW—Prefetch Data Into Caches in Anticipation of a Write";

/// Control and ordering.
pub(in crate::exec) const ROWS: &[Row] = &[
    Row::new(M::Ldmxcsr, LOAD, Group::Sse, LDMXCSR),
    Row::new(M::Vldmxcsr, LOAD, Group::Avx, LDMXCSR),
    Row::new(M::Stmxcsr, STORE, Group::Sse, STMXCSR),
    Row::new(M::Vstmxcsr, STORE, Group::Avx, STMXCSR),
    Row::new(M::Vzeroupper, "VZEROUPPER—Zero Upper Bits of YMM and ZMM Registers", Group::Avx, |_| {
        Some(any(vzero::<false>))
    }),
    Row::new(M::Vzeroall, "VZEROALL—Zero XMM, YMM, and ZMM Registers", Group::Avx, |_| {
        Some(any(vzero::<true>))
    }),
    Row::new(M::Emms, "EMMS—Empty MMX Technology State", Group::Mmx, |_| Some(any(mmx::emms))),
    Row::new(M::Mfence, "MFENCE—Memory Fence", Group::Sse, FENCE),
    Row::new(M::Lfence, "LFENCE—Load Fence", Group::Sse, NOTHING),
    Row::new(M::Sfence, "SFENCE—Store Fence", Group::Sse, NOTHING),
    Row::new(M::Prefetcht0, PREFETCH, Group::Sse, NOTHING),
    Row::new(M::Prefetcht1, PREFETCH, Group::Sse, NOTHING),
    Row::new(M::Prefetcht2, PREFETCH, Group::Sse, NOTHING),
    Row::new(M::Prefetchnta, PREFETCH, Group::Sse, NOTHING),
    Row::new(M::Prefetch, PREFETCHW, Group::Sse, NOTHING),
    Row::new(M::Prefetchw, PREFETCHW, Group::Sse, NOTHING),
    Row::new(M::Movnti, "MOVNTI—Store Doubleword Using Non-Temporal Hint", Group::Sse, movnti_build),
];
