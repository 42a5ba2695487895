//! Where operands are placed.

use crate::area::DATA;
use crate::rng::Rng;

/// An address in or at the edge of the data window for `bytes` bytes.
pub fn window(rng: &mut Rng, bytes: u64) -> u64 {
    let edge = |rng: &mut Rng, page: u64| DATA + page * 4096 - rng.below(bytes.max(2) - 1).clamp(1, 4096);
    match rng.below(64) {
        0..=30 => DATA + (rng.below(0x2000 - 64) & !63),
        31..=50 => DATA + rng.below(0x2000 - bytes.min(4096)),
        51..=54 => edge(rng, 1),
        55..=58 => DATA + 0x2000 + rng.below(0x1000 - bytes.min(2048)),
        59 => edge(rng, 2),
        60 => edge(rng, 3),
        61 => DATA + 0x3000 + if rng.one_in(2) { 0 } else { rng.below(0x1000) },
        62 => edge(rng, 4),
        _ => rng.pick(&[DATA + 0x4000, DATA + 0x5000 - bytes.min(4096), DATA - 1, DATA + 0x5000 - 1]),
    }
}

/// An address for an operand: mostly in the window, else null, in the kernel's
/// half or not canonical.
pub fn address(rng: &mut Rng, bytes: u64) -> u64 {
    match rng.below(64) {
        0 => rng.below(0x800),
        1 => 0xffff_ff00_0000_0000 + (rng.next() >> 26),
        2 | 3 => not_canonical(rng),
        _ => window(rng, bytes),
    }
}

/// An address that is not canonical.
pub fn not_canonical(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => 0x0000_8000_0000_0000 + rng.below(0x1000),
        1 => 0x7fff_ffff_ffff_0000 | rng.below(0x1000),
        _ => (rng.next() & 0x3fff_ffff_ffff_ffff) | 1 << 62,
    }
}
