//! String instructions: MOVS, CMPS, SCAS, LODS, STOS, with REP, REPE and REPNE
//! (*SDM vol. 1 §7.3.9*). INS and OUTS are in [`super::io`].
//!
//! A repeated instruction does a bounded number of elements and then comes
//! back to itself, so interrupts are seen between elements; registers are
//! exact at every element, so faults restart where they happened.
//!
//! Ascending through memory that is RAM at hand, a repeated instruction goes by
//! the *span*: the elements up to the end of the page, of the count, of the chunk
//! or of what the address size can name. None of them can fault or be noticed by
//! anyone, so the registers need be exact only at its end.

#[cfg(test)]
mod tests;

use arch::Exception;
use arch::regs::{Seg, gpr, rflags};
use iced_x86::{Code, Mnemonic as M, Register};
use mem::raw::{self, Width};

use super::by_width;
use crate::Cpu;
use crate::decode::Build;
use crate::op::{EA_16, EA_32, Flow, Handler, Op, REP, REPNE};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

const ES: u8 = Seg::Es as u8;
/// Elements done before looking for interrupts.
const CHUNK: u64 = 4096;

impl Cpu {
    #[inline(always)]
    fn string_index(&self, op: &Op, register: usize) -> u64 {
        crate::truncate(op.aux, self.s.regs.get(register))
    }

    /// Writes an index or count register with the address size.
    #[inline(always)]
    fn set_index(&mut self, op: &Op, register: usize, value: u64) {
        match op.aux {
            EA_16 => self.s.regs.write(register as u8 * 8, value as u16),
            EA_32 => self.s.regs.write(register as u8 * 8, value as u32),
            _ => self.s.regs.write(register as u8 * 8, value),
        }
    }

    #[inline(always)]
    fn advance(&mut self, op: &Op, register: usize, by: u64) {
        let value = self.string_index(op, register);
        let value =
            if self.s.rflags & rflags::DF != 0 { value.wrapping_sub(by) } else { value.wrapping_add(by) };
        self.set_index(op, register, value);
    }

    /// Address of the source, `seg:rSI`.
    #[inline(always)]
    fn source(&self, op: &Op, n: u64) -> Result<u64, Exception> {
        self.linear(op.ea, op.seg, self.string_index(op, gpr::RSI), n, false)
    }

    /// Address of the destination, `ES:rDI`.
    #[inline(always)]
    fn destination(&self, op: &Op, n: u64, write: bool) -> Result<u64, Exception> {
        let ea = op.ea & crate::op::EA_LEGACY;
        self.linear(ea, ES, self.string_index(op, gpr::RDI), n, write)
    }

    /// The span at an index register, of `max` elements at most: its linear
    /// address (by `address`, for so many bytes) and how many elements it has;
    /// not worth it below two.
    #[inline(always)]
    fn span<W: Width>(
        &self,
        op: &Op,
        register: usize,
        max: u64,
        address: impl Fn(u64) -> Result<u64, Exception>,
    ) -> Option<(u64, u64)> {
        if self.s.rflags & rflags::DF != 0 {
            return None;
        }
        let la = address(W::BYTES).ok()?;
        let room = crate::truncate(op.aux, u64::MAX) - self.string_index(op, register);
        let n = ((0x1000 - (la & 0xfff)) / W::BYTES).min(room / W::BYTES).min(max);
        // All of them within the segment.
        (n >= 2 && address(n * W::BYTES) == Ok(la)).then_some((la, n))
    }

    #[inline(always)]
    fn source_span<W: Width>(&self, op: &Op, max: u64) -> Option<(*const u8, u64)> {
        let (la, n) = self.span::<W>(op, gpr::RSI, max, |bytes| self.source(op, bytes))?;
        Some((self.ram_read(la, n * W::BYTES)?, n))
    }

    #[inline(always)]
    fn compared_span<W: Width>(&self, op: &Op, max: u64) -> Option<(*const u8, u64)> {
        let (la, n) = self.span::<W>(op, gpr::RDI, max, |bytes| self.destination(op, bytes, false))?;
        Some((self.ram_read(la, n * W::BYTES)?, n))
    }

    #[inline(always)]
    fn target_span<W: Width>(&self, op: &Op, max: u64) -> Option<(*mut u8, u64)> {
        let (la, n) = self.span::<W>(op, gpr::RDI, max, |bytes| self.destination(op, bytes, true))?;
        Some((self.ram_write(la, n * W::BYTES)?, n))
    }
}

/// True if REPE or REPNE goes on after comparing `a` with `b`.
#[inline(always)]
fn goes_on<W: Width>(op: &Op, a: W, b: W) -> bool {
    (a == b) == (op.misc == REP)
}

/// One element; for CMPS and SCAS the flags say whether to go on.
trait Element {
    /// Compares, so that REPE and REPNE look at ZF.
    const COMPARES: bool = false;
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception>;
    /// Does a span of up to `max` elements, of a comparison up to the one that
    /// ends it, and says how many it did.
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64>;
}

struct Movs;
impl Element for Movs {
    #[inline(always)]
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
        let from = cpu.source(op, W::BYTES)?;
        let value = cpu.load::<W>(from, op.seg)?;
        let to = cpu.destination(op, W::BYTES, true)?;
        cpu.store(to, value, ES)?;
        cpu.advance(op, gpr::RSI, W::BYTES);
        cpu.advance(op, gpr::RDI, W::BYTES);
        Ok(())
    }
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64> {
        let (source, n) = cpu.source_span::<W>(op, max)?;
        let (target, n) = cpu.target_span::<W>(op, n)?;
        let len = n * W::BYTES;
        // Overlap that the copy order matters for goes element by element.
        if (target as u64).wrapping_sub(source as u64) < len {
            return None;
        }
        // SAFETY: both are RAM inside one page each; an ascending byte copy is
        // what the instruction does, as the ranges do not overlap that way.
        unsafe { raw::copy(source, target, len as usize) };
        cpu.advance(op, gpr::RSI, len);
        cpu.advance(op, gpr::RDI, len);
        Some(n)
    }
}

struct Stos;
impl Element for Stos {
    #[inline(always)]
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
        let to = cpu.destination(op, W::BYTES, true)?;
        let value = cpu.s.regs.read::<W>(0);
        cpu.store(to, value, ES)?;
        cpu.advance(op, gpr::RDI, W::BYTES);
        Ok(())
    }
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64> {
        let (target, n) = cpu.target_span::<W>(op, max)?;
        // SAFETY: RAM inside one page.
        unsafe { W::fill(target, cpu.s.regs.read::<W>(0), n as usize) };
        cpu.advance(op, gpr::RDI, n * W::BYTES);
        Some(n)
    }
}

struct Lods;
impl Element for Lods {
    #[inline(always)]
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
        let from = cpu.source(op, W::BYTES)?;
        let value = cpu.load::<W>(from, op.seg)?;
        cpu.s.regs.write(0, value);
        cpu.advance(op, gpr::RSI, W::BYTES);
        Ok(())
    }
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64> {
        let (source, n) = cpu.source_span::<W>(op, max)?;
        // SAFETY: RAM inside one page; only the last element is seen.
        let value = unsafe { W::load(source.add(((n - 1) * W::BYTES) as usize)) };
        cpu.s.regs.write(0, value);
        cpu.advance(op, gpr::RSI, n * W::BYTES);
        Some(n)
    }
}

struct Cmps;
impl Element for Cmps {
    const COMPARES: bool = true;
    #[inline(always)]
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
        let from = cpu.source(op, W::BYTES)?;
        let a = cpu.load::<W>(from, op.seg)?.zext();
        let to = cpu.destination(op, W::BYTES, false)?;
        let b = cpu.load::<W>(to, ES)?.zext();
        cpu.s.flags.sub::<W>(a, b, W::truncate(a.wrapping_sub(b)).zext());
        cpu.advance(op, gpr::RSI, W::BYTES);
        cpu.advance(op, gpr::RDI, W::BYTES);
        Ok(())
    }
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64> {
        let (first, n) = cpu.source_span::<W>(op, max)?;
        let (second, n) = cpu.compared_span::<W>(op, n)?;
        let mut at = 0;
        let (a, b) = loop {
            // SAFETY: RAM inside one page each.
            let (a, b) = unsafe { (W::load(first.add(at as usize)), W::load(second.add(at as usize))) };
            at += W::BYTES;
            if at == n * W::BYTES || !goes_on(op, a, b) {
                break (a.zext(), b.zext());
            }
        };
        cpu.s.flags.sub::<W>(a, b, W::truncate(a.wrapping_sub(b)).zext());
        cpu.advance(op, gpr::RSI, at);
        cpu.advance(op, gpr::RDI, at);
        Some(at / W::BYTES)
    }
}

struct Scas;
impl Element for Scas {
    const COMPARES: bool = true;
    #[inline(always)]
    fn once<W: Width>(cpu: &mut Cpu, op: &Op) -> Result<(), Exception> {
        let a = cpu.s.regs.read::<W>(0).zext();
        let to = cpu.destination(op, W::BYTES, false)?;
        let b = cpu.load::<W>(to, ES)?.zext();
        cpu.s.flags.sub::<W>(a, b, W::truncate(a.wrapping_sub(b)).zext());
        cpu.advance(op, gpr::RDI, W::BYTES);
        Ok(())
    }
    fn span<W: Width>(cpu: &mut Cpu, op: &Op, max: u64) -> Option<u64> {
        let (target, n) = cpu.compared_span::<W>(op, max)?;
        let a = cpu.s.regs.read::<W>(0);
        let mut at = 0;
        let b = loop {
            // SAFETY: RAM inside one page.
            let b = unsafe { W::load(target.add(at as usize)) };
            at += W::BYTES;
            if at == n * W::BYTES || !goes_on(op, a, b) {
                break b.zext();
            }
        };
        let a = a.zext();
        cpu.s.flags.sub::<W>(a, b, W::truncate(a.wrapping_sub(b)).zext());
        cpu.advance(op, gpr::RDI, at);
        Some(at / W::BYTES)
    }
}

fn plain<E: Element, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    E::once::<W>(cpu, op)?;
    Ok(Flow::Next)
}

fn repeated<E: Element, W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let mut left = cpu.string_index(op, gpr::RCX);
    // Single-stepping traps after every element (SDM vol. 3B §17.3.1.4).
    let mut chunk = if cpu.s.rflags & rflags::TF != 0 { 1 } else { CHUNK };
    while left != 0 {
        if chunk == 0 {
            cpu.s.rip = cpu.this_rip(op);
            return Ok(Flow::Jump);
        }
        let done = match E::span::<W>(cpu, op, left.min(chunk)) {
            Some(done) => done,
            None => {
                E::once::<W>(cpu, op)?;
                1
            }
        };
        left = crate::truncate(op.aux, left.wrapping_sub(done));
        cpu.set_index(op, gpr::RCX, left);
        chunk -= done;
        if E::COMPARES && cpu.s.flags.zf() != (op.misc == REP) {
            break;
        }
        if cpu.pending_db != 0 && left != 0 {
            chunk = 0;
        }
    }
    Ok(Flow::Next)
}

fn string<E: Element>(b: &mut Build<'_>) -> Option<Handler> {
    let address = b.address_size();
    // The source's segment may be overridden; ES:rDI may not.
    let segment =
        if b.insn.segment_prefix() == Register::None { Register::DS } else { b.insn.segment_prefix() };
    b.segment(segment, address);
    // `aux`: address size, to truncate registers; `ea`: what `linear` needs.
    b.op.aux = b.op.ea & (EA_16 | EA_32);
    b.op.ea &= !(EA_16 | EA_32);
    if b.mode != crate::cache::Mode::Bits64 && address == 4 {
        b.op.aux = EA_32;
    }
    let width = b.insn.memory_size().size();
    b.op.misc = if b.insn.has_repne_prefix() {
        REPNE
    } else if b.insn.has_rep_prefix() {
        REP
    } else {
        return by_width!(width, plain, E);
    };
    by_width!(width, repeated, E)
}

/// MOVSD and CMPSD name two instructions each: here go those on strings.
fn movs_d(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.code() == Code::Movsd_m32_m32 { string::<Movs>(b) } else { super::movsd_vector(b) }
}

fn cmps_d(b: &mut Build<'_>) -> Option<Handler> {
    if b.insn.code() == Code::Cmpsd_m32_m32 { string::<Cmps>(b) } else { super::cmpsd_vector(b) }
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::String, build)
}

const MOVS: &str = "MOVS/MOVSB/MOVSW/MOVSD/MOVSQ—Move Data From String to String";
const CMPS: &str = "CMPS/CMPSB/CMPSW/CMPSD/CMPSQ—Compare String Operands";
const SCAS: &str = "SCAS/SCASB/SCASW/SCASD—Scan String";
const LODS: &str = "LODS/LODSB/LODSW/LODSD/LODSQ—Load String";
const STOS: &str = "STOS/STOSB/STOSW/STOSD/STOSQ—Store String";

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    row(M::Movsb, MOVS, string::<Movs>),
    row(M::Movsw, MOVS, string::<Movs>),
    row(M::Movsd, MOVS, movs_d),
    row(M::Movsq, MOVS, string::<Movs>),
    row(M::Cmpsb, CMPS, string::<Cmps>),
    row(M::Cmpsw, CMPS, string::<Cmps>),
    row(M::Cmpsd, CMPS, cmps_d),
    row(M::Cmpsq, CMPS, string::<Cmps>),
    row(M::Scasb, SCAS, string::<Scas>),
    row(M::Scasw, SCAS, string::<Scas>),
    row(M::Scasd, SCAS, string::<Scas>),
    row(M::Scasq, SCAS, string::<Scas>),
    row(M::Lodsb, LODS, string::<Lods>),
    row(M::Lodsw, LODS, string::<Lods>),
    row(M::Lodsd, LODS, string::<Lods>),
    row(M::Lodsq, LODS, string::<Lods>),
    row(M::Stosb, STOS, string::<Stos>),
    row(M::Stosw, STOS, string::<Stos>),
    row(M::Stosd, STOS, string::<Stos>),
    row(M::Stosq, STOS, string::<Stos>),
];
