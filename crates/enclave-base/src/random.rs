//! Random numbers of the processor's.

use core::arch::x86_64::_rdrand64_step;

/// Attempts, of which one succeeds on a processor that works
/// (*Intel, Digital Random Number Generator, §5.2.1*: 10).
const ATTEMPTS: usize = 10;

/// A random word by RDRAND; `None` if the processor's generator fails.
pub fn word() -> Option<u64> {
    (0..ATTEMPTS).find_map(|_| {
        let mut word = 0;
        // SAFETY: every processor with SGX has RDRAND, and enclaves are built for it.
        (unsafe { _rdrand64_step(&mut word) } == 1).then_some(word)
    })
}
