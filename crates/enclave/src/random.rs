//! Random numbers, by RDRAND: nothing of the host's takes part.
//!
//! The crate `getrandom` (0.3) gets its numbers here. For crates that take a generator,
//! there is [`Rng`].

use enclave_base::random::word;
use rand_core::{CryptoRng, RngCore};

/// Fills `bytes` with random numbers.
///
/// # Panics
/// If the processor's generator fails: there is nothing to fall back on.
pub fn fill(bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let word = word().expect("RDRAND gives numbers");
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
}

/// `N` random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A generator for crates that ask for one (`rand_core` 0.6).
#[derive(Clone, Copy, Debug, Default)]
pub struct Rng;

impl CryptoRng for Rng {}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(bytes())
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        fill(to);
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        fill(to);
        Ok(())
    }
}

/// What `getrandom` calls (its documentation: *Custom backend*).
///
/// # Safety
/// `to` is `len` bytes to be written.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(to: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    for at in (0..len).step_by(8) {
        let word = word().ok_or(getrandom::Error::UNEXPECTED)?.to_le_bytes();
        let count = (len - at).min(8);
        // SAFETY: the caller's contract; `at + count` is at most `len`.
        unsafe { to.add(at).copy_from_nonoverlapping(word.as_ptr(), count) };
    }
    Ok(())
}
