//! The host's memory. What lies there is the host's to change at any time.
//!
//! Copies are of aligned 8-byte words: a write of less, or a read that is not aligned, can
//! be made to leave stale data of the processor where the host finds it (*Intel, Processor
//! MMIO Stale Data*, *INTEL-SA-00657*).

use core::arch::asm;

/// Bytes of a word.
pub const WORD: usize = size_of::<u64>();

/// True if `size` bytes at `address` all lie outside the enclave, of `enclave` bytes at
/// `base`.
pub fn is_outside(address: u64, size: u64, base: u64, enclave: u64) -> bool {
    match address.checked_add(size) {
        Some(end) => end <= base || address >= base + enclave,
        None => false,
    }
}

/// Copies words in.
///
/// # Safety
/// The memory at `from` is the host's, aligned, and as long as `to`.
pub unsafe fn copy_in(from: u64, to: &mut [u64]) {
    // SAFETY: the caller's contract for the source; the destination is a slice.
    unsafe {
        asm!(
            "rep movsq",
            inout("rsi") from => _,
            inout("rdi") to.as_mut_ptr() => _,
            inout("rcx") to.len() => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies words out.
///
/// # Safety
/// The memory at `to` is the host's, aligned, and as long as `from`.
pub unsafe fn copy_out(to: u64, from: &[[u8; WORD]]) {
    // SAFETY: the caller's contract for the destination; the source is a slice.
    unsafe {
        asm!(
            "rep movsq",
            inout("rsi") from.as_ptr() => _,
            inout("rdi") to => _,
            inout("rcx") from.len() => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::is_outside;

    #[test]
    fn ranges_that_touch_the_enclave() {
        const BASE: u64 = 0x10_0000;
        const SIZE: u64 = 0x1_0000;
        let outside = |address, size| is_outside(address, size, BASE, SIZE);
        assert!(outside(BASE - 64, 64) && outside(BASE + SIZE, 64) && outside(0, 8));
        for (address, size) in [
            (BASE - 64, 65),
            (BASE - 8, SIZE + 16),
            (BASE, 8),
            (BASE + SIZE - 1, 8),
            (0, u64::MAX),
            (u64::MAX - 7, 64),
            (u64::MAX, 1),
        ] {
            assert!(!outside(address, size), "{address:#x} {size:#x}");
        }
    }
}
