//! The host's arithmetic judged by software: rustc_apfloat's 80-bit format.

use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended as F80};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

use super::*;

const ROUNDING: [Round; 4] =
    [Round::NearestTiesToEven, Round::TowardNegative, Round::TowardPositive, Round::TowardZero];

/// Registers that IEEE 754 knows: no unnormals and no pseudo-denormals.
fn number(seed: &mut u64) -> u128 {
    loop {
        let value = specimen(seed);
        let integer = value >> 63 & 1 != 0;
        if integer != (value >> 64 & 0x7fff == 0) {
            return value;
        }
    }
}

fn flags(status: Status) -> u16 {
    [
        (Status::INVALID_OP, IE),
        (Status::DIV_BY_ZERO, ZE),
        (Status::OVERFLOW, OE),
        (Status::UNDERFLOW, UE),
        (Status::INEXACT, PE),
    ]
    .into_iter()
    .fold(0, |all, (flag, bit)| if status.contains(flag) { all | bit } else { all })
}

fn is_nan(value: u128) -> bool {
    value >> 64 & 0x7fff == 0x7fff && value as u64 != 1 << 63
}

/// Values and flags agree; NaNs by being NaNs (the rules for their payloads
/// are Intel's own), underflow where the result is inexact and no rounding
/// takes it to the smallest normal number, where the two detect tininess
/// before or after rounding; overflow except where rounding ends at the
/// largest number, which APFloat calls inexact alone.
fn agree(what: &str, found: (u128, u16), expected: (u128, u16), smallest: u128) {
    let same = found.0 == expected.0 || is_nan(found.0) && is_nan(expected.0);
    assert!(same, "{what}: {:x}, expected {:x}", found.0, expected.0);
    let mut mask = IE | ZE | OE | UE | PE;
    if found.0 & !(1 << 79) == smallest {
        mask &= !UE;
    }
    if found.0 & !(1 << 79) == 0x7ffe << 64 | u128::from(u64::MAX) {
        mask &= !OE;
    }
    assert_eq!(found.1 & mask, expected.1 & mask, "{what}: {:x}", found.0);
}

#[test]
fn arithmetic_agrees_with_software() {
    let mut seed = 0xfeed_0123_4567_89abu64;
    let mut cpu = machine();
    for i in 0..20_000u32 {
        let (a, b) = (number(&mut seed), number(&mut seed));
        let (x, y) = (F80::from_bits(a), F80::from_bits(b));
        let rounding = (seed >> 33) as usize & 3;
        let round = ROUNDING[rounding];
        let (code, expected) = match i % 5 {
            0 => ([0xd8, 0xc1], x.add_r(y, round)),
            1 => ([0xd8, 0xe1], x.sub_r(y, round)),
            2 => ([0xd8, 0xc9], x.mul_r(y, round)),
            3 => ([0xd8, 0xf1], x.div_r(y, round)),
            _ => ([0xd9, 0xfc], x.round_to_integral(round)),
        };
        cpu.s.x87 = X87 { tag: 0xff, ..X87::default() };
        cpu.s.x87.set_cw(0x37f | (rounding as u16) << 10);
        (cpu.s.x87.st[0], cpu.s.x87.st[1]) = (a, b);
        ok(&mut cpu, &code);
        let found = (cpu.s.x87.st[0], cpu.s.x87.sw & FLAGS);
        let expected = (expected.value.to_bits(), flags(expected.status));
        agree(&format!("{code:x?} {a:x} {b:x} {round:?}"), found, expected, 1 << 64 | 1 << 63);
    }
}

#[test]
fn conversions_agree_with_software() {
    let mut seed = 0x0dd5_eed5_4321_8765u64;
    let mut cpu = machine();
    for _ in 0..20_000 {
        let value = number(&mut seed);
        let rounding = (seed >> 33) as usize & 3;
        let round = ROUNDING[rounding];
        cpu.s.x87 = X87 { tag: 0xff, ..X87::default() };
        cpu.s.x87.set_cw(0x37f | (rounding as u16) << 10);
        cpu.s.x87.st[0] = value;
        // To double and single.
        let mut lost = false;
        let double: StatusAnd<Double> = F80::from_bits(value).convert_r(round, &mut lost);
        let single: StatusAnd<Single> = F80::from_bits(value).convert_r(round, &mut lost);
        ok(&mut cpu, &[0xdd, 0x13]);
        let found = (u64::from_le_bytes(peek(&cpu)), cpu.s.x87.sw & FLAGS);
        let expected = (double.value.to_bits() as u64, flags(double.status));
        narrow(value, found, expected, 1 << 52, f64::MAX.to_bits(), 1 << 63);
        cpu.s.x87.sw = 0;
        ok(&mut cpu, &[0xd9, 0x13]);
        let found = (u32::from_le_bytes(peek(&cpu)).into(), cpu.s.x87.sw & FLAGS);
        let expected = (single.value.to_bits() as u64, flags(single.status));
        narrow(value, found, expected, 1 << 23, f32::MAX.to_bits().into(), 1 << 31);
        // From double and single.
        let bits = seed.rotate_left(17);
        cpu.s.x87 = X87::default();
        poke(&cpu, &bits.to_le_bytes());
        ok(&mut cpu, &[0xdd, 0x03]);
        let wide: StatusAnd<F80> = Double::from_bits(bits.into()).convert(&mut lost);
        let found = (cpu.s.x87.st[0], cpu.s.x87.sw & IE);
        agree("fld m64", found, (wide.value.to_bits(), flags(wide.status) & IE), 0);
        ok(&mut cpu, &[0xd9, 0x03]);
        let wide: StatusAnd<F80> = Single::from_bits(u128::from(bits as u32)).convert(&mut lost);
        let found = (cpu.s.x87.st[0], 0);
        agree("fld m32", found, (wide.value.to_bits(), 0), 0);
    }
}

/// As [`agree`], for a narrower format: `max` is its largest number.
fn narrow(value: u128, found: (u64, u16), expected: (u64, u16), smallest: u64, max: u64, sign: u64) {
    let magnitude = |bits: u64| bits & !sign;
    let nan = |bits: u64| magnitude(bits) > max + 1;
    assert!(found.0 == expected.0 || nan(found.0) && nan(expected.0), "{value:x}: {found:x?} {expected:x?}");
    let mut mask = IE | ZE | OE | UE | PE;
    if magnitude(found.0) == smallest {
        mask &= !UE;
    }
    if magnitude(found.0) == max {
        mask &= !OE;
    }
    assert_eq!(found.1 & mask, expected.1 & mask, "{value:x} to {:x}", found.0);
}
