//! The way in and out of an enclave that is locked, and past the loader of one that is not.
//!
//! What the runtime's entry code does against hostile registers stands here as well, for the
//! same reasons (crate `enclave`, `entry.rs`): known flags and extended state before any
//! compiled code, the enclave's own stack, nothing left in registers. A thread's own page
//! and its SSA frames stay as they were added: the payload finds them new.
//!
//! One thread at a time is in here; others are turned away, as are exceptions' handlers.

/// The extended state that XRSTOR makes: all initial, MXCSR from here.
#[repr(C, align(64))]
#[doc(hidden)]
pub struct Xstate {
    before: [u32; 6],
    mxcsr: u32,
    rest: [u32; 512 / 4 - 7 + 16],
}

#[doc(hidden)]
pub static XSTATE: Xstate = Xstate { before: [0; 6], mxcsr: 0x1fbf, rest: [0; 512 / 4 - 7 + 16] };

/// Numbers of the entry code.
#[doc(hidden)]
pub mod number {
    use core::mem::offset_of;

    use enclave_abi::call::Command;
    use enclave_abi::encrypted::Payload;
    use enclave_abi::layout::{HANDLER_STACK, SSA_FRAME_PAGES, SSA_FRAMES};
    use sgx_abi::{GprSgx, PAGE_SIZE};

    const PAGE: u64 = PAGE_SIZE as u64;
    const FRAME: u64 = SSA_FRAME_PAGES as u64 * PAGE;
    /// From the end of a thread's stack to its TCS: a guard, the handler's stack, its page
    /// and its SSA frames.
    pub const STACK_TO_TCS: u64 = PAGE + HANDLER_STACK + PAGE + SSA_FRAMES as u64 * FRAME;
    /// From a thread's page, where GS is based, to GPRSGX of its first SSA frame.
    const GPR: u64 = PAGE + FRAME - GprSgx::SIZE as u64;
    /// There the processor keeps the host's RSP.
    pub const URSP: u64 = GPR + offset_of!(GprSgx, ursp) as u64;
    /// There its RBP.
    pub const URBP: u64 = GPR + offset_of!(GprSgx, urbp) as u64;
    /// The only command.
    pub const CALL: u64 = Command::Call as u64;
    /// [`Payload::loader`].
    pub const LOADER: usize = offset_of!(Payload, loader);
    /// [`Payload::entry`].
    pub const ENTRY: usize = offset_of!(Payload, entry);
    /// [`Payload::rela`].
    pub const RELA: usize = offset_of!(Payload, rela);
    /// [`Payload::rela_count`].
    pub const RELA_COUNT: usize = offset_of!(Payload, rela_count);
}

/// The entry code, where it is a program's.
#[doc(hidden)]
#[macro_export]
macro_rules! entry_point {
    () => {
        ::core::arch::global_asm!(
            ".pushsection .text.enclave_entry, \"ax\", @progbits",
            ".balign 64",
            ".globl enclave_entry",
            // RAX: CSSA, RBX: TCS, RCX: where to leave to; all by the processor. The rest is the host's.
            "enclave_entry:",
            "    cld",
            "    cmp dword ptr [rip + {STATE}], {OPEN}",
            "    jne 10f",
            // Open: on to the payload, with what it knows of entries.
            "    lea r8, [rip + __ehdr_start]",
            "    sub r8, [rip + ENCLAVE_PAYLOAD + {LOADER}]",
            "    add r8, [rip + ENCLAVE_PAYLOAD + {ENTRY}]",
            "    lfence",
            "    jmp r8",
            "10: test rax, rax",
            "    jnz 90f",
            "    cmp rdi, {CALL}",
            "    jne 90f",
            "    mov r8d, 1",
            "    lock cmpxchg [rip + 68f], r8d",
            "    jne 90f",
            "    lea rsp, [rbx - {STACK_TO_TCS}]",
            "    sub rsp, 8",
            "    push rcx",
            "    mov r8, rdx",
            "    call 70f",
            "    lfence",
            "    cmp dword ptr [rip + 69f], 0",
            "    je 30f",
            "11: mov rdi, rsi",
            "    mov rsi, r8",
            "    xor ebp, ebp",
            "    call {called}",
            "    call 70f",
            "    pop rbx",
            "    mov rbp, gs:[{URBP}]",
            "    mov rsp, gs:[{URSP}]",
            "    mov dword ptr [rip + 68f], 0",
            "85: xor eax, eax",
            "    xor ecx, ecx",
            "    xor edx, edx",
            "    xor esi, esi",
            "    xor edi, edi",
            "    xor r8d, r8d",
            "    xor r9d, r9d",
            "    xor r10d, r10d",
            "    xor r11d, r11d",
            "    xor r12d, r12d",
            "    xor r13d, r13d",
            "    xor r14d, r14d",
            "    xor r15d, r15d",
            "    mov al, 4", // EEXIT
            "    enclu",
            "    ud2",
            // Not now: back, with the host's own stack.
            "90: mov rbx, rcx",
            "    jmp 85b",
            // The loader's own relocations, at the first entry.
            "30: lea rcx, [rip + __ehdr_start]",
            "    mov r10, [rip + ENCLAVE_PAYLOAD + {RELA}]",
            "    mov r11, [rip + ENCLAVE_PAYLOAD + {RELA_COUNT}]",
            "    add r10, rcx",
            "    sub r10, [rip + ENCLAVE_PAYLOAD + {LOADER}]",
            "31: test r11, r11",
            "    jz 32f",
            "    mov rax, [r10]",
            "    mov rdx, [r10 + 16]",
            "    add rdx, rcx",
            "    mov [rcx + rax], rdx",
            "    add r10, 24",
            "    dec r11",
            "    jmp 31b",
            "32: mov dword ptr [rip + 69f], 1",
            "    jmp 11b",
            // Known flags and extended state.
            "70: push 2",
            "    popfq",
            "    mov eax, -1",
            "    mov edx, -1",
            "    xrstor64 [rip + {XSTATE}]",
            "    ret",
            ".popsection",
            // 68: somebody is inside; 69: relocated
            ".pushsection .data.enclave_loader, \"aw\", @progbits",
            ".balign 4",
            "68: .long 0",
            "69: .long 0",
            ".popsection",
            STATE = sym $crate::unlock::STATE,
            OPEN = const $crate::unlock::OPEN,
            XSTATE = sym $crate::entry::XSTATE,
            called = sym $crate::unlock::called,
            CALL = const $crate::entry::number::CALL,
            STACK_TO_TCS = const $crate::entry::number::STACK_TO_TCS,
            URSP = const $crate::entry::number::URSP,
            URBP = const $crate::entry::number::URBP,
            LOADER = const $crate::entry::number::LOADER,
            ENTRY = const $crate::entry::number::ENTRY,
            RELA = const $crate::entry::number::RELA,
            RELA_COUNT = const $crate::entry::number::RELA_COUNT,
        );
    };
}
