//! POLYVAL (RFC 8452 §3), the universal hash of the authentication codes.
//!
//! Eight blocks at a time against eight powers of the key, with one reduction
//! (*S. Gueron, M. Kounavis, Intel Carry-Less Multiplication Instruction and its
//! Usage for Computing the GCM Mode*, 2014); RustCrypto's one block at a time
//! where the host has no PCLMULQDQ, and in the tests, as the judge.

use core::arch::x86_64::*;

use polyval::{
    Polyval,
    universal_hash::{KeyInit, UniversalHash},
};

/// Blocks hashed at a time.
const LANES: usize = 8;
/// Bytes of a block.
const BLOCK: usize = 16;

/// A hash key, ready for use.
pub(crate) struct HashKey {
    /// The key as RFC 8452 has it.
    key: [u8; BLOCK],
    /// The key's powers, first to eighth; unused without PCLMULQDQ.
    powers: [u128; LANES],
    /// The host has PCLMULQDQ.
    fast: bool,
}

impl HashKey {
    pub(crate) fn new(key: [u8; BLOCK]) -> Self {
        let first = u128::from_le_bytes(key);
        let mut powers = [first; LANES];
        let fast = is_x86_feature_detected!("pclmulqdq");
        if fast {
            for i in 1..LANES {
                // SAFETY: the host has the instruction.
                powers[i] = unsafe { multiply(powers[i - 1], first) };
            }
        }
        Self { key, powers, fast }
    }

    /// The hash of `data`, whose length is a multiple of 128 bytes.
    pub(crate) fn hash(&self, data: &[u8]) -> u128 {
        debug_assert!(data.len().is_multiple_of(LANES * BLOCK));
        if self.fast {
            // SAFETY: the host has the instruction.
            return unsafe { fold(&self.powers, data) };
        }
        self.hash_portable(data)
    }

    fn hash_portable(&self, data: &[u8]) -> u128 {
        let mut hash = Polyval::new((&self.key).into());
        hash.update_padded(data);
        u128::from_le_bytes(hash.finalize().into())
    }
}

#[target_feature(enable = "pclmulqdq,sse2")]
#[inline]
fn vector(value: u128) -> __m128i {
    _mm_set_epi64x((value >> 64) as i64, value as i64)
}

#[target_feature(enable = "pclmulqdq,sse2")]
#[inline]
fn integer(value: __m128i) -> u128 {
    let low = _mm_cvtsi128_si64(value) as u64;
    let high = _mm_cvtsi128_si64(_mm_unpackhi_epi64(value, value)) as u64;
    u128::from(high) << 64 | u128::from(low)
}

/// An unreduced product: low, the two middle terms' sum, high.
type Product = [__m128i; 3];

#[target_feature(enable = "pclmulqdq,sse2")]
#[inline]
fn add_product(sum: Product, a: __m128i, b: __m128i) -> Product {
    let middle = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    [
        _mm_xor_si128(sum[0], _mm_clmulepi64_si128(a, b, 0x00)),
        _mm_xor_si128(sum[1], middle),
        _mm_xor_si128(sum[2], _mm_clmulepi64_si128(a, b, 0x11)),
    ]
}

/// Montgomery reduction by x^128 + x^127 + x^126 + x^121 + 1.
#[target_feature(enable = "pclmulqdq,sse2")]
#[inline]
fn reduce([low, middle, high]: Product) -> __m128i {
    let modulus = _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1);
    let low = _mm_xor_si128(low, _mm_slli_si128(middle, 8));
    let high = _mm_xor_si128(high, _mm_srli_si128(middle, 8));
    let once = _mm_xor_si128(_mm_shuffle_epi32(low, 78), _mm_clmulepi64_si128(low, modulus, 0x10));
    let twice = _mm_xor_si128(_mm_shuffle_epi32(once, 78), _mm_clmulepi64_si128(once, modulus, 0x10));
    _mm_xor_si128(high, twice)
}

#[target_feature(enable = "pclmulqdq,sse2")]
fn multiply(a: u128, b: u128) -> u128 {
    let zero = _mm_setzero_si128();
    integer(reduce(add_product([zero; 3], vector(a), vector(b))))
}

#[target_feature(enable = "pclmulqdq,sse2")]
fn fold(powers: &[u128; LANES], data: &[u8]) -> u128 {
    let zero = _mm_setzero_si128();
    let powers = powers.map(|p| vector(p));
    let mut hash = zero;
    let (groups, _) = data.as_chunks::<{ LANES * BLOCK }>();
    for group in groups {
        let (blocks, _) = group.as_chunks::<BLOCK>();
        let mut sum = [zero; 3];
        // The first block, which waits for the last group, goes last.
        for i in (0..LANES).rev() {
            let mut block = vector(u128::from_le_bytes(blocks[i]));
            if i == 0 {
                block = _mm_xor_si128(block, hash);
            }
            sum = add_product(sum, block, powers[LANES - 1 - i]);
        }
        hash = reduce(sum);
    }
    integer(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 8452 appendix A: the worked example's key and blocks.
    #[test]
    fn worked_example() {
        let bytes = |hex: &str| u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
        let key = HashKey::new(bytes("25629347589242761d31f826ba4b757b"));
        let mut data = [0u8; 32];
        data[..16].copy_from_slice(&bytes("4f4f95668c83dfb6401762bb2d01a262"));
        data[16..].copy_from_slice(&bytes("d1a24ddd2721d006bbe45f20d3c9f362"));
        let expected = u128::from_le_bytes(bytes("f7a3b47b846119fae5b7866cf5e5b77e"));
        assert_eq!(key.hash_portable(&data), expected);
        // Leading zero blocks do not change a polynomial's value.
        let mut padded = [0u8; 128];
        padded[96..].copy_from_slice(&data);
        assert_eq!(key.hash(&padded), expected);
    }

    proptest! {
        #[test]
        fn agrees_with_rustcrypto(key: [u8; 16], groups in 0usize..5, seed: [u8; 32]) {
            let key = HashKey::new(key);
            let data: Vec<u8> = (0..groups * 128).map(|i| seed[i % 32] ^ ((i * 31) >> 3) as u8).collect();
            prop_assert_eq!(key.hash(&data), key.hash_portable(&data));
        }
    }
}
