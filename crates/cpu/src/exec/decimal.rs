//! What 64-bit mode has no more: decimal adjustment, BOUND, SALC
//! (*SDM vol. 1 §7.3.4, §7.3.17*). 32-bit programs still use them.

use arch::regs::rflags::{AF, CF, PF, SF, ZF};
use arch::{Exception, Vector};
use iced_x86::Mnemonic as M;
use mem::raw::Width;

use crate::Cpu;
use crate::chain::any;
use crate::decode::Build;
use crate::op::{Flow, Handler, Op};
use crate::ops::{Group, Row};

type Ran = Result<Flow, Exception>;

/// DAA and DAS (`SUBTRACT`).
fn packed<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let old = cpu.s.regs.read::<u8>(0);
    let (old_cf, old_af) = (cpu.s.flags.cf(), cpu.s.flags.af());
    let adjust = |al: u8, by: u8| if SUBTRACT { al.wrapping_sub(by) } else { al.wrapping_add(by) };
    let (mut al, mut cf, mut af) = (old, false, false);
    if old & 15 > 9 || old_af {
        al = adjust(al, 6);
        let carry = if SUBTRACT { old < 6 } else { old > 0xf9 };
        cf = old_cf || carry;
        af = true;
    }
    if old > 0x99 || old_cf {
        al = adjust(al, 0x60);
        cf = true;
    }
    cpu.s.regs.write(0, al);
    cpu.s.flags.logic::<u8>(u64::from(al));
    cpu.s.flags.update(CF | AF, u64::from(cf) | if af { AF } else { 0 });
    Ok(Flow::Next)
}

/// AAA and AAS (`SUBTRACT`).
fn unpacked<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Ran {
    let ax = cpu.s.regs.read::<u16>(0);
    let carry = ax & 15 > 9 || cpu.s.flags.af();
    let adjusted = match (carry, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(6).wrapping_sub(0x100),
    };
    cpu.s.regs.write(0, adjusted & 0xff0f);
    cpu.s.flags.update(CF | AF, if carry { CF | AF } else { 0 });
    Ok(Flow::Next)
}

fn sign_zero_parity(cpu: &mut Cpu, al: u8) {
    let mut flags = crate::flags::LazyFlags::default();
    flags.logic::<u8>(u64::from(al));
    cpu.s.flags.update(SF | ZF | PF, flags.get());
}

fn aam(cpu: &mut Cpu, op: &Op) -> Ran {
    let base = op.imm as u8;
    if base == 0 {
        return Err(Exception::DE);
    }
    let al = cpu.s.regs.read::<u8>(0);
    cpu.s.regs.write(1, al / base);
    cpu.s.regs.write(0, al % base);
    sign_zero_parity(cpu, al % base);
    Ok(Flow::Next)
}

fn aad(cpu: &mut Cpu, op: &Op) -> Ran {
    let (al, ah) = (cpu.s.regs.read::<u8>(0), cpu.s.regs.read::<u8>(1));
    let al = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    cpu.s.regs.write(0, u16::from(al));
    sign_zero_parity(cpu, al);
    Ok(Flow::Next)
}

fn bound<W: Width>(cpu: &mut Cpu, op: &Op) -> Ran {
    let la = cpu.ea(op, 2 * W::BYTES, false)?;
    let low = cpu.load::<W>(la, op.seg)?.sext() as i64;
    let high = cpu.load::<W>(la.wrapping_add(W::BYTES), op.seg)?.sext() as i64;
    let index = cpu.s.regs.read::<W>(op.dst).sext() as i64;
    if index < low || index > high {
        return Err(Exception::new(Vector::BoundRange, 0));
    }
    Ok(Flow::Next)
}

fn salc(cpu: &mut Cpu, _op: &Op) -> Ran {
    let al = if cpu.s.flags.cf() { 0xff } else { 0 };
    cpu.s.regs.write::<u8>(0, al);
    Ok(Flow::Next)
}

fn daa_build(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(packed::<false>))
}
fn das_build(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(packed::<true>))
}
fn aaa_build(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(unpacked::<false>))
}
fn aas_build(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(unpacked::<true>))
}
fn aam_build(b: &mut Build<'_>) -> Option<Handler> {
    b.imm(0);
    Some(any(aam))
}
fn aad_build(b: &mut Build<'_>) -> Option<Handler> {
    b.imm(0);
    Some(any(aad))
}
fn bound_build(b: &mut Build<'_>) -> Option<Handler> {
    b.op.dst = b.reg(0);
    Some(if b.width(0) == 2 { any(bound::<u16>) } else { any(bound::<u32>) })
}
fn salc_build(_b: &mut Build<'_>) -> Option<Handler> {
    Some(any(salc))
}

/// This file's part of the instruction table.
pub(super) const ROWS: &[Row] = &[
    Row::new(M::Daa, "DAA—Decimal Adjust AL After Addition", Group::Arithmetic, daa_build),
    Row::new(M::Das, "DAS—Decimal Adjust AL After Subtraction", Group::Arithmetic, das_build),
    Row::new(M::Aaa, "AAA—ASCII Adjust After Addition", Group::Arithmetic, aaa_build),
    Row::new(M::Aas, "AAS—ASCII Adjust AL After Subtraction", Group::Arithmetic, aas_build),
    Row::new(M::Aam, "AAM—ASCII Adjust AX After Multiply", Group::Arithmetic, aam_build),
    Row::new(M::Aad, "AAD—ASCII Adjust AX Before Division", Group::Arithmetic, aad_build),
    Row::new(M::Bound, "BOUND—Check Array Index Against Bounds", Group::Misc, bound_build),
    Row::new(M::Salc, "SALC—Set AL From Carry", Group::Misc, salc_build),
];
