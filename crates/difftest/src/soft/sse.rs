//! SSE and AVX arithmetic and conversions.

use std::collections::HashMap;
use std::sync::LazyLock;

use iced_x86::{Instruction, Mnemonic, OpKind};
use rustc_apfloat::ieee::{Double, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

use super::ieee::{self, Binary, Control, Flags, Format};
use crate::snapshot::Registers;

/// What an instruction does to each element.
#[derive(Clone, Copy, Debug)]
enum What {
    Binary(Binary),
    Min,
    Max,
    Sqrt,
    /// Multiply-add: the order of the operands, negated product, negated addend.
    Fused([usize; 3], bool, bool),
    /// To the other floating-point format.
    Convert,
    /// From signed 32-bit integers.
    FromI32,
    /// To signed 32-bit integers; truncating?
    ToI32(bool),
    /// From a general register or memory.
    FromGpr,
    /// To a general register; truncating?
    ToGpr(bool),
}

#[derive(Clone, Copy, Debug)]
struct Spec {
    what: What,
    /// The floating-point operands are doubles.
    double: bool,
    scalar: bool,
}

static SPECS: LazyLock<HashMap<Mnemonic, Spec>> =
    LazyLock::new(|| Mnemonic::values().filter_map(|m| spec(&format!("{m:?}")).map(|s| (m, s))).collect());

fn spec(name: &str) -> Option<Spec> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix('V').unwrap_or(&name);
    let conversion = |what, double, scalar| Some(Spec { what, double, scalar });
    match name {
        "CVTSS2SD" => return conversion(What::Convert, false, true),
        "CVTSD2SS" => return conversion(What::Convert, true, true),
        "CVTPS2PD" => return conversion(What::Convert, false, false),
        "CVTPD2PS" => return conversion(What::Convert, true, false),
        "CVTDQ2PS" => return conversion(What::FromI32, false, false),
        "CVTDQ2PD" => return conversion(What::FromI32, true, false),
        "CVTPS2DQ" => return conversion(What::ToI32(false), false, false),
        "CVTTPS2DQ" => return conversion(What::ToI32(true), false, false),
        "CVTPD2DQ" => return conversion(What::ToI32(false), true, false),
        "CVTTPD2DQ" => return conversion(What::ToI32(true), true, false),
        "CVTSI2SS" => return conversion(What::FromGpr, false, true),
        "CVTSI2SD" => return conversion(What::FromGpr, true, true),
        "CVTSS2SI" => return conversion(What::ToGpr(false), false, true),
        "CVTTSS2SI" => return conversion(What::ToGpr(true), false, true),
        "CVTSD2SI" => return conversion(What::ToGpr(false), true, true),
        "CVTTSD2SI" => return conversion(What::ToGpr(true), true, true),
        _ => {}
    }
    let (stem, suffix) = name.split_at_checked(name.len().checked_sub(2)?)?;
    let (scalar, double) = match suffix {
        "SS" => (true, false),
        "SD" => (true, true),
        "PS" => (false, false),
        "PD" => (false, true),
        _ => return None,
    };
    let what = match stem {
        "ADD" => What::Binary(Binary::Add),
        "SUB" => What::Binary(Binary::Sub),
        "MUL" => What::Binary(Binary::Mul),
        "DIV" => What::Binary(Binary::Div),
        "MIN" => What::Min,
        "MAX" => What::Max,
        "SQRT" => What::Sqrt,
        _ => {
            let (kind, order) = stem.split_at_checked(stem.len().checked_sub(3)?)?;
            // Operands by number: product of two, plus the third (SDM vol. 2C, VFMADD…).
            let order = match order {
                "132" => [0, 2, 1],
                "213" => [1, 0, 2],
                "231" => [1, 2, 0],
                _ => return None,
            };
            let (product, addend) = match kind {
                "FMADD" => (false, false),
                "FMSUB" => (false, true),
                "FNMADD" => (true, false),
                "FNMSUB" => (true, true),
                _ => return None,
            };
            What::Fused(order, product, addend)
        }
    };
    Some(Spec { what, double, scalar })
}

/// Element `i` of `bytes` bytes.
fn element(words: &[u64; 4], bytes: usize, i: usize) -> u64 {
    let at = bytes * i;
    words[at / 8] >> (8 * (at % 8)) & (u64::MAX >> (64 - 8 * bytes))
}

struct Case<'a> {
    insn: &'a Instruction,
    before: &'a Registers,
    operand: Option<&'a [u8]>,
}

impl Case<'_> {
    /// Operand `n` as 32 bytes.
    fn words(&self, n: u32) -> Option<[u64; 4]> {
        match self.insn.op_kind(n) {
            OpKind::Register => {
                let register = self.insn.op_register(n);
                if register.is_gpr() {
                    return Some([self.before.gpr[register.full_register().number()], 0, 0, 0]);
                }
                register.is_vector_register().then(|| self.before.ymm[register.number() & 15])
            }
            OpKind::Memory => {
                let bytes = self.operand?;
                let mut words = [0; 4];
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
                Some(words)
            }
            _ => None,
        }
    }
}

/// Judges; see [`super::judge`].
pub(super) fn judge(
    insn: &Instruction,
    before: &Registers,
    operand: Option<&[u8]>,
    after: &Registers,
) -> Option<Result<(), String>> {
    let spec = SPECS.get(&insn.mnemonic())?;
    let case = Case { insn, before, operand };
    let control = Control {
        round: ieee::rounding(before.mxcsr >> 13),
        daz: before.mxcsr & 1 << 6 != 0,
        // FTZ works only while underflow is masked.
        ftz: before.mxcsr & 1 << 15 != 0 && before.mxcsr & 1 << 11 != 0,
    };
    let (expected, flags) = if spec.double {
        elements::<Double>(spec, &case, control)?
    } else {
        elements::<Single>(spec, &case, control)?
    };
    // An unmasked exception: whether it is raised is for the host to judge.
    if flags & !(before.mxcsr >> 7) & 0x3f != 0 {
        return None;
    }
    let register = insn.op0_register();
    let got = if register.is_gpr() {
        [after.gpr[register.full_register().number()], 0, 0, 0]
    } else {
        after.ymm[register.number() & 15]
    };
    for (i, &(size, want)) in expected.iter().enumerate() {
        let found = element(&got, size, i);
        if found != want {
            return Some(Err(format!("element {i}: expected {want:#x}, kluis {found:#x}")));
        }
    }
    let mxcsr = before.mxcsr | flags;
    if after.mxcsr != mxcsr {
        return Some(Err(format!("mxcsr: expected {mxcsr:#06x}, kluis {:#06x}", after.mxcsr)));
    }
    Some(Ok(()))
}

type Expected = (Vec<(usize, u64)>, Flags);

fn elements<F: Format>(spec: &Spec, case: &Case<'_>, control: Control) -> Option<Expected>
where
    Quad: FloatConvert<F> + FloatConvert<Single> + FloatConvert<Double>,
    Single: FloatConvert<Quad>,
    Double: FloatConvert<Quad>,
{
    let insn = case.insn;
    let count = insn.op_count();
    let bytes = F::BITS / 8;
    let sources: Vec<[u64; 4]> = (0..count).filter_map(|n| case.words(n)).collect();
    if sources.len() != count as usize {
        return None;
    }
    let last = *sources.last()?;
    let first = if count >= 3 { sources[1] } else { sources[0] };
    let length = if insn.op0_register().is_ymm() { 32 } else { 16 };
    let float = |words: &[u64; 4], i: usize| F::from_bits(u128::from(element(words, bytes, i)));
    let narrow = |value: i64| value as u32 as u64;
    let mut flags = 0;
    let mut out = Vec::new();
    // Elements: by the wider side of a conversion.
    let elements = match spec.what {
        _ if spec.scalar => 1,
        What::Convert if spec.double => source_bytes(insn) / 8,
        What::Convert => length / 8,
        What::FromI32 => length / bytes,
        What::ToI32(_) if spec.double => source_bytes(insn) / 8,
        _ => length / bytes,
    };
    for i in 0..elements {
        let (size, value, raised) = match spec.what {
            What::Binary(op) => {
                let (r, f) = ieee::binary(op, float(&first, i), float(&last, i), control);
                (bytes, r.to_bits() as u64, f)
            }
            What::Min | What::Max => {
                let max = matches!(spec.what, What::Max);
                let (r, f) = ieee::min_max(max, float(&first, i), float(&last, i), control);
                (bytes, r.to_bits() as u64, f)
            }
            What::Sqrt => {
                let (r, f) = ieee::square_root(float(&last, i), control);
                (bytes, r.to_bits() as u64, f)
            }
            What::Fused(order, product, addend) => {
                let [a, b, c] = order.map(|n| float(&sources[n], i));
                if a.is_nan() || b.is_nan() || c.is_nan() {
                    return None;
                }
                let a = if product { -a } else { a };
                let c = if addend { -c } else { c };
                let (r, f) = ieee::fused(a, b, c, control);
                (bytes, r.to_bits() as u64, f)
            }
            What::Convert if spec.double => {
                let (r, f) = ieee::convert::<F, Single>(float(&last, i), control);
                (4, r.to_bits() as u64, f)
            }
            What::Convert => {
                let (r, f) = ieee::convert::<F, Double>(float(&last, i), control);
                (8, r.to_bits() as u64, f)
            }
            What::FromI32 => {
                let (r, f) = ieee::from_integer::<F>(i64::from(element(&last, 4, i) as i32), control.round);
                (bytes, r.to_bits() as u64, f)
            }
            What::ToI32(truncate) => {
                let round = if truncate { Round::TowardZero } else { control.round };
                let (r, f) = ieee::to_integer(float(&last, i), 32, round, control.daz);
                (4, narrow(r), f)
            }
            What::FromGpr => {
                let wide = match insn.op_kind(count - 1) {
                    OpKind::Register => insn.op_register(count - 1).size() == 8,
                    _ => insn.memory_size().size() == 8,
                };
                let value = if wide { last[0] as i64 } else { i64::from(last[0] as i32) };
                let (r, f) = ieee::from_integer::<F>(value, control.round);
                (bytes, r.to_bits() as u64, f)
            }
            What::ToGpr(truncate) => {
                let round = if truncate { Round::TowardZero } else { control.round };
                let wide = insn.op0_register().size() == 8;
                let (r, f) =
                    ieee::to_integer(float(&last, i), if wide { 64 } else { 32 }, round, control.daz);
                (8, if wide { r as u64 } else { narrow(r) }, f)
            }
        };
        flags |= raised;
        out.push((size, value));
    }
    Some((out, flags))
}

/// Bytes of the source of a packed conversion from doubles.
fn source_bytes(insn: &Instruction) -> usize {
    match insn.op1_kind() {
        OpKind::Register => insn.op1_register().size(),
        _ => insn.memory_size().size(),
    }
}
