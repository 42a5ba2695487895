//! The kernel's `__vdso_sgx_enter_enclave`, found in the vDSO that the kernel maps.

use std::arch::global_asm;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// `__vdso_sgx_enter_enclave`, with the registers of its caller kept.
pub type Enter =
    unsafe extern "C" fn(rdi: u64, rsi: u64, rdx: u64, function: u32, r8: u64, r9: u64, run: *mut Run) -> i32;

// The vDSO keeps RBX, RBP and RSP only: after an asynchronous exit R12 to R15 are
// the processor's synthetic ones, so that its caller has to keep them. And ERESUME
// restores RSP and RBP of the EENTER that it continues, so that the vDSO's frame
// has to be where it was then, whoever calls: on a stack of its own.
global_asm!(
    "sgx_check_enter:",
    "mov rax, [rsp + 8]", // the seventh argument
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + 2f], rsp",
    "lea rsp, [rip + 3f]",
    "push rax",
    "push rax",
    "call qword ptr [rip + {function}]",
    "mov rsp, [rip + 2f]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    ".pushsection .bss",
    ".balign 16",
    "2: .skip 16",
    ".skip 65536",
    "3:",
    ".popsection",
    function = sym FUNCTION,
);

/// Address of the vDSO's function.
static FUNCTION: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn sgx_check_enter(rdi: u64, rsi: u64, rdx: u64, function: u32, r8: u64, r9: u64, run: *mut Run) -> i32;
}

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
            FUNCTION.store(base + word(symbol + 8), Ordering::Relaxed);
            return Some(sgx_check_enter);
        }
    }
    None
}
