//! The kernel's `__vdso_sgx_enter_enclave`, for an enclave that has no stack of its own.

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering};

pub use enclave_host::vdso::{EENTER, EEXIT, ERESUME, Run};

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

/// The function; `None` if the kernel has none.
pub fn find() -> Option<Enter> {
    FUNCTION.store(enclave_host::vdso::function()?, Ordering::Relaxed);
    Some(sgx_check_enter)
}
