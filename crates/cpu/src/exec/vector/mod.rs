//! MMX, SSE to SSE4.2, AES, PCLMULQDQ, SHA, AVX, AVX2, FMA and F16C
//! (*SDM vol. 1 §9–14*).
//!
//! * [`run`]: instructions the host carries out, by [`assemble`]d thunks; MXCSR and its exceptions
//! * [`moves`]: plain moves, in Rust; [`masked`]: element by element; [`mmx`]: the x87 registers as MMX's
//! * [`control`]: MXCSR itself, VZEROUPPER, fences, prefetches
//! * [`rows`]: the part of the instruction table that is thunks

mod assemble;
mod control;
mod masked;
mod mmx;
mod moves;
mod precision;
mod rows;
mod run;
#[cfg(test)]
mod tests;

use arch::Exception;
use arch::regs::{Cr0, Cr4, Xcr0};

use crate::Cpu;
use crate::op::{Flow, Op};

pub(super) use control::ROWS as CONTROL;
pub(super) use masked::ROWS as MASKED;
pub(super) use moves::{ROWS as MOVES, movsd};
pub(super) use rows::{AVX, CRYPTO, MMX, SSE};
pub(super) use run::build as thunk;

type Ran = Result<Flow, Exception>;

/// Whether vector instructions may be used now: XMM registers by legacy
/// encodings, or (`VEX`) by VEX encodings (*SDM vol. 2A table 2-21 and
/// following*, the rows for `#UD` and `#NM` that all classes share).
#[inline(always)]
fn gate<const VEX: bool>(cpu: &Cpu) -> Result<(), Exception> {
    let (cr0, cr4) = (cpu.s.cr0.bits(), cpu.s.cr4.bits());
    let closed = if VEX {
        let vector = (Xcr0::SSE | Xcr0::AVX).bits();
        (cr0 & (Cr0::TS | Cr0::PE).bits()) ^ Cr0::PE.bits()
            | !cr4 & Cr4::OSXSAVE.bits()
            | !cpu.s.xcr0.bits() & vector
            | cpu.s.rflags & arch::regs::rflags::VM
    } else {
        cr0 & (Cr0::EM | Cr0::TS).bits() | !cr4 & Cr4::OSFXSR.bits()
    };
    if closed == 0 { Ok(()) } else { Err(closed_by::<VEX>(cpu)) }
}

#[cold]
#[inline(never)]
fn closed_by<const VEX: bool>(cpu: &Cpu) -> Exception {
    let undefined = if VEX {
        !cpu.s.cr0.contains(Cr0::PE)
            || cpu.s.rflags & arch::regs::rflags::VM != 0
            || !cpu.s.cr4.contains(Cr4::OSXSAVE)
            || !cpu.s.xcr0.contains(Xcr0::SSE | Xcr0::AVX)
    } else {
        cpu.s.cr0.contains(Cr0::EM) || !cpu.s.cr4.contains(Cr4::OSFXSR)
    };
    if undefined { Exception::UD } else { Exception::NM }
}

/// Where the `n` bytes (at most 64) of the memory operand at `la` can be read
/// by the host: in RAM, or copied to the scratch.
#[inline(always)]
fn source(cpu: &mut Cpu, la: u64, n: usize, seg: u8) -> Result<*const u8, Exception> {
    match cpu.ram_read(la, n as u64) {
        Some(ptr) => Ok(ptr),
        None => source_slow(cpu, la, n, seg),
    }
}

#[inline(never)]
fn source_slow(cpu: &mut Cpu, la: u64, n: usize, seg: u8) -> Result<*const u8, Exception> {
    let mut bytes = [0; 64];
    let n = n.min(64);
    cpu.read_bytes(la, &mut bytes[..n], seg)?;
    cpu.thunks.scratch.0 = bytes;
    Ok((&raw const *cpu.thunks.scratch).cast())
}

/// Writes the first `n` bytes of the scratch to `la`.
#[inline(never)]
fn write_scratch(cpu: &mut Cpu, la: u64, n: usize, seg: u8) -> Result<(), Exception> {
    let bytes = cpu.thunks.scratch.0;
    cpu.write_bytes(la, &bytes[..n.min(64)], seg)
}

/// `#GP(0)` unless `la` is a multiple of `n`.
#[inline(always)]
fn aligned(la: u64, n: u64) -> Result<(), Exception> {
    if la & (n - 1) == 0 { Ok(()) } else { Err(Exception::GP0) }
}

/// Linear address of the memory operand, for `n` bytes.
#[inline(always)]
fn address<const WRITE: bool, const ALIGNED: bool>(cpu: &Cpu, op: &Op, n: usize) -> Result<u64, Exception> {
    let la = cpu.ea(op, n as u64, WRITE)?;
    if ALIGNED {
        aligned(la, n as u64)?;
    }
    Ok(la)
}

/// Number of vector registers that the mode can name.
fn vector_registers(cpu: &Cpu) -> usize {
    if cpu.s.long64() { 16 } else { 8 }
}
