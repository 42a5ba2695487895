//! The kernel's `__vdso_sgx_enter_enclave`, found in the vDSO that the kernel maps
//! (*Linux, `arch/x86/include/uapi/asm/sgx.h`: vdso_sgx_enter_enclave_t*).

use std::arch::global_asm;
use std::ffi::CStr;
use std::sync::OnceLock;

/// Leaf EENTER.
pub const EENTER: u32 = 2;
/// Leaf ERESUME.
pub const ERESUME: u32 = 3;
/// Leaf EEXIT.
pub const EEXIT: u32 = 4;

/// `struct sgx_enclave_run`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Address of the TCS.
    pub tcs: u64,
    /// Leaf that was executed last: [`EEXIT`] after a normal return.
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

// The vDSO keeps RBX, RBP and RSP only: R12 to R15 are the enclave's or, after an
// asynchronous exit, the processor's synthetic ones.
global_asm!(
    "enclave_host_enter:", // RDI, RSI, RDX: the enclave's; ECX: leaf; R8: run; R9: the vDSO's function
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov rax, r9",
    "push r8", // the seventh argument
    "xor r8d, r8d",
    "xor r9d, r9d",
    "call rax",
    "pop r8",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "cld",
    "ret",
);

unsafe extern "C" {
    fn enclave_host_enter(rdi: u64, rsi: u64, rdx: u64, leaf: u32, run: *mut Run, function: u64) -> i32;
}

/// Address of the kernel's function; `None` if the kernel has none.
pub fn function() -> Option<u64> {
    static FUNCTION: OnceLock<Option<u64>> = OnceLock::new();
    *FUNCTION.get_or_init(find)
}

/// Enters an enclave, by EENTER or ERESUME, with these registers; what happened is in
/// `run`.
///
/// # Safety
/// `function` is [`function`]'s; `run` holds the TCS of a loaded enclave, in which no other
/// thread is; the enclave does to this program's memory only what its author agreed to,
/// and leaves RSP, RBP and RFLAGS as the calling convention demands.
pub unsafe fn enter(function: u64, run: &mut Run, leaf: u32, rdi: u64, rsi: u64, rdx: u64) -> i32 {
    // SAFETY: the caller's contract.
    unsafe { enclave_host_enter(rdi, rsi, rdx, leaf, run, function) }
}

fn word(at: u64) -> u64 {
    // SAFETY: callers pass addresses inside the vDSO, which its own headers gave.
    unsafe { (at as *const u64).read_unaligned() }
}

fn find() -> Option<u64> {
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
    let count = if hash != 0 { word(hash) >> 32 } else { strtab.saturating_sub(symtab) / 24 };
    (0..count).map(|i| symtab + i * 24).find_map(|symbol| {
        let name = strtab + (word(symbol) & 0xffff_ffff);
        // SAFETY: a string of the vDSO's string table.
        let name = unsafe { CStr::from_ptr(name as *const libc::c_char) };
        (name.to_bytes() == b"__vdso_sgx_enter_enclave").then(|| base + word(symbol + 8))
    })
}
