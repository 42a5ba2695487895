//! EENTER as the Fortanix loader does it without the vDSO: an asynchronous exit
//! comes back to the ENCLU itself, whose RAX then says ERESUME.

use std::arch::global_asm;

use sgxs_loaders::Tcs;

/// Memory of the host's for an enclave to write to.
#[repr(align(4096))]
pub struct Page(pub [u8; 4096]);

impl Page {
    /// A page of zeros.
    pub fn zeroed() -> Box<Page> {
        Box::new(Page([0; 4096]))
    }
}

// RDI: the TCS; RSI: where RDI and RSI of the entry are, and those of the exit go.
global_asm!(
    "sgxs_load_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rsi",
    "mov rbx, rdi",
    "mov rdi, [rsi]",
    "mov rsi, [rsi + 8]",
    "xor edx, edx",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d", // no buffer for the enclave's own debug output
    "lea rcx, [rip + 2f]",
    "mov eax, 2", // EENTER
    "2: enclu",
    "pop rax",
    "mov [rax], rdi",
    "mov [rax + 8], rsi",
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
    fn sgxs_load_enter(tcs: u64, registers: *mut [u64; 2]);
}

/// Enters with these RDI and, in RSI, the address of `page`; RDI and RSI at
/// EEXIT. An exception in the enclave that Linux cannot repair ends the program.
pub fn enter(tcs: &Tcs, rdi: u64, page: &mut Page) -> [u64; 2] {
    let address = sgxs::loader::Tcs::address(tcs) as u64;
    let mut registers = [rdi, page.0.as_mut_ptr() as u64];
    // SAFETY: the TCS is of a loaded enclave, which stays loaded as long as
    // `tcs` lives. The enclaves that this program is for write to that page
    // alone, and leave RSP as it is.
    unsafe { sgxs_load_enter(address, &raw mut registers) };
    registers
}
