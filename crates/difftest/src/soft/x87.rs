//! x87 addition, subtraction, multiplication, division, loads and stores.
//!
//! Cases with empty registers, NaNs, unsupported formats or results outside the
//! range of normal numbers under reduced precision are left to the host.

use iced_x86::{Instruction, MemorySize, Mnemonic as M, OpKind};
use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended as Extended};
use rustc_apfloat::{Float, FloatConvert, Round, Status};

use super::ieee::{self, Binary, Control, Flags};
use crate::snapshot::Registers;

/// Judges; see [`super::judge`].
pub(super) fn judge(
    insn: &Instruction,
    before: &Registers,
    operand: Option<&[u8]>,
    after: &Registers,
) -> Option<Result<(), String>> {
    // With every exception masked and none pending.
    if before.cw & 0x3f != 0x3f {
        return None;
    }
    use Binary::{Add, Div, Mul, Sub};
    let (op, reversed) = match insn.mnemonic() {
        M::Fadd | M::Faddp | M::Fiadd => (Add, false),
        M::Fsub | M::Fsubp | M::Fisub => (Sub, false),
        M::Fsubr | M::Fsubrp | M::Fisubr => (Sub, true),
        M::Fmul | M::Fmulp | M::Fimul => (Mul, false),
        M::Fdiv | M::Fdivp | M::Fidiv => (Div, false),
        M::Fdivr | M::Fdivrp | M::Fidivr => (Div, true),
        _ => return None,
    };
    let (mut flags, memory) = (0, insn.op0_kind() == OpKind::Memory);
    let popped = matches!(insn.mnemonic(), M::Faddp | M::Fsubp | M::Fsubrp | M::Fmulp | M::Fdivp | M::Fdivrp);
    // The destination register and the other operand.
    let (number, other) = if memory {
        (0, memory_operand(insn, operand?, &mut flags)?)
    } else {
        let (to, from) = (insn.op0_register().number(), insn.op1_register().number());
        (to, register(before, from, &mut flags)?)
    };
    let target = register(before, number, &mut flags)?;
    let (a, b) = if reversed { (other, target) } else { (target, other) };
    let round = ieee::rounding(u32::from(before.cw) >> 10);
    let precision = match before.cw >> 8 & 3 {
        0 => 24,
        2 => 53,
        3 => 64,
        _ => return None,
    };
    let (value, raised) = compute(op, a, b, precision, round)?;
    flags |= raised;
    if raised & (ieee::IE | ieee::ZE) != 0 {
        flags &= !ieee::DE;
    }
    let found = after.st[if popped { number.checked_sub(1)? } else { number }];
    let want = value.to_bits();
    if found != want {
        return Some(Err(format!("result: expected {want:#022x}, kluis {found:#022x}")));
    }
    let (had, has) = (u32::from(before.sw) & 0x3f, u32::from(after.sw) & 0x3f);
    if has != had | flags {
        return Some(Err(format!("status flags: expected {:#x}, kluis {has:#x}", had | flags)));
    }
    Some(Ok(()))
}

fn register(before: &Registers, number: usize, flags: &mut Flags) -> Option<Extended> {
    let physical = (usize::from(before.sw >> 11 & 7) + number) & 7;
    if before.tag >> physical & 1 == 0 {
        return None;
    }
    let bits = before.st[number];
    let (exponent, integer) = (bits >> 64 & 0x7fff, bits >> 63 & 1);
    // Unsupported formats and pseudo-denormals, NaNs.
    if (exponent != 0) != (integer == 1) || exponent == 0x7fff && bits << 65 != 0 {
        return None;
    }
    let value = Extended::from_bits(bits);
    if value.is_denormal() {
        *flags |= ieee::DE;
    }
    Some(value)
}

fn memory_operand(insn: &Instruction, bytes: &[u8], flags: &mut Flags) -> Option<Extended> {
    let low = u64::from_le_bytes(*bytes.first_chunk()?);
    let mut denormal = false;
    let value = match insn.memory_size() {
        MemorySize::Float32 => {
            let x = Single::from_bits(u128::from(low as u32));
            denormal |= x.is_denormal();
            x.convert(&mut false).value
        }
        MemorySize::Float64 => {
            let x = Double::from_bits(u128::from(low));
            denormal |= x.is_denormal();
            x.convert(&mut false).value
        }
        MemorySize::Int16 => Extended::from_i128(i128::from(low as i16)).value,
        MemorySize::Int32 => Extended::from_i128(i128::from(low as i32)).value,
        _ => return None,
    };
    if denormal {
        *flags |= ieee::DE;
    }
    (!value.is_nan()).then_some(value)
}

/// The operation at a precision of 24, 53 or 64 bits.
fn compute(op: Binary, a: Extended, b: Extended, precision: u32, round: Round) -> Option<(Extended, Flags)> {
    // Sums near the end of the range leave that of quadruple precision too.
    let edge = |x: Extended| x.is_finite_non_zero() && x.ilogb() > Extended::MAX_EXP - 2;
    if matches!(op, Binary::Add | Binary::Sub) && (edge(a) || edge(b)) {
        return None;
    }
    if precision == 64 {
        let control = Control { round, daz: false, ftz: false };
        let (value, flags) = ieee::binary(op, a, b, control);
        return Some((value, flags & !ieee::DE));
    }
    let toward = Round::TowardZero;
    let exact = match op {
        Binary::Add => a.add_r(b, toward),
        Binary::Sub => a.sub_r(b, toward),
        Binary::Mul => a.mul_r(b, toward),
        Binary::Div => a.div_r(b, toward),
    };
    let overflow = exact.value.is_finite_non_zero() && exact.value.ilogb() == Extended::MAX_EXP;
    if !(exact.status & !Status::INEXACT).is_empty() || !exact.value.is_normal() || overflow {
        return None;
    }
    // To odd, so that rounding again is right; then in a format of that
    // precision, moved to the middle of its range.
    let inexact = exact.status.contains(Status::INEXACT);
    let odd = Extended::from_bits(exact.value.to_bits() | u128::from(inexact));
    let exponent = odd.ilogb();
    let middle = odd.scalbn(-exponent);
    let mut lost = false;
    let rounded: Extended = if precision == 53 {
        let x: Double = middle.convert_r(round, &mut lost).value;
        x.convert(&mut false).value
    } else {
        let x: Single = middle.convert_r(round, &mut lost).value;
        x.convert(&mut false).value
    };
    let value = rounded.scalbn(exponent);
    value.is_normal().then_some((value, if lost || inexact { ieee::PE } else { 0 }))
}
