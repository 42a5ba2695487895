//! Random and mutated inputs from a fixed seed, for the bounded tests.

/// xorshift64*: the same numbers everywhere for one seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator; every seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`; 0 if `n` is.
    pub fn below(&mut self, n: usize) -> usize {
        (self.u64() >> 16) as usize % n.max(1)
    }

    /// Up to `max` random bytes, some lengths of zeros among them.
    pub fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        let zeros = self.below(4) == 0;
        (0..len).map(|_| if zeros && self.below(3) != 0 { 0 } else { (self.u64() >> 32) as u8 }).collect()
    }
}

/// Changes a few places of `data`: bytes, bits, whole numbers, runs moved or
/// taken out, the end cut off.
pub fn mutate(data: &mut Vec<u8>, rng: &mut Rng) {
    const NUMBERS: [u64; 10] =
        [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, u32::MAX as u64, u64::MAX];
    for _ in 0..1 + rng.below(8) {
        // Half of the changes go where headers are.
        let reach = if rng.below(2) == 0 { data.len().min(0x280) } else { data.len() };
        let at = rng.below(reach);
        match rng.below(9) {
            0..=2 if at < data.len() => data[at] = rng.u64() as u8,
            3 if at < data.len() => data[at] ^= 1 << rng.below(8),
            4 | 5 => {
                let number =
                    NUMBERS[rng.below(NUMBERS.len())].wrapping_add(rng.below(3) as u64).to_le_bytes();
                let len = (1 << rng.below(4)).min(data.len() - at);
                data[at..at + len].copy_from_slice(&number[..len]);
            }
            6 => {
                let from = rng.below(data.len());
                let len = rng.below(64).min(data.len() - from).min(data.len() - at);
                data.copy_within(from..from + len, at);
            }
            7 if rng.below(4) == 0 => data.truncate(at),
            7 => {
                let len = rng.below(16).min(data.len() - at);
                data.drain(at..at + len);
            }
            _ => {
                let more = rng.bytes(16);
                data.splice(at..at, more);
            }
        }
    }
}
