//! One operation on numbers of one format, as x86 performs it.

use rustc_apfloat::ieee::Quad;
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};

/// Exception flags at their positions in MXCSR and the x87 status word.
pub(super) type Flags = u32;
/// Invalid operation.
pub(super) const IE: Flags = 1;
/// Denormal operand.
pub(super) const DE: Flags = 2;
/// Division by zero.
pub(super) const ZE: Flags = 4;
/// Overflow.
pub(super) const OE: Flags = 8;
/// Underflow.
pub(super) const UE: Flags = 16;
/// Precision.
pub(super) const PE: Flags = 32;

/// A binary operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
}

/// How results are rounded and denormals treated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    /// Rounding mode.
    pub(super) round: Round,
    /// Denormal operands are zeros.
    pub(super) daz: bool,
    /// Tiny results are zeros.
    pub(super) ftz: bool,
}

/// The rounding mode that two control bits name (*SDM vol. 1 table 4-8*).
pub(super) fn rounding(bits: u32) -> Round {
    match bits & 3 {
        0 => Round::NearestTiesToEven,
        1 => Round::TowardNegative,
        2 => Round::TowardPositive,
        _ => Round::TowardZero,
    }
}

/// A format whose exact results fit [`Quad`] well enough to be rounded once more.
pub(super) trait Format: Float + FloatConvert<Quad>
where
    Quad: FloatConvert<Self>,
{
}
impl<F: Float + FloatConvert<Quad>> Format for F where Quad: FloatConvert<F> {}

/// The quiet NaN of a NaN.
pub(super) fn quiet<F: Float>(nan: F) -> F {
    F::from_bits(nan.to_bits() | 1 << (F::PRECISION - 2))
}

/// The default NaN: negative, quiet, no payload.
pub(super) fn indefinite<F: Float>() -> F {
    // Of the 80-bit format the integer bit is explicit and part of NAN.
    F::from_bits(F::NAN.to_bits() | 1 << (F::BITS - 1))
}

/// Applies DAZ and notes denormal operands.
pub(super) fn operand<F: Float>(x: F, control: Control, flags: &mut Flags) -> F {
    if !x.is_denormal() {
        return x;
    }
    if control.daz {
        return F::ZERO.copy_sign(x);
    }
    *flags |= DE;
    x
}

/// An operand in quadruple precision: exact.
pub(super) fn wide<F: Format>(x: F) -> Quad
where
    Quad: FloatConvert<F>,
{
    x.convert_r(Round::TowardZero, &mut false).value
}

/// Rounds to odd: what was cut off stays visible in the lowest bit.
fn odd(result: StatusAnd<Quad>) -> Quad {
    let inexact = result.status.contains(Status::INEXACT);
    Quad::from_bits(result.value.to_bits() | u128::from(inexact))
}

/// A value that is not rounded yet: `quad * 2^exponent`, to odd.
#[derive(Clone, Copy, Debug)]
struct Exact {
    quad: Quad,
    exponent: i32,
}

impl Exact {
    fn new(result: StatusAnd<Quad>) -> Self {
        Exact { quad: odd(result), exponent: 0 }
    }

    /// Rounded to `F`'s precision as if exponents had no bounds: the exponent.
    fn rounded_exponent<F: Format>(self, round: Round) -> i32
    where
        Quad: FloatConvert<F>,
    {
        let middle = self.quad.ilogb();
        let rounded: F = self.quad.scalbn(-middle).convert_r(round, &mut false).value;
        middle + self.exponent + rounded.ilogb()
    }

    /// In place, still to odd, if it is in range of quadruple precision.
    fn in_place(self) -> Quad {
        let scaled = self.quad.scalbn_r(self.exponent, Round::TowardZero);
        if scaled.scalbn(-self.exponent) == self.quad {
            return scaled;
        }
        Quad::from_bits(scaled.to_bits() | 1)
    }
}

/// Finishes: the result, rounded, with flags.
fn finish<F: Format>(exact: Exact, control: Control, flags: &mut Flags) -> F
where
    Quad: FloatConvert<F>,
{
    let quad = exact.quad;
    if quad.is_zero() || quad.is_infinite() || quad.is_nan() {
        return quad.convert_r(control.round, &mut false).value;
    }
    let exponent = exact.rounded_exponent::<F>(control.round);
    if exponent > F::MAX_EXP {
        *flags |= OE | PE;
        // Infinity or the largest number, by the rounding mode.
        let largest = if quad.is_negative() { -F::largest() } else { F::largest() };
        return largest.add_r(largest, control.round).value;
    }
    let StatusAnd { status, value }: StatusAnd<F> = exact.in_place().convert_r(control.round, &mut false);
    let inexact = status.contains(Status::INEXACT);
    if exponent < F::MIN_EXP {
        if control.ftz {
            *flags |= UE | PE;
            return F::ZERO.copy_sign(value);
        }
        *flags |= if inexact { UE } else { 0 };
    }
    *flags |= if inexact { PE } else { 0 };
    value
}

/// Add, subtract, multiply, divide; NaNs by SSE's rule, that the first one wins.
pub(super) fn binary<F: Format>(op: Binary, a: F, b: F, control: Control) -> (F, Flags)
where
    Quad: FloatConvert<F>,
{
    let mut flags = 0;
    if a.is_nan() || b.is_nan() {
        if a.is_signaling() || b.is_signaling() {
            flags |= IE;
        }
        return (quiet(if a.is_nan() { a } else { b }), flags);
    }
    let a = operand(a, control, &mut flags);
    let b = operand(b, control, &mut flags);
    let (mut wa, mut wb, mut exponent) = (wide(a), wide(b), 0);
    if matches!(op, Binary::Mul | Binary::Div) && a.is_finite_non_zero() && b.is_finite_non_zero() {
        // Products and quotients of extended precision leave quadruple's range too.
        let (ea, eb) = (wa.ilogb(), wb.ilogb());
        (wa, wb) = (wa.scalbn(-ea), wb.scalbn(-eb));
        exponent = if op == Binary::Mul { ea + eb } else { ea - eb };
    }
    let result = match op {
        Binary::Add => wa.add_r(wb, Round::TowardZero),
        Binary::Sub => wa.sub_r(wb, Round::TowardZero),
        Binary::Mul => wa.mul_r(wb, Round::TowardZero),
        Binary::Div => wa.div_r(wb, Round::TowardZero),
    };
    if result.status.contains(Status::INVALID_OP) {
        // Infinities and zeros: nothing denormal is looked at.
        return (indefinite(), flags & !DE | IE);
    }
    if result.status.contains(Status::DIV_BY_ZERO) {
        return (F::INFINITY.copy_sign(signed(result.value)), flags & !DE | ZE);
    }
    if result.value.is_zero() && matches!(op, Binary::Add | Binary::Sub) {
        // The sign of an exact zero sum depends on the rounding mode.
        let zero = if op == Binary::Add { a.add_r(b, control.round) } else { a.sub_r(b, control.round) };
        return (zero.value, flags);
    }
    let value = finish(Exact { quad: odd(result), exponent }, control, &mut flags);
    (value, flags)
}

/// The sign of a number, in another format.
fn signed<F: Float>(x: Quad) -> F {
    if x.is_negative() { -F::INFINITY } else { F::INFINITY }
}

/// Multiply and add of numbers that are not NaN, with one rounding.
pub(super) fn fused<F: Format>(a: F, b: F, c: F, control: Control) -> (F, Flags)
where
    Quad: FloatConvert<F>,
{
    let mut flags = 0;
    let a = operand(a, control, &mut flags);
    let b = operand(b, control, &mut flags);
    let c = operand(c, control, &mut flags);
    let result = wide(a).mul_add_r(wide(b), wide(c), Round::TowardZero);
    if result.status.contains(Status::INVALID_OP) {
        return (indefinite(), flags & !DE | IE);
    }
    if result.value.is_zero() {
        return (a.mul_add_r(b, c, control.round).value, flags);
    }
    let value = finish(Exact::new(result), control, &mut flags);
    (value, flags)
}

/// Square root, digit by digit.
pub(super) fn square_root<F: Format>(a: F, control: Control) -> (F, Flags)
where
    Quad: FloatConvert<F>,
{
    let mut flags = 0;
    if a.is_nan() {
        return (quiet(a), if a.is_signaling() { IE } else { 0 });
    }
    let a = operand(a, control, &mut flags);
    if a.is_zero() {
        return (a, flags);
    }
    if a.is_negative() {
        return (indefinite(), flags & !DE | IE);
    }
    if a.is_infinite() {
        return (a, flags);
    }
    // a = m * 2^e with e even and m an integer of about 2 * PRECISION + 4 bits.
    let mut shift = 2 * F::PRECISION as i32 + 2 - wide(a).ilogb();
    shift += shift & 1;
    let m = wide(a).scalbn(shift).to_u128_r(128, Round::TowardZero, &mut false).value;
    let root = m.isqrt();
    // PRECISION + 1 bits or more, and whether that is all: rounding needs no more.
    let quad = Quad::from_u128(root << 1 | u128::from(root * root != m)).value;
    let value = finish(Exact { quad, exponent: -shift / 2 - 1 }, control, &mut flags);
    (value, flags)
}

/// MIN and MAX: the second operand if one is NaN, or both are zero.
pub(super) fn min_max<F: Float>(max: bool, a: F, b: F, control: Control) -> (F, Flags) {
    let mut flags = 0;
    if a.is_nan() || b.is_nan() {
        let silent = Control { daz: control.daz, ..control };
        return (operand(b, silent, &mut 0), IE);
    }
    let a = operand(a, control, &mut flags);
    let b = operand(b, control, &mut flags);
    let first = if max { a > b } else { a < b };
    (if first { a } else { b }, flags)
}

/// Conversion between formats.
pub(super) fn convert<F: Format, G: Format>(a: F, control: Control) -> (G, Flags)
where
    Quad: FloatConvert<F> + FloatConvert<G>,
{
    let mut flags = 0;
    if a.is_nan() {
        if a.is_signaling() {
            flags |= IE;
        }
        // The payload keeps its highest bits.
        let value: G = wide(quiet(a)).convert_r(Round::TowardZero, &mut false).value;
        return (value, flags);
    }
    let a = operand(a, control, &mut flags);
    let value = finish(Exact { quad: wide(a), exponent: 0 }, control, &mut flags);
    (value, flags)
}

/// Conversion to a signed integer of `bits`; the indefinite integer if it does not fit.
pub(super) fn to_integer<F: Float>(a: F, bits: usize, round: Round, daz: bool) -> (i64, Flags) {
    let a = if daz && a.is_denormal() { F::ZERO } else { a };
    let mut exact = false;
    let result = a.to_i128_r(bits, round, &mut exact);
    if a.is_nan() || result.status.contains(Status::INVALID_OP) {
        return ((-1i64) << (bits - 1), IE);
    }
    (result.value as i64, if result.status.contains(Status::INEXACT) { PE } else { 0 })
}

/// Conversion from a signed integer.
pub(super) fn from_integer<F: Float>(a: i64, round: Round) -> (F, Flags) {
    let result = F::from_i128_r(i128::from(a), round);
    (result.value, if result.status.contains(Status::INEXACT) { PE } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustc_apfloat::ieee::{Double, Single};

    const NEAREST: Control = Control { round: Round::NearestTiesToEven, daz: false, ftz: false };

    #[test]
    fn known_results_and_flags() {
        let f = |bits: u32| Single::from_bits(bits.into());
        let run = |op, a, b| {
            let (r, flags) = binary(op, f(a), f(b), NEAREST);
            (r.to_bits() as u32, flags)
        };
        assert_eq!(run(Binary::Add, 0x3f80_0000, 0x3f80_0000), (0x4000_0000, 0));
        assert_eq!(run(Binary::Div, 0x3f80_0000, 0x4040_0000), (0x3eaa_aaab, PE));
        assert_eq!(run(Binary::Div, 0x3f80_0000, 0), (0x7f80_0000, ZE));
        assert_eq!(run(Binary::Div, 0, 0), (0xffc0_0000, IE));
        assert_eq!(run(Binary::Mul, 0x7f7f_ffff, 0x7f7f_ffff), (0x7f80_0000, OE | PE));
        assert_eq!(run(Binary::Mul, 0x0080_0000, 0x3f00_0001), (0x0040_0000, UE | PE));
        assert_eq!(run(Binary::Add, 1, 1), (2, DE));
        assert_eq!(run(Binary::Sub, 0x7f80_0001, 0x7fc0_0000), (0x7fc0_0001, IE));
    }

    #[test]
    fn square_roots_agree_with_the_library() {
        let mut rng = crate::rng::Rng::new(5);
        for _ in 0..20_000 {
            let x = f64::from_bits(rng.f64()).abs();
            if x.is_nan() {
                continue;
            }
            let (root, _) = square_root(Double::from_bits(x.to_bits().into()), NEAREST);
            assert_eq!(root.to_bits() as u64, x.sqrt().to_bits(), "{x:e}");
        }
    }
}
