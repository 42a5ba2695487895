//! The register stack, status, control and tag words (*SDM vol. 1 §8.1*).

use crate::state::X87;

/// Status word: the six exception flags.
pub(crate) const FLAGS: u16 = 0x3f;
/// Status word: invalid operation.
pub(crate) const IE: u16 = 1 << 0;
/// Status word: underflow.
pub(crate) const UE: u16 = 1 << 4;
/// Status word: precision.
pub(crate) const PE: u16 = 1 << 5;
/// Status word: stack fault.
pub(crate) const SF: u16 = 1 << 6;
/// Status word: an unmasked exception is pending.
pub(crate) const ES: u16 = 1 << 7;
/// Status word: condition code bits.
pub(crate) const C0: u16 = 1 << 8;
pub(crate) const C1: u16 = 1 << 9;
pub(crate) const C2: u16 = 1 << 10;
pub(crate) const C3: u16 = 1 << 14;
/// Status word: top of stack.
const TOP: u16 = 7 << 11;
/// Status word: "busy", a copy of ES since the 80387.
pub(crate) const BUSY: u16 = 1 << 15;

/// Control word: bits that are not zero for ever.
const CW_BITS: u16 = 0x1f3f;
/// Control word: bit 6 reads as one.
const CW_FIXED: u16 = 0x40;

/// 80 bits of a register.
const MASK80: u128 = (1 << 80) - 1;
/// The QNaN floating-point indefinite (*SDM vol. 1 table 4-3*).
pub(crate) const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

impl X87 {
    /// Physical number of ST(0).
    #[inline(always)]
    pub fn top(&self) -> u16 {
        (self.sw & TOP) >> 11
    }

    /// True if ST(`i`) is empty.
    #[inline(always)]
    pub(crate) fn empty(&self, i: u16) -> bool {
        self.tag >> ((self.top() + i) & 7) & 1 == 0
    }

    /// Marks ST(`i`) as empty or not.
    #[inline(always)]
    pub(crate) fn set_empty(&mut self, i: u16, empty: bool) {
        let bit = 1 << ((self.top() + i) & 7);
        self.tag = if empty { self.tag & !bit } else { self.tag | bit };
    }

    /// Changes TOP alone: the physical registers stay where they are.
    #[inline(always)]
    pub(crate) fn set_top(&mut self, top: u16) {
        let by = top.wrapping_sub(self.top()) & 7;
        self.st.rotate_left(usize::from(by));
        self.sw = self.sw & !TOP | (top & 7) << 11;
    }

    /// Pushes a value where there is room.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: u128) {
        self.set_top(self.top().wrapping_sub(1));
        self.st[0] = value;
        self.set_empty(0, false);
        self.sw &= !C1;
    }

    /// Frees ST(0) and increments TOP.
    #[inline(always)]
    pub(crate) fn pop(&mut self) {
        self.set_empty(0, true);
        self.set_top(self.top() + 1);
    }

    /// Loads the control word, and finds out what is pending under it.
    pub fn set_cw(&mut self, cw: u16) {
        self.cw = cw & CW_BITS | CW_FIXED;
        self.update_es();
    }

    /// ES and B follow from the flags and masks.
    pub(crate) fn update_es(&mut self) {
        let pending = self.sw & !self.cw & FLAGS != 0;
        self.sw = self.sw & !(ES | BUSY) | if pending { ES | BUSY } else { 0 };
    }

    /// Stack underflow (*SDM vol. 1 §8.5.1.1*); the masked response goes to ST(0).
    pub(crate) fn underflow_st0(&mut self) {
        self.sw = self.sw & !C1 | IE | SF;
        self.update_es();
        if self.cw & IE != 0 {
            self.st[0] = INDEFINITE;
            self.set_empty(0, false);
        }
    }

    /// FNINIT: all but the contents of the registers.
    pub(crate) fn init(&mut self) {
        self.set_top(0);
        *self = X87 { st: self.st, ..X87::default() };
    }

    /// The tag word in full: two bits for each physical register
    /// (*SDM vol. 1 §8.1.7*).
    pub fn full_tags(&self) -> u16 {
        let mut tags = 0;
        for i in 0..8 {
            let tag = if self.empty(i) { 3 } else { class(self.st[usize::from(i)]) };
            tags |= tag << (2 * ((self.top() + i) & 7));
        }
        tags
    }

    /// Loads a full tag word: of the four, only "empty" is remembered.
    pub(crate) fn set_full_tags(&mut self, tags: u16) {
        self.tag = (0..8).fold(0, |tag, i| tag | u8::from(tags >> (2 * i) & 3 != 3) << i);
    }

    /// MM register `n`: the significand of physical register `n` (*SDM vol. 1 §9.2*).
    pub fn mm(&self, n: u16) -> u64 {
        self.st[usize::from(n.wrapping_sub(self.top()) & 7)] as u64
    }

    /// ST(`i`) as ten bytes in memory.
    pub(crate) fn bytes(&self, i: usize) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&self.st[i & 7].to_le_bytes()[..10]);
        bytes
    }
}

/// Ten bytes of memory as a register.
pub(crate) fn from_bytes(bytes: &[u8; 10]) -> u128 {
    let mut all = [0; 16];
    all[..10].copy_from_slice(bytes);
    u128::from_le_bytes(all)
}

/// Tag of a register that is not empty: 0 valid, 1 zero, 2 special.
fn class(value: u128) -> u16 {
    let (significand, exponent) = (value as u64, (value >> 64) as u16 & 0x7fff);
    match exponent {
        0 if significand == 0 => 1,
        0 | 0x7fff => 2,
        _ if significand >> 63 == 0 => 2,
        _ => 0,
    }
}

/// A register from sign, biased exponent and significand.
const fn pack(negative: bool, exponent: u16, significand: u64) -> u128 {
    ((negative as u128) << 79 | (exponent as u128) << 64 | significand as u128) & MASK80
}

/// An integer: always exact.
pub(crate) fn from_int(value: i64) -> u128 {
    if value == 0 {
        return 0;
    }
    let magnitude = value.unsigned_abs();
    let shift = magnitude.leading_zeros();
    pack(value < 0, 0x3fff + 63 - shift as u16, magnitude << shift)
}

/// A double; `None` where the conversion raises an exception (denormal, SNaN).
pub(crate) fn from_f64(bits: u64) -> Option<u128> {
    widen(bits >> 63 != 0, (bits >> 52) as u16 & 0x7ff, 0x7ff, bits << 12)
}

/// A single; `None` where the conversion raises an exception.
pub(crate) fn from_f32(bits: u32) -> Option<u128> {
    widen(bits >> 31 != 0, (bits >> 23) as u16 & 0xff, 0xff, u64::from(bits) << 41)
}

/// From a format with `max` as highest exponent; `fraction` is left-aligned.
fn widen(negative: bool, exponent: u16, max: u16, fraction: u64) -> Option<u128> {
    let significand = 1 << 63 | fraction >> 1;
    if exponent == 0 {
        (fraction == 0).then(|| pack(negative, 0, 0))
    } else if exponent == max {
        // Infinity or a quiet NaN.
        (fraction == 0 || fraction >> 63 != 0).then(|| pack(negative, 0x7fff, significand))
    } else {
        Some(pack(negative, exponent + 0x3fff - max / 2, significand))
    }
}
