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

use crate::op::{Flow, Op};
use crate::{Cpu, State};

pub(super) use control::ROWS as CONTROL;
pub(super) use masked::ROWS as MASKED;
pub(super) use moves::{ROWS as MOVES, movsd};
pub(super) use rows::{AVX, CRYPTO, MMX, SSE};
pub(super) use run::build as thunk;

type Ran = Result<Flow, Exception>;

/// Which vector instructions may not be used: bit 0 those of XMM registers by legacy
/// encodings, bit 1 VEX encodings. To be found anew when control registers have changed.
pub(crate) fn closed(s: &State) -> u8 {
    u8::from(closed_by::<false>(s).is_some()) | u8::from(closed_by::<true>(s).is_some()) << 1
}

/// The exception of vector instructions that may not be used now (*SDM vol. 2A
/// table 2-21 and following*, the rows for `#UD` and `#NM` that all classes share).
fn closed_by<const VEX: bool>(s: &State) -> Option<Exception> {
    let undefined = if VEX {
        !s.cr0.contains(Cr0::PE) || !s.cr4.contains(Cr4::OSXSAVE) || !s.xcr0.contains(Xcr0::SSE | Xcr0::AVX)
    } else {
        s.cr0.contains(Cr0::EM) || !s.cr4.contains(Cr4::OSFXSR)
    };
    let absent = s.cr0.contains(Cr0::TS).then_some(Exception::NM);
    if undefined { Some(Exception::UD) } else { absent }
}

/// True if such instructions may not be used now.
#[inline(always)]
fn is_closed<const VEX: bool>(cpu: &Cpu) -> bool {
    cpu.vector_closed & 1 << u8::from(VEX) != 0
}

/// Whether vector instructions may be used now.
#[inline(always)]
fn gate<const VEX: bool>(cpu: &Cpu) -> Result<(), Exception> {
    if is_closed::<VEX>(cpu) { Err(closed_by::<VEX>(&cpu.s).unwrap_or(Exception::UD)) } else { Ok(()) }
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
