//! Single host accesses to memory that guest processors and devices race on.
//!
//! The guest's loads and stores must be *one* host access each, never torn,
//! repeated or removed by the compiler, at any alignment; and on x86 plain
//! moves in program order give the guest the memory ordering the SDM promises
//! (*vol. 3A §8.2.2*). Rust's atomics demand alignment, so each access is one
//! instruction of inline assembly.

use core::arch::asm;

mod sealed {
    pub trait Sealed {}
}

/// An integer the processor accesses as one unit: 1, 2, 4 or 8 bytes.
pub trait Width: sealed::Sealed + Copy + Eq + core::fmt::Debug + 'static {
    /// Size in bits.
    const BITS: u32;
    /// Size in bytes.
    const BYTES: u64;
    /// The low bits of `value`.
    fn truncate(value: u64) -> Self;
    /// Zero-extended.
    fn zext(self) -> u64;
    /// Sign-extended.
    fn sext(self) -> u64;

    /// Loads once.
    ///
    /// # Safety
    /// `ptr` is valid for reads of this size for as long as the call lasts;
    /// any alignment.
    unsafe fn load(ptr: *const u8) -> Self;
    /// Stores once.
    ///
    /// # Safety
    /// `ptr` is valid for writes of this size; any alignment.
    unsafe fn store(ptr: *mut u8, value: Self);
    /// Compares with `old` and, if equal, stores `new`, as one locked
    /// operation; returns what was there.
    ///
    /// # Safety
    /// `ptr` is valid for reads and writes of this size; any alignment.
    unsafe fn compare_exchange(ptr: *mut u8, old: Self, new: Self) -> Self;
    /// Stores `n` times, at ascending addresses, in no promised units.
    ///
    /// # Safety
    /// `ptr` is valid for writes of `n` times this size; any alignment.
    unsafe fn fill(ptr: *mut u8, value: Self, n: usize);
}

macro_rules! width {
    ($t:ty, $signed:ty, $class:ident, $ptr:literal, $fmt:literal, $acc:tt, $stos:literal) => {
        impl sealed::Sealed for $t {}
        impl Width for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: u64 = size_of::<$t>() as u64;
            #[inline(always)]
            fn truncate(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn zext(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $signed as i64 as u64
            }
            #[inline(always)]
            unsafe fn load(ptr: *const u8) -> Self {
                let value: $t;
                // SAFETY: one load from memory the caller vouches for.
                unsafe {
                    asm!(concat!("mov {v", $fmt, "}, ", $ptr, " ptr [{p}]"),
                        v = out($class) value, p = in(reg) ptr,
                        options(nostack, preserves_flags, readonly))
                };
                value
            }
            #[inline(always)]
            unsafe fn store(ptr: *mut u8, value: Self) {
                // SAFETY: one store to memory the caller vouches for.
                unsafe {
                    asm!(concat!("mov ", $ptr, " ptr [{p}], {v", $fmt, "}"),
                        v = in($class) value, p = in(reg) ptr,
                        options(nostack, preserves_flags))
                };
            }
            #[inline(always)]
            unsafe fn compare_exchange(ptr: *mut u8, old: Self, new: Self) -> Self {
                let found: $t;
                // SAFETY: one locked access to memory the caller vouches for.
                unsafe {
                    asm!(concat!("lock cmpxchg ", $ptr, " ptr [{p}], {n", $fmt, "}"),
                        p = in(reg) ptr, n = in($class) new, inout($acc) old => found,
                        options(nostack))
                };
                found
            }
            #[inline]
            unsafe fn fill(ptr: *mut u8, value: Self, n: usize) {
                // SAFETY: touches just the memory the caller vouches for.
                unsafe {
                    asm!(concat!("rep ", $stos), in($acc) value,
                        inout("rdi") ptr => _, inout("rcx") n => _,
                        options(nostack, preserves_flags))
                };
            }
        }
    };
}

width!(u8, i8, reg_byte, "byte", "", "al", "stosb");
width!(u16, i16, reg, "word", ":x", "ax", "stosw");
width!(u32, i32, reg, "dword", ":e", "eax", "stosd");
width!(u64, i64, reg, "qword", ":r", "rax", "stosq");

/// Sixteen-byte compare and exchange, locked (CMPXCHG16B); returns what was there.
///
/// # Safety
/// `ptr` is valid for reads and writes of 16 bytes and 16-byte aligned.
pub unsafe fn compare_exchange_16(ptr: *mut u8, old: u128, new: u128) -> u128 {
    let (mut low, mut high) = (old as u64, (old >> 64) as u64);
    // SAFETY: one locked access to aligned memory the caller vouches for. RBX
    // cannot be named as an operand, nor may another one be put there, so it is
    // exchanged around the instruction and the others are named.
    unsafe {
        asm!("xchg rbx, rsi", "lock cmpxchg16b [rdi]", "mov rbx, rsi",
            inout("rsi") new as u64 => _, in("rdi") ptr,
            in("rcx") (new >> 64) as u64, inout("rax") low, inout("rdx") high,
            options(nostack))
    };
    u128::from(high) << 64 | u128::from(low)
}

/// A full memory fence, as LOCK and MFENCE are (*SDM vol. 3A §8.2.5*).
#[inline(always)]
pub fn fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Copies between host and guest memory; bytes, in ascending order, in no
/// promised units.
///
/// # Safety
/// Both pointers are valid for `len` bytes and the ranges do not overlap.
#[inline]
pub unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if len <= 64 && len.is_multiple_of(8) {
        // Frames, operands: REP takes long to start.
        for at in (0..len).step_by(8) {
            // SAFETY: inside the ranges the caller vouches for.
            unsafe { u64::store(to.add(at), u64::load(from.add(at))) };
        }
        return;
    }
    // SAFETY: `rep movsb` touches just the two ranges the caller vouches for;
    // as assembly, a race on the guest's side cannot mislead the compiler.
    unsafe {
        asm!("rep movsb", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") len => _,
            options(nostack, preserves_flags))
    };
}
