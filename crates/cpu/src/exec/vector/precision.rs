//! Whether an operation that raises `#XM` for overflow or underflow is inexact.
//!
//! If overflow or underflow is unmasked, the precision flag is about the result
//! rounded as if exponents had no bounds (*SDM vol. 1 §4.9.1.4–6*); the host,
//! which runs with all exceptions masked, reports the flag of the result that
//! it delivers. So the few operations that can raise both are looked at once
//! more, element by element, with exact arithmetic.

use arch::regs::mxcsr;
use iced_x86::{Instruction, OpKind};

use crate::Cpu;
use crate::op::Op;

/// Overflow is masked.
const OM: u32 = 1 << 10;
/// Underflow is masked.
const UM: u32 = 1 << 11;

// Operations; the low five bits of `Op::misc`. Zero: none that this is about.
const ADD: u8 = 1;
const SUB: u8 = 2;
const MUL: u8 = 3;
const DIV: u8 = 4;
const ADD_SUB: u8 = 5;
const HORIZONTAL_ADD: u8 = 6;
const HORIZONTAL_SUB: u8 = 7;
/// Doubles to singles.
const NARROW: u8 = 8;
/// Singles to halves.
const HALVE: u8 = 9;
/// The first multiply-add: three orders of operands for each of [`FUSED`].
const FUSED_FIRST: u8 = 10;
/// Mnemonics of the multiply-adds without order and format, longest first
/// where one begins another.
const FUSED: [&str; 6] = ["fmaddsub", "fmsubadd", "fmadd", "fmsub", "fnmadd", "fnmsub"];
/// `Op::misc`: elements are doubles.
const DOUBLE: u8 = 1 << 5;
/// `Op::misc`: log2 of the number of results, from this bit on.
const COUNT: u32 = 6;
/// `Op::src`: the last operand is in memory.
const MEMORY: u8 = 1 << 4;

/// Notes in `op` what [`is_inexact`] has to know: `misc` the operation, `dst`
/// the first and second of three operands, `src` the last one.
pub(super) fn note(op: &mut Op, insn: &Instruction) {
    (op.misc, op.dst, op.src) = packed(insn).unwrap_or_default();
}

fn packed(insn: &Instruction) -> Option<(u8, u8, u8)> {
    let name = format!("{:?}", insn.mnemonic()).to_ascii_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    let (stem, format) = name.split_at_checked(name.len().checked_sub(2)?)?;
    // Zero for memory.
    let register = |n: u32| match insn.op_kind(n) {
        OpKind::Register => (insn.op_register(n).number() & 15) as u8,
        _ => 0,
    };
    // Of conversions, only the source matters; it is the last operand that is no immediate.
    let narrowing = match name {
        "cvtpd2ps" | "cvtsd2ss" => Some(NARROW),
        "cvtps2ph" => Some(HALVE),
        _ => None,
    };
    let operation = match stem {
        _ if narrowing.is_some() => narrowing?,
        "add" => ADD,
        "sub" => SUB,
        "mul" => MUL,
        "div" => DIV,
        "addsub" => ADD_SUB,
        "hadd" => HORIZONTAL_ADD,
        "hsub" => HORIZONTAL_SUB,
        _ => {
            let family = FUSED.iter().position(|family| stem.starts_with(family))?;
            let order =
                ["132", "213", "231"].iter().position(|order| stem[FUSED[family].len()..] == **order)?;
            FUSED_FIRST + (family * 3 + order) as u8
        }
    };
    let double = match format {
        _ if narrowing.is_some() => operation == NARROW,
        "pd" | "sd" => true,
        "ps" | "ss" => false,
        _ => return None,
    };
    // A legacy encoding's first operand is a source, too.
    let second = u32::from(insn.op_count() > 2 && narrowing.is_none());
    let last = if operation == HALVE { 1 } else { insn.op_count() - 1 };
    let scalar = matches!(format, "ss" | "sd");
    let wide = (0..insn.op_count()).any(|n| match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n).is_ymm(),
        kind => kind == OpKind::Memory && insn.memory_size().size() == 32,
    });
    let bytes = if wide { 32 } else { 16 };
    let count = if scalar { 1u32 } else { bytes / if double { 8 } else { 4 } };
    let kind = operation | if double { DOUBLE } else { 0 } | (count.ilog2() as u8) << COUNT;
    let source = if insn.op_kind(last) == OpKind::Memory { MEMORY } else { register(last) };
    Some((kind, register(0) | register(second) << 4, source))
}

/// True if the operation of `op`, whose operands are in the state and, if in
/// memory, in the scratch, is inexact under the guest's MXCSR: for unmasked
/// overflow or underflow with unbounded exponents. `None` if `op` is not about
/// one of these operations.
pub(super) fn is_inexact(cpu: &Cpu, op: &Op) -> Option<bool> {
    let operation = op.misc & 31;
    if operation == 0 {
        return None;
    }
    let control = cpu.s.mxcsr;
    let double = op.misc & DOUBLE != 0;
    let (source, target) = match operation {
        NARROW => (Format::DOUBLE, Format::SINGLE),
        HALVE => (Format::SINGLE, Format::HALF),
        _ if double => (Format::DOUBLE, Format::DOUBLE),
        _ => (Format::SINGLE, Format::SINGLE),
    };
    let target = Target {
        format: target,
        overflow_masked: control & OM != 0,
        underflow_masked: control & UM != 0,
        // Conversion to halves ignores FTZ.
        flush: control & mxcsr::FTZ != 0 && operation != HALVE,
    };
    let register = |number: u8| bytes_of(cpu.s.vec[usize::from(number & 15)].0);
    let (first, second) = (&register(op.dst), &register(op.dst >> 4));
    let last = &if op.src & MEMORY != 0 { cpu.thunks.scratch.0 } else { register(op.src) };
    let element = |from: &[u8; 64], n: usize| source.read(from, n, control & mxcsr::DAZ != 0);
    let results = 1usize << (op.misc >> COUNT);
    let inexact = |n: usize| -> Option<bool> {
        let exact = match operation {
            ADD => add(element(second, n)?, element(last, n)?),
            SUB => add(element(second, n)?, element(last, n)?.negated_if(true)),
            ADD_SUB => add(element(second, n)?, element(last, n)?.negated_if(n & 1 == 0)),
            MUL => multiply(element(second, n)?, element(last, n)?),
            DIV => divide(element(second, n)?, element(last, n)?)?,
            HORIZONTAL_ADD | HORIZONTAL_SUB => {
                // In each 128 bits, sums of the first source come first.
                let half = if double { 1 } else { 2 };
                let lane = n & !(2 * half - 1);
                let within = n - lane;
                let from = if within < half { second } else { last };
                let pair = lane + 2 * (within % half);
                add(element(from, pair)?, element(from, pair + 1)?.negated_if(operation == HORIZONTAL_SUB))
            }
            NARROW | HALVE => element(last, n)?,
            _ => {
                let (family, order) = ((operation - FUSED_FIRST) / 3, (operation - FUSED_FIRST) % 3);
                let (x, y, z) = match order {
                    0 => (first, last, second),
                    1 => (second, first, last),
                    _ => (second, last, first),
                };
                let (odd, [x, y, z]) = (n & 1 != 0, [element(x, n)?, element(y, n)?, element(z, n)?]);
                // By the order of FUSED: whether the product, whether the addend is negated.
                let (product, addend) =
                    [(false, !odd), (false, odd), (false, false), (false, true), (true, false), (true, true)]
                        [usize::from(family).min(5)];
                add(multiply(x, y).negated_if(product), z.negated_if(addend))
            }
        };
        Some(target.loses(exact))
    };
    // An element without a finite, defined result is not inexact.
    Some((0..results).any(|n| inexact(n) == Some(true)))
}

/// True if the operation of `op` is a conversion to halves with an exact
/// result that is tiny: underflow, if unmasked. It ignores FTZ, by which the
/// host can be made to tell of others.
pub(super) fn has_tiny_half(cpu: &Cpu, op: &Op) -> bool {
    let tiny = |exact: Exact| {
        exact.significand != 0 && {
            let (exact, half) = (exact.odd(), Format::HALF);
            exact.bits() <= half.precision && exact.leading() < half.min
        }
    };
    let source = &bytes_of(cpu.s.vec[usize::from(op.src & 15)].0);
    let daz = cpu.s.mxcsr & mxcsr::DAZ != 0;
    op.misc & 31 == HALVE
        && (0..1 << (op.misc >> COUNT)).any(|n| Format::SINGLE.read(source, n, daz).is_some_and(tiny))
}

fn bytes_of(words: [u64; 8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
        at.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A binary format (*SDM vol. 1 table 4-3*).
#[derive(Clone, Copy, Debug)]
struct Format {
    /// Bytes.
    size: usize,
    /// Bits of the significand, the leading one included.
    precision: u32,
    /// Exponents of the largest and of the smallest normal number.
    max: i32,
    min: i32,
}

impl Format {
    const HALF: Format = Format { size: 2, precision: 11, max: 15, min: -14 };
    const SINGLE: Format = Format { size: 4, precision: 24, max: 127, min: -126 };
    const DOUBLE: Format = Format { size: 8, precision: 53, max: 1023, min: -1022 };

    /// Element `n`; `None` if it is infinite or not a number.
    fn read(self, from: &[u8; 64], n: usize, daz: bool) -> Option<Exact> {
        let mut bytes = [0; 8];
        bytes[..self.size].copy_from_slice(from.get(n * self.size..(n + 1) * self.size)?);
        let bits = u64::from_le_bytes(bytes);
        let fraction = bits & ((1 << (self.precision - 1)) - 1);
        let biased = (bits >> (self.precision - 1)) as i32 & (2 * self.max + 1);
        let negative = bits >> (self.size * 8 - 1) & 1 != 0;
        let (significand, exponent) = match biased {
            0 if daz => (0, 0),
            0 => (fraction, self.min),
            _ if biased == 2 * self.max + 1 => return None,
            _ => (fraction | 1 << (self.precision - 1), biased - self.max),
        };
        let exponent = exponent - (self.precision as i32 - 1);
        Some(Exact { negative, significand: significand.into(), exponent, more: false })
    }
}

/// `significand * 2^exponent`.
#[derive(Clone, Copy, Debug)]
struct Exact {
    negative: bool,
    significand: u128,
    exponent: i32,
    /// The value has more digits than any format holds; these are the first.
    more: bool,
}

impl Exact {
    fn negated_if(self, so: bool) -> Exact {
        Exact { negative: self.negative ^ so, ..self }
    }

    fn bits(self) -> u32 {
        u128::BITS - self.significand.leading_zeros()
    }

    /// Exponent of the first digit; the value is not zero.
    fn leading(self) -> i32 {
        self.exponent + self.bits() as i32 - 1
    }

    /// The same value, not zero, with an odd significand.
    fn odd(self) -> Exact {
        let zeros = self.significand.trailing_zeros();
        Exact { significand: self.significand >> zeros, exponent: self.exponent + zeros as i32, ..self }
    }
}

/// The product of two numbers of at most 53 bits.
fn multiply(a: Exact, b: Exact) -> Exact {
    Exact {
        negative: a.negative ^ b.negative,
        significand: a.significand * b.significand,
        exponent: a.exponent + b.exponent,
        more: false,
    }
}

/// The quotient of two numbers of at most 53 bits; `None` by zero.
fn divide(a: Exact, b: Exact) -> Option<Exact> {
    let negative = a.negative ^ b.negative;
    if a.significand == 0 || b.significand == 0 {
        return (b.significand != 0).then_some(Exact { negative, ..a });
    }
    // 120 bits by at most 53: at least 67, and if that leaves a rest, no end.
    let shift = 120 - a.bits();
    let dividend = a.significand << shift;
    Some(Exact {
        negative,
        significand: dividend / b.significand,
        exponent: a.exponent - shift as i32 - b.exponent,
        more: !dividend.is_multiple_of(b.significand),
    })
}

/// The sum of two numbers of at most 106 bits.
fn add(a: Exact, b: Exact) -> Exact {
    if a.significand == 0 {
        return b;
    }
    if b.significand == 0 {
        return a;
    }
    let (mut high, mut low) = (a.odd(), b.odd());
    if high.exponent < low.exponent {
        (high, low) = (low, high);
    }
    let distance = (high.exponent - low.exponent) as u32;
    if high.bits() + distance > 120 {
        // The lowest digit stays where it is, the first is far above it.
        return Exact { more: true, ..high };
    }
    let (x, y) = (high.significand << distance, low.significand);
    let (negative, significand) = if high.negative == low.negative {
        (high.negative, x + y)
    } else {
        (if x > y { high.negative } else { low.negative }, x.abs_diff(y))
    };
    Exact { negative, significand, exponent: low.exponent, more: false }
}

/// What the results are delivered in.
#[derive(Clone, Copy, Debug)]
struct Target {
    format: Format,
    overflow_masked: bool,
    underflow_masked: bool,
    /// Tiny results become zeros if underflow is masked.
    flush: bool,
}

impl Target {
    /// True if the result differs from `exact`; where an unmasked exception
    /// keeps it from being delivered, the result with unbounded exponent.
    fn loses(self, exact: Exact) -> bool {
        if exact.significand == 0 {
            return false;
        }
        let exact = exact.odd();
        let precision = self.format.precision;
        if exact.more || exact.bits() > precision {
            return true;
        }
        // It has the precision, so no rounding changes the exponent.
        if exact.leading() > self.format.max {
            return self.overflow_masked;
        }
        let least = self.format.min - (precision as i32 - 1);
        exact.leading() < self.format.min && self.underflow_masked && (self.flush || exact.exponent < least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(x: f64) -> Exact {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&x.to_le_bytes());
        Format::DOUBLE.read(&bytes, 0, false).unwrap()
    }

    fn target(format: Format, masked: bool) -> Target {
        Target { format, overflow_masked: masked, underflow_masked: masked, flush: false }
    }

    #[test]
    fn agrees_with_the_residue_of_host_arithmetic() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            state >> 12 ^ state << 40
        };
        // Few digits now and then, exponents apart enough for every alignment.
        let mut number = || {
            let digits = next() & u64::MAX << (next() % 52);
            f64::from_bits(digits & 0x800f_ffff_ffff_ffff | (0x3ff - 70 + next() % 140) << 52)
        };
        let doubles = target(Format::DOUBLE, true);
        let mut seen = [[0u32; 2]; 3];
        for _ in 0..200_000 {
            let (a, b) = (number(), number());
            let (product, quotient, sum) = (a * b, a / b, a + b);
            // The exact errors of rounding (Dekker, Knuth).
            let t = sum - a;
            let residues = [a.mul_add(b, -product), quotient.mul_add(-b, a), (a - (sum - t)) + (b - t)];
            let ours =
                [multiply(exact(a), exact(b)), divide(exact(a), exact(b)).unwrap(), add(exact(a), exact(b))];
            for (n, (residue, ours)) in residues.into_iter().zip(ours).enumerate() {
                let lost = doubles.loses(ours);
                assert_eq!(lost, residue != 0.0, "operation {n} of {a:e} and {b:e}");
                seen[n][usize::from(lost)] += 1;
            }
            assert!(!doubles.loses(add(exact(a), exact(-a))), "zero is exact");
        }
        assert!(seen.iter().flatten().all(|&count| count > 1000), "{seen:?}");
    }

    #[test]
    fn multiply_add_keeps_every_digit_of_the_product() {
        let sum = |a, b, c| add(multiply(exact(a), exact(b)), exact(c));
        let doubles = target(Format::DOUBLE, true);
        let (a, ulp) = (1.0 + f64::EPSILON, f64::EPSILON);
        assert!(doubles.loses(sum(a, a, 0.0)));
        // (1 + u)² - (1 + 2u) = u²
        assert!(!doubles.loses(sum(a, a, -1.0 - 2.0 * ulp)));
        assert!(doubles.loses(sum(a, a, 1e300)));
        assert!(doubles.loses(sum(a, a, -1e-300)));
    }

    #[test]
    fn range_counts_only_where_it_is_masked() {
        let big = multiply(exact(f64::MAX), exact(2.0));
        let tiny = multiply(exact(f64::MIN_POSITIVE), exact(1.5 / 4503599627370496.0));
        let denormal = multiply(exact(f64::MIN_POSITIVE), exact(0.5));
        for (masked, lost) in [(true, [true, true, false]), (false, [false; 3])] {
            let doubles = target(Format::DOUBLE, masked);
            assert_eq!([big, tiny, denormal].map(|x| doubles.loses(x)), lost, "masked: {masked}");
            let flushing = Target { flush: true, ..doubles };
            assert_eq!(flushing.loses(denormal), masked, "FTZ counts while masked");
        }
        // 2^-25 is below the least half; 2^-24 is it.
        let halves = target(Format::HALF, true);
        assert!(halves.loses(exact(2f64.powi(-25))) && !halves.loses(exact(2f64.powi(-24))));
        assert!(!halves.loses(exact(65504.0)) && halves.loses(exact(65536.0)));
    }
}
