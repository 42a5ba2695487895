//! Registers, and instructions that fault.

use core::arch::asm;

use check_interface::State;

unsafe extern "C" {
    /// The enclave's first byte.
    static __ehdr_start: u8;
}

/// Registers and flags, as the call left them for this code. (Flags of arithmetic are the
/// code's own by now.)
pub fn state() -> State {
    let (rflags, fs, gs): (u64, u64, u64);
    let mut mxcsr = 0u32;
    let mut environment = [0u16; 14];
    // SAFETY: stores flags and control registers into this frame; FNSTENV masks x87
    // exceptions, and FLDENV takes that back. FS and GS point to the thread's own page,
    // whose first word is its address.
    unsafe {
        asm!(
            "pushfq",
            "pop {rflags}",
            "stmxcsr [{mxcsr}]",
            "fnstenv [{environment}]",
            "fldenv [{environment}]",
            "mov {fs}, fs:[0]",
            "mov {gs}, gs:[0]",
            rflags = out(reg) rflags,
            mxcsr = in(reg) &mut mxcsr,
            environment = in(reg) environment.as_mut_ptr(),
            fs = out(reg) fs,
            gs = out(reg) gs,
        );
    }
    let base = &raw const __ehdr_start as u64;
    State { rflags, mxcsr, control: environment[0], tags: environment[4], bases: [fs - base, gs - base] }
}

/// UD2; what RAX is afterwards.
pub fn undefined() -> u64 {
    let rax;
    // SAFETY: whoever handles it changes RAX and RIP only.
    unsafe { asm!("ud2", inout("rax") 0u64 => rax) };
    rax
}

/// DIV by zero; what RAX is afterwards.
pub fn divide_by_zero() -> u64 {
    let rax;
    // SAFETY: as above.
    unsafe { asm!("div rcx", inout("rax") 1u64 => rax, inout("rdx") 0u64 => _, inout("rcx") 0u64 => _) };
    rax
}

/// Reads the last word of the enclave (of 32 MiB), where nothing is; what RAX is afterwards.
pub fn page_fault() -> u64 {
    let nowhere = (&raw const __ehdr_start as u64 | 0x1ff_ffff) - 7;
    let rax;
    // SAFETY: whoever handles it changes RAX and RIP only.
    unsafe { asm!("mov rax, [rcx]", out("rax") rax, in("rcx") nowhere) };
    rax
}

/// Uses up the stack.
pub fn overflow() -> u64 {
    let mut sum = 0;
    // SAFETY: pushes below the frame until the guard page faults, which ends the enclave.
    unsafe { asm!("2: push rax", "inc rax", "jmp 2b", inout("rax") sum) };
    sum += 1;
    sum
}

/// CPUID: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32) -> [u32; 4] {
    let result = core::arch::x86_64::__cpuid_count(leaf, 0);
    [result.eax, result.ebx, result.ecx, result.edx]
}

/// Where some of this program's code is.
fn code_at() -> *mut u8 {
    crate::algorithms::all as fn() -> _ as *mut u8
}

/// 256 bytes of code.
pub fn code() -> [u8; 256] {
    // SAFETY: code of the enclave, which can be read; there is more behind it.
    unsafe { code_at().cast::<[u8; 256]>().read_volatile() }
}

/// Writes a byte of code with what it is.
pub fn write_code() {
    let at = code_at();
    // SAFETY: changes nothing, and faults where code cannot be written.
    unsafe { at.write_volatile(at.read_volatile()) };
}
