//! Reproducible random numbers, and values at which arithmetic goes wrong.

/// SplitMix64: each stream is its seed, so a form's cases do not depend on the
/// forms before it.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The stream of a seed and a name.
    pub fn named(seed: u64, name: &str) -> Self {
        // FNV-1a.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut rng = Rng(seed ^ hash);
        rng.next();
        rng
    }

    /// 64 random bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n.max(1))) >> 64) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of the items.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// One of the items by weight, of which there must be some.
    pub fn weighted<T: Copy>(&mut self, items: &[(u64, T)]) -> T {
        let mut at = self.below(items.iter().map(|(weight, _)| weight).sum());
        for &(weight, item) in items {
            if at < weight {
                return item;
            }
            at -= weight;
        }
        items[items.len() - 1].1
    }

    /// An integer: corners of every width, powers of two and their
    /// neighbours, small numbers, or any.
    pub fn integer(&mut self) -> u64 {
        const CORNERS: [u64; 24] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0x81,
            0xff,
            0x100,
            0x7fff,
            0x8000,
            0xffff,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            0x1_0000_0000,
            i64::MAX as u64,
            i64::MIN as u64,
            u64::MAX,
            u64::MAX - 1,
            -0x80i64 as u64,
            -0x8000i64 as u64,
            -0x8000_0000i64 as u64,
            0x5555_5555_5555_5555,
        ];
        match self.below(8) {
            0 | 1 => self.pick(&CORNERS),
            2 => (1u64 << self.below(64)).wrapping_add(self.below(3)).wrapping_sub(1),
            3 => self.below(256),
            4 => (self.below(256)).wrapping_neg(),
            5 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    /// A single-precision number, of every class.
    pub fn f32(&mut self) -> u32 {
        const CORNERS: [u32; 23] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0000,
            0xffc0_0000,
            0x7f80_0001,
            0xffa0_1234,
            0x7fff_ffff,
            1,
            0x8000_0001,
            0x007f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0xff7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x5f00_0000,
            0x4eff_ffff,
            0x3f00_0000,
            0x3fc0_0000,
        ];
        match self.below(9) {
            0 | 1 => self.pick(&CORNERS),
            2 => self.next() as u32 & 0x807f_ffff,
            // Around one: results that need rounding, not overflow.
            3 | 4 => (self.next() as u32 & 0x80ff_ffff).wrapping_add(0x3f00_0000),
            5 => ((self.below(2000) as i32 - 1000) as f32 / 2.0).to_bits(),
            // Few digits: exact results, out of range or tiny.
            6 => self.next() as u32 & u32::MAX << (16 + self.below(8)),
            _ => self.next() as u32,
        }
    }

    /// A double-precision number, of every class.
    pub fn f64(&mut self) -> u64 {
        const CORNERS: [u64; 23] = [
            0,
            1 << 63,
            0x3ff0 << 48,
            0xbff0 << 48,
            0x7ff0 << 48,
            0xfff0 << 48,
            0x7ff8 << 48,
            0xfff8 << 48,
            0x7ff0_0000_0000_0001,
            0xfff4_1234_5678_9abc,
            0x7fff_ffff_ffff_ffff,
            1,
            0x8000_0000_0000_0001,
            0x000f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0xffef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0xc1e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0xc3e0_0000_0000_0000,
            0x3fe0_0000_0000_0000,
            0x3ff8_0000_0000_0000,
        ];
        match self.below(9) {
            0 | 1 => self.pick(&CORNERS),
            2 => self.next() & 0x800f_ffff_ffff_ffff,
            3 | 4 => (self.next() & 0x801f_ffff_ffff_ffff).wrapping_add(0x3fe0_0000_0000_0000),
            5 => ((self.below(2000) as i32 - 1000) as f64 / 2.0).to_bits(),
            // The range of single precision: conversions that overflow or denormalise.
            6 => (self.next() & 0x800f_ffff_ffff_ffff) | ((0x3ff - 160 + self.below(320)) << 52),
            7 => self.next() & u64::MAX << (44 + self.below(9)),
            _ => self.next(),
        }
    }

    /// An extended-precision number, of every class, unsupported formats included.
    pub fn f80(&mut self) -> u128 {
        const INTEGER: u128 = 1 << 63;
        let sign = u128::from(self.below(2)) << 79;
        let fraction = u128::from(match self.below(4) {
            0 => 0,
            1 => self.pick(&[1, i64::MAX as u64, 1 << 62, 0x400, 0x3ff, 1 << 39, 0x7fff_ffff_ffff_f800]),
            _ => self.next(),
        }) & (INTEGER - 1);
        let exponent = |e: u64| u128::from(e) << 64;
        sign | match self.below(16) {
            0 => 0,
            1 => exponent(0x7fff) | INTEGER,
            2 => exponent(0x7fff) | INTEGER | fraction,
            3 => fraction,                                                  // denormal
            4 if self.one_in(4) => INTEGER | fraction,                      // pseudo-denormal
            4 if self.one_in(3) => exponent(self.below(0x7fff)) | fraction, // unnormal
            4 if self.one_in(3) => exponent(0x7fff) | fraction,             // pseudo-NaN, pseudo-infinity
            5 => {
                exponent(self.pick(&[1, 2, 0x7ffe, 0x7ffd, 0x3fff - 1023, 0x3fff + 1023]))
                    | INTEGER
                    | fraction
            }
            6 => exponent(self.below(0x7fff).max(1)) | INTEGER | fraction,
            7 => exponent(0x3fff) | INTEGER,
            8 | 9 => exponent(0x3fff + self.below(70)) | INTEGER | fraction,
            _ => exponent(0x3fff - 8 + self.below(16)) | INTEGER | fraction,
        }
    }

    /// Fills bytes with values of one kind, chosen at random.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let kind = self.below(6);
        let mut rest = bytes;
        while !rest.is_empty() {
            let value: [u8; 16] = match kind {
                0 | 1 => u128::from(self.f32()).to_le_bytes(),
                2 | 3 => u128::from(self.f64()).to_le_bytes(),
                4 => u128::from(self.integer()).to_le_bytes(),
                _ => u128::from(self.next()).to_le_bytes(),
            };
            let size = match kind {
                0 | 1 => 4,
                4 => [1, 2, 4, 8][self.below(4) as usize],
                _ => 8,
            };
            let n = rest.len().min(size);
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&value[..n]);
            rest = later;
        }
    }
}
