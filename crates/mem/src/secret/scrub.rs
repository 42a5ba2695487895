//! Clearing what a computation leaves in registers and on the stack.

use std::{arch::asm, hint::black_box, mem::MaybeUninit};

/// Bytes of stack [`scrub_stack`] clears: more than the cipher's and the
/// interpreter's deepest frames that hold secrets.
const STACK_BYTES: usize = 8192;

/// Clears the host's vector registers (and mask registers, where there are
/// any), so that nothing of an enclave or a key is left there.
#[inline]
pub fn scrub_registers() {
    if is_x86_feature_detected!("avx512bw") {
        // SAFETY: the instructions exist; all they change is declared.
        unsafe {
            asm!(
                "vzeroall",
                "vpxorq zmm16, zmm16, zmm16",
                "vpxorq zmm17, zmm17, zmm17",
                "vpxorq zmm18, zmm18, zmm18",
                "vpxorq zmm19, zmm19, zmm19",
                "vpxorq zmm20, zmm20, zmm20",
                "vpxorq zmm21, zmm21, zmm21",
                "vpxorq zmm22, zmm22, zmm22",
                "vpxorq zmm23, zmm23, zmm23",
                "vpxorq zmm24, zmm24, zmm24",
                "vpxorq zmm25, zmm25, zmm25",
                "vpxorq zmm26, zmm26, zmm26",
                "vpxorq zmm27, zmm27, zmm27",
                "vpxorq zmm28, zmm28, zmm28",
                "vpxorq zmm29, zmm29, zmm29",
                "vpxorq zmm30, zmm30, zmm30",
                "vpxorq zmm31, zmm31, zmm31",
                "kxorq k0, k0, k0",
                "kxorq k1, k1, k1",
                "kxorq k2, k2, k2",
                "kxorq k3, k3, k3",
                "kxorq k4, k4, k4",
                "kxorq k5, k5, k5",
                "kxorq k6, k6, k6",
                "kxorq k7, k7, k7",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        }
    } else if is_x86_feature_detected!("avx") {
        // SAFETY: the instruction exists; all it changes is declared.
        unsafe { asm!("vzeroall", clobber_abi("sysv64"), options(nomem, nostack, preserves_flags)) };
    } else {
        // SAFETY: SSE2 is part of x86-64; all these change is declared.
        unsafe {
            asm!(
                "pxor xmm0, xmm0",
                "pxor xmm1, xmm1",
                "pxor xmm2, xmm2",
                "pxor xmm3, xmm3",
                "pxor xmm4, xmm4",
                "pxor xmm5, xmm5",
                "pxor xmm6, xmm6",
                "pxor xmm7, xmm7",
                "pxor xmm8, xmm8",
                "pxor xmm9, xmm9",
                "pxor xmm10, xmm10",
                "pxor xmm11, xmm11",
                "pxor xmm12, xmm12",
                "pxor xmm13, xmm13",
                "pxor xmm14, xmm14",
                "pxor xmm15, xmm15",
                clobber_abi("sysv64"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

/// Clears the stack below the caller's frame (8 KiB of it): what functions that
/// returned before left there. The caller's own locals stay.
#[inline(never)]
pub fn scrub_stack() {
    let mut stack = [MaybeUninit::<u8>::uninit(); STACK_BYTES];
    stack.fill(MaybeUninit::new(0));
    black_box(&mut stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// XMM3 and, with AVX-512, ZMM29.
    fn vectors() -> [u64; 2] {
        let (mut low, mut high) = (0u64, 0u64);
        // SAFETY: copies registers to integers.
        unsafe { asm!("movq {}, xmm3", out(reg) low, options(nomem, nostack, preserves_flags)) };
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: as above, and the instruction exists.
            unsafe { asm!("vmovq {}, xmm29", out(reg) high, options(nomem, nostack, preserves_flags)) };
        }
        low = black_box(low);
        high = black_box(high);
        [low, high]
    }

    #[test]
    fn registers_are_cleared() {
        let wide = is_x86_feature_detected!("avx512f");
        // One asm block plants, so that nothing comes between it and the scrub
        // but code that does not use these registers.
        // SAFETY: changes only what is declared.
        unsafe { asm!("movq xmm3, {}", in(reg) 0x1122u64, out("xmm3") _, options(nomem, nostack)) };
        if wide {
            // SAFETY: as above, and the instruction exists.
            unsafe { asm!("vmovq xmm29, {}", in(reg) 0x3344u64, out("xmm29") _, options(nomem, nostack)) };
        }
        if !black_box(false) {
            scrub_registers();
        }
        assert_eq!(vectors(), [0, 0]);
    }

    #[inline(never)]
    fn plant() -> usize {
        let mut local = [0x77u8; 256];
        black_box(&mut local).as_ptr() as usize
    }

    #[test]
    fn the_stack_below_is_cleared() {
        let at = plant();
        scrub_stack();
        let mut seen = [1u8; 256];
        // SAFETY: the frame of `plant` was on this thread's mapped stack; its
        // bytes are read as the assembly's business.
        unsafe { crate::raw::copy(at as *const u8, seen.as_mut_ptr(), 256) };
        assert!(seen.iter().all(|b| *b != 0x77));
    }
}
