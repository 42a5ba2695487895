//! The status flags, kept lazily (*SDM vol. 1 §3.4.3.1*).
//!
//! Arithmetic leaves its result and one word of hints, from which each flag
//! is a few host instructions away if it is ever asked for:
//!
//! * `result`, sign-extended to 64 bits: ZF is `result == 0`
//! * `aux` bit 63 CF, bit 62 OF ^ CF, bit 3 AF, bit 0 a correction of SF,
//!   bits 8–15 a correction of the byte whose parity is PF
//!
//! The two corrections are zero after arithmetic; they exist so that every
//! combination of flags (POPF, SAHF) can be stored.

use arch::regs::rflags;
use mem::raw::Width;

const CF: u64 = 1 << 63;
const PO: u64 = 1 << 62;
const AF: u64 = 1 << 3;

/// The status flags in lazy form.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct LazyFlags {
    result: u64,
    aux: u64,
}

impl Default for LazyFlags {
    fn default() -> Self {
        let mut flags = LazyFlags { result: 0, aux: 0 };
        flags.set_all(0);
        flags
    }
}

impl LazyFlags {
    /// CF.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        (self.aux as i64) < 0
    }
    /// ZF.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }
    /// SF.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        ((self.result ^ (self.aux << 63)) as i64) < 0
    }
    /// OF.
    #[inline(always)]
    pub fn of(&self) -> bool {
        ((self.aux ^ (self.aux << 1)) as i64) < 0
    }
    /// PF.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        let byte = (self.result ^ (self.aux >> 8)) as u8;
        // The parities of sixteen half bytes.
        0x9669u16 >> ((byte ^ byte >> 4) & 15) & 1 != 0
    }
    /// AF.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.aux & AF != 0
    }

    /// The six flags at their RFLAGS positions.
    #[inline]
    pub fn get(&self) -> u64 {
        let at = |on: bool, mask: u64| u64::from(on) << mask.trailing_zeros();
        at(self.cf(), rflags::CF)
            | at(self.pf(), rflags::PF)
            | at(self.af(), rflags::AF)
            | at(self.zf(), rflags::ZF)
            | at(self.sf(), rflags::SF)
            | at(self.of(), rflags::OF)
    }

    /// Sets all six flags from an RFLAGS image.
    #[inline]
    pub fn set_all(&mut self, image: u64) {
        let bit = |mask: u64| image >> mask.trailing_zeros() & 1;
        let (cf, zf) = (bit(rflags::CF), bit(rflags::ZF));
        // Zero or one, whose parity is ZF, too.
        self.result = zf ^ 1;
        self.aux = cf << 63
            | (bit(rflags::OF) ^ cf) << 62
            | bit(rflags::AF) << 3
            | bit(rflags::SF)
            | (bit(rflags::PF) ^ zf) << 8;
    }

    /// Replaces the flags in `mask` (RFLAGS positions) by those of `image`.
    #[inline]
    pub fn update(&mut self, mask: u64, image: u64) {
        let kept = if mask & rflags::STATUS == rflags::STATUS { 0 } else { self.get() & !mask };
        self.set_all(kept | image & mask);
    }

    /// Sets CF and OF, leaving the others.
    #[inline(always)]
    pub fn set_cf_of(&mut self, cf: bool, of: bool) {
        self.aux = self.aux & !(CF | PO) | (u64::from(cf) << 63) | (u64::from(cf != of) << 62);
    }

    /// Sets CF, leaving the others.
    #[inline(always)]
    pub fn set_cf(&mut self, cf: bool) {
        // OF is kept as a difference from CF: flip both together.
        if self.cf() != cf {
            self.aux ^= CF | PO;
        }
    }

    /// After `a + b (+ carry in) = r`; operands zero-extended to 64 bits.
    #[inline(always)]
    pub fn add<W: Width>(&mut self, a: u64, b: u64, r: u64) {
        self.carries::<W>((a & b) | ((a | b) & !r), r);
    }

    /// After `a - b (- borrow in) = r`; operands zero-extended to 64 bits.
    #[inline(always)]
    pub fn sub<W: Width>(&mut self, a: u64, b: u64, r: u64) {
        self.carries::<W>((!a & b) | (!(a ^ b) & r), r);
    }

    #[inline(always)]
    fn carries<W: Width>(&mut self, carries: u64, r: u64) {
        self.result = W::truncate(r).sext();
        self.aux = (carries << (64 - W::BITS)) & (CF | PO) | carries & AF;
    }

    /// After AND, OR, XOR, TEST: CF = OF = 0 (AF is undefined: cleared, as processors do).
    #[inline(always)]
    pub fn logic<W: Width>(&mut self, r: u64) {
        self.result = W::truncate(r).sext();
        self.aux = 0;
    }

    /// After an operation with known CF and OF; AF cleared.
    #[inline(always)]
    pub fn result_with<W: Width>(&mut self, r: u64, cf: bool, of: bool) {
        self.result = W::truncate(r).sext();
        self.aux = (u64::from(cf) << 63) | (u64::from(cf != of) << 62);
    }

    /// After INC (`of` if the result is the most negative number) or DEC: CF stays.
    #[inline(always)]
    pub fn inc_dec<W: Width>(&mut self, r: u64, of: bool, af: bool) {
        let cf = self.aux & CF;
        self.result = W::truncate(r).sext();
        self.aux = cf | ((cf >> 1) ^ (u64::from(of) << 62)) | (u64::from(af) << 3);
    }

    /// Evaluates a condition code `cc` as Jcc, SETcc and CMOVcc encode it
    /// (*SDM vol. 1 appendix B*).
    #[inline(always)]
    pub fn condition<const CC: u8>(&self) -> bool {
        let value = match CC >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => (self.sf() != self.of()) | self.zf(),
        };
        value ^ (CC & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_stored() {
        for bits in 0..4096u64 {
            let image = bits & rflags::STATUS;
            let mut flags = LazyFlags::default();
            flags.set_all(image);
            assert_eq!(flags.get(), image);
            flags.set_cf(image & 1 == 0);
            assert_eq!(flags.get(), image ^ 1);
            for (cf, of) in [(false, false), (false, true), (true, false), (true, true)] {
                flags.set_cf_of(cf, of);
                let set = if cf { rflags::CF } else { 0 } | if of { rflags::OF } else { 0 };
                assert_eq!(flags.get(), image & !(rflags::CF | rflags::OF) | set);
            }
        }
    }

    #[test]
    fn byte_addition_and_subtraction_are_exact() {
        for a in 0..=255u64 {
            for b in 0..=255u64 {
                for c in 0..2 {
                    let mut f = LazyFlags::default();
                    f.add::<u8>(a, b, a + b + c);
                    let (sa, sb) = (a as i8 as i64, b as i8 as i64);
                    let s = sa + sb + c as i64;
                    assert_eq!(f.cf(), a + b + c > 255);
                    assert_eq!(f.of(), s != s as i8 as i64);
                    assert_eq!(f.af(), (a & 15) + (b & 15) + c > 15);
                    assert_eq!(f.zf(), (a + b + c) as u8 == 0);
                    assert_eq!(f.sf(), ((a + b + c) as i8) < 0);
                    let r = a.wrapping_sub(b).wrapping_sub(c);
                    f.sub::<u8>(a, b, r & 0xff);
                    let s = sa - sb - c as i64;
                    assert_eq!(f.cf(), a < b + c);
                    assert_eq!(f.of(), s != s as i8 as i64);
                    assert_eq!(f.af(), (a & 15) < (b & 15) + c);
                    assert_eq!(f.pf(), (r as u8).count_ones().is_multiple_of(2));
                }
            }
        }
    }
}
