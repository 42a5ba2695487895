//! 256-bit registers: ISR, TMR and IRR.

/// One bit a vector, in eight 32-bit registers as the guest reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits256([u32; 8]);

impl Bits256 {
    pub(super) fn set(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] |= 1 << (vector & 31);
    }

    pub(super) fn clear(&mut self, vector: u8) {
        self.0[usize::from(vector >> 5)] &= !(1 << (vector & 31));
    }

    pub(super) fn assign(&mut self, vector: u8, value: bool) {
        if value { self.set(vector) } else { self.clear(vector) }
    }

    pub(super) fn get(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] >> (vector & 31) & 1 != 0
    }

    /// The eight registers.
    pub(super) fn words(&self) -> [u32; 8] {
        self.0
    }

    /// From the eight registers; `None` if a vector below 16 is among them,
    /// which no interrupt has.
    pub(super) fn from_words(words: [u32; 8]) -> Option<Self> {
        (words[0] & 0xffff == 0).then_some(Self(words))
    }

    pub(super) fn highest(&self) -> Option<u8> {
        let i = self.0.iter().rposition(|w| *w != 0)?;
        Some((i * 32) as u8 + self.0[i].ilog2() as u8)
    }

    /// Register `index` modulo 8: vectors `32 * index` and up.
    pub(super) fn word(&self, index: u32) -> u32 {
        self.0[(index & 7) as usize]
    }
}
