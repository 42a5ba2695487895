//! FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XRSTOR: checks and memory; the
//! images themselves are [`crate::xstate`]'s (*SDM vol. 1 §10.5, chapter 13*).

use arch::Exception;
use arch::regs::{Cr0, Cr4, Xcr0, gpr};
use iced_x86::Mnemonic as M;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};
use crate::xstate::layout::{HEADER, HEADER_SIZE, LEGACY_SIZE, MAX_SIZE};
use crate::xstate::{Area, BadArea, Form, Plan};

type Ran = Result<Flow, Exception>;

impl From<BadArea> for Exception {
    fn from(_: BadArea) -> Exception {
        Exception::GP0
    }
}

/// Linear address of the `n` bytes from `offset` of an area whose operand the
/// op names: outside 64-bit mode each is checked against the limit.
fn piece(cpu: &Cpu, op: &Op, offset: u64, n: u64, write: bool) -> Result<u64, Exception> {
    let at = Op { disp: op.disp.wrapping_add(offset), ..*op };
    cpu.ea(&at, n, write)
}

/// The area must be canonical, then aligned.
fn aligned(cpu: &mut Cpu, op: &Op, alignment: u64, write: bool) -> Result<u64, Exception> {
    let la = cpu.ea(op, 1, write)?;
    cpu.check(la, 1, op.seg)?;
    if la & (alignment - 1) != 0 { Err(Exception::GP0) } else { Ok(la) }
}

/// Writes an area, all of it or nothing.
fn write(cpu: &mut Cpu, op: &Op, area: &Area) -> Result<(), Exception> {
    for (offset, bytes) in area.pieces() {
        let la = piece(cpu, op, offset, bytes.len() as u64, true)?;
        cpu.probe_write(la, bytes.len() as u64, op.seg)?;
    }
    for (offset, bytes) in area.pieces() {
        let la = piece(cpu, op, offset, bytes.len() as u64, true)?;
        cpu.write_bytes(la, bytes, op.seg)?;
    }
    Ok(())
}

/// Reads part of an area.
fn read(cpu: &mut Cpu, op: &Op, offset: usize, buf: &mut [u8]) -> Result<(), Exception> {
    let la = piece(cpu, op, offset as u64, buf.len() as u64, false)?;
    cpu.read_bytes(la, buf, op.seg)
}

fn fx_checks(cpu: &mut Cpu, op: &Op, write: bool) -> Result<u64, Exception> {
    if cpu.s.cr0.intersects(Cr0::EM | Cr0::TS) {
        return Err(Exception::NM);
    }
    aligned(cpu, op, 16, write)
}

fn fxsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    // The whole image is checked, though its last bytes are not written.
    let la = fx_checks(cpu, op, true)?;
    cpu.probe_write(la, LEGACY_SIZE as u64, op.seg)?;
    let area = cpu.s.fxsave_area(WIDE, cpu.s.cr4.contains(Cr4::OSFXSR));
    write(cpu, op, &area)?;
    Ok(Flow::Next)
}

fn fxrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    fx_checks(cpu, op, false)?;
    let mut image = [0; LEGACY_SIZE];
    read(cpu, op, 0, &mut image)?;
    let vectors = cpu.s.cr4.contains(Cr4::OSFXSR);
    cpu.s.fxrstor_area(&image, WIDE, vectors)?;
    Ok(Flow::Next)
}

/// `#UD`, `#NM`, alignment; then RFBM: what EDX:EAX asks for of what XCR0 enables.
fn x_checks(cpu: &mut Cpu, op: &Op, write: bool) -> Result<Xcr0, Exception> {
    if !cpu.s.cr4.contains(Cr4::OSXSAVE) {
        return Err(Exception::UD);
    }
    if cpu.s.cr0.contains(Cr0::TS) {
        return Err(Exception::NM);
    }
    aligned(cpu, op, 64, write)?;
    let half = |register: usize| cpu.s.regs.get(register) & 0xffff_ffff;
    let asked = half(gpr::RDX) << 32 | half(gpr::RAX);
    Ok(cpu.s.xcr0 & Xcr0::from_bits_retain(asked))
}

fn save<const WIDE: bool>(cpu: &mut Cpu, op: &Op, form: Form) -> Ran {
    let components = x_checks(cpu, op, true)?;
    let mut old_bv = [0; 8];
    if form != Form::Compacted {
        read(cpu, op, HEADER, &mut old_bv)?;
    }
    let area = cpu.s.xsave_area(components, form, u64::from_le_bytes(old_bv), WIDE);
    write(cpu, op, &area)?;
    Ok(Flow::Next)
}

fn xsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    save::<WIDE>(cpu, op, Form::Standard)
}

fn xsaveopt<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    save::<WIDE>(cpu, op, Form::Optimised)
}

fn xsavec<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    save::<WIDE>(cpu, op, Form::Compacted)
}

fn xrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Ran {
    let components = x_checks(cpu, op, false)?;
    let mut area = [0; MAX_SIZE];
    read(cpu, op, 0, &mut area[..HEADER + HEADER_SIZE])?;
    let header = area[HEADER..].first_chunk().unwrap_or(&[0; HEADER_SIZE]);
    let plan = Plan::new(header, components, cpu.s.xcr0)?;
    for (component, offset) in plan.extended() {
        if let Some(bytes) = area.get_mut(offset..offset + component.size) {
            read(cpu, op, offset, bytes)?;
        }
    }
    cpu.s.xrstor_area(&plan, &area, WIDE)?;
    Ok(Flow::Next)
}

macro_rules! built {
    ($handler:expr) => {
        |_: &mut Build<'_>| -> Option<Handler> { Some(any($handler)) }
    };
}

const fn row(mnemonic: M, sdm: &'static str, build: crate::ops::Builder) -> Row {
    Row::new(mnemonic, sdm, Group::State, build)
}

/// The part of the instruction table for processor state in memory.
pub(super) const ROWS: &[Row] = &[
    row(M::Fxrstor, "FXRSTOR", built!(fxrstor::<false>)),
    row(M::Fxrstor64, "FXRSTOR", built!(fxrstor::<true>)),
    row(M::Fxsave, "FXSAVE", built!(fxsave::<false>)),
    row(M::Fxsave64, "FXSAVE", built!(fxsave::<true>)),
    row(M::Xrstor, "XRSTOR", built!(xrstor::<false>)),
    row(M::Xrstor64, "XRSTOR", built!(xrstor::<true>)),
    row(M::Xsave, "XSAVE", built!(xsave::<false>)),
    row(M::Xsave64, "XSAVE", built!(xsave::<true>)),
    row(M::Xsavec, "XSAVEC", built!(xsavec::<false>)),
    row(M::Xsavec64, "XSAVEC", built!(xsavec::<true>)),
    row(M::Xsaveopt, "XSAVEOPT", built!(xsaveopt::<false>)),
    row(M::Xsaveopt64, "XSAVEOPT", built!(xsaveopt::<true>)),
];

#[cfg(test)]
mod tests;
