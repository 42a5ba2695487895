//! The kernel's `__vdso_sgx_enter_enclave`, found in the vDSO that the kernel maps.

use std::ffi::CStr;

/// `struct sgx_enclave_run` of the kernel's `asm/sgx.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Address of the TCS.
    pub tcs: u64,
    /// Leaf that was executed last: 4 (EEXIT) after a normal return.
    pub function: u32,
    /// Exception after which the call returned.
    pub exception_vector: u16,
    /// Its error code.
    pub exception_error_code: u16,
    /// Its address.
    pub exception_addr: u64,
    user_handler: u64,
    user_data: u64,
    reserved: [u8; 216],
}

impl Run {
    /// To enter by the TCS at `tcs`.
    pub fn new(tcs: u64) -> Self {
        Run {
            tcs,
            function: 0,
            exception_vector: 0,
            exception_error_code: 0,
            exception_addr: 0,
            user_handler: 0,
            user_data: 0,
            reserved: [0; 216],
        }
    }
}

/// `__vdso_sgx_enter_enclave`.
pub type Enter =
    unsafe extern "C" fn(rdi: u64, rsi: u64, rdx: u64, function: u32, r8: u64, r9: u64, run: *mut Run) -> i32;

/// Leaf EENTER.
pub const EENTER: u32 = 2;
/// Leaf ERESUME.
pub const ERESUME: u32 = 3;
/// Leaf EEXIT.
pub const EEXIT: u32 = 4;

fn word(at: u64) -> u64 {
    // SAFETY: callers pass addresses inside the vDSO, which its own headers gave.
    unsafe { (at as *const u64).read_unaligned() }
}

/// The function; `None` if the kernel has none.
pub fn find() -> Option<Enter> {
    // SAFETY: getauxval has no preconditions.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if base == 0 {
        return None;
    }
    let (phoff, phnum) = (word(base + 32), word(base + 56) & 0xffff);
    let mut dynamic = 0;
    for i in 0..phnum {
        let header = base + phoff + i * 56;
        if word(header) as u32 == 2 {
            dynamic = base + word(header + 16); // PT_DYNAMIC, p_vaddr
        }
    }
    let (mut symtab, mut strtab, mut hash) = (0, 0, 0);
    let mut at = dynamic;
    while dynamic != 0 && word(at) != 0 {
        match word(at) {
            4 => hash = base + word(at + 8),
            5 => strtab = base + word(at + 8),
            6 => symtab = base + word(at + 8),
            _ => {}
        }
        at += 16;
    }
    if symtab == 0 || strtab == 0 {
        return None;
    }
    // DT_HASH's second word is the number of symbols; without it, symbols end where strings begin.
    let count = if hash != 0 { word(hash) >> 32 } else { (strtab.saturating_sub(symtab)) / 24 };
    for i in 0..count {
        let symbol = symtab + i * 24;
        let name = strtab + (word(symbol) & 0xffff_ffff);
        // SAFETY: a string of the vDSO's string table.
        let name = unsafe { CStr::from_ptr(name as *const libc::c_char) };
        if name.to_bytes() == b"__vdso_sgx_enter_enclave" {
            let address = base + word(symbol + 8);
            // SAFETY: the kernel's symbol of that name has this signature.
            return Some(unsafe { std::mem::transmute::<u64, Enter>(address) });
        }
    }
    None
}
