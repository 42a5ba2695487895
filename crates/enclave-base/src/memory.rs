//! The four functions that compiled code calls without being asked, which elsewhere a C
//! library has; and two names that the standard crates mention and never use.

/// Defines them, in a program that has no C library; once.
#[macro_export]
macro_rules! memory_functions {
    () => {
        // The direction flag is clear in compiled code, but for a copy that ends before its source.
        ::core::arch::global_asm!(
            ".pushsection .text.enclave_memory, \"ax\", @progbits",
            ".weak memcpy, memmove, memset, memcmp, bcmp, rust_eh_personality, _Unwind_Resume",
            "memmove:",
            "    mov rax, rdi",
            "    sub rax, rsi",
            "    cmp rax, rdx", // unsigned: the destination begins within the source
            "    jb 10f",
            "memcpy:",
            "    mov rax, rdi",
            "    mov rcx, rdx",
            "    shr rcx, 3",
            "    rep movsq",
            "    mov ecx, edx",
            "    and ecx, 7",
            "    rep movsb",
            "    ret",
            "10: mov rax, rdi",
            "    mov rcx, rdx",
            "    lea rsi, [rsi + rcx - 1]",
            "    lea rdi, [rdi + rcx - 1]",
            "    std",
            "    rep movsb",
            "    cld",
            "    ret",
            "memset:",
            "    mov r8, rdi",
            "    mov rcx, rdx",
            "    mov eax, esi",
            "    rep stosb",
            "    mov rax, r8",
            "    ret",
            "bcmp:",
            "memcmp:",
            "    xor eax, eax",
            "    mov rcx, rdx",
            "    cmp rcx, rcx", // equal, should there be nothing to compare
            "    repe cmpsb",
            "    je 20f",
            "    movzx eax, byte ptr [rdi - 1]",
            "    movzx ecx, byte ptr [rsi - 1]",
            "    sub eax, ecx",
            "20: ret",
            "rust_eh_personality:",
            "_Unwind_Resume:",
            "    ud2",
            ".popsection",
        );
    };
}
