//! The way in and out: the only code that runs with registers and flags of the host's.
//!
//! Registers and memory at the boundary, and in which order a thread may be entered, are
//! in [`enclave_abi::call`]. What published attacks on entry code used, and what stands
//! here against it:
//!
//! * RFLAGS.DF and AC are cleared, and MXCSR, x87 and vector registers set to known
//!   values, before any compiled code runs. MXCSR masks all exceptions and has its status
//!   bits set, which makes instructions' time independent of data where it is not.
//! * No memory is read or written by an address of the host's here. The stack is the
//!   enclave's own before anything is pushed; FS and GS are based by the processor.
//! * A thread's state is in the enclave. An entry out of order leaves again at once, on
//!   the host's stack, with nothing touched.
//! * An exception is handled only while the state says that compiled code runs, i.e. not
//!   before stack, flags and relocations are as that code expects; the handler has a stack
//!   of its own.
//! * LFENCE stands between the checks of an entry and the code that relies on them.
//! * All registers are cleared on leaving but RBX, RCX (where to leave to), RSP and RBP,
//!   which the processor had kept for the host in the SSA frame.

use core::arch::global_asm;

use enclave_abi::call::Command;
use enclave_abi::layout::{HANDLER_STACK, Layout, SSA_FRAME_PAGES, SSA_FRAMES};
use sgx_abi::{GprSgx, PAGE_SIZE};

use crate::thread::{at, state};

const PAGE: u64 = PAGE_SIZE as u64;
/// From a thread's data to its TCS.
const DATA_TO_TCS: u64 = PAGE + SSA_FRAMES as u64 * SSA_FRAME_PAGES as u64 * PAGE;
/// From the end of a thread's stack to its TCS: a guard and the handler's stack between.
const STACK_TO_TCS: u64 = PAGE + HANDLER_STACK + DATA_TO_TCS;
/// From a thread's data to GPRSGX of the first SSA frame.
pub(crate) const GPR: u64 = PAGE + SSA_FRAME_PAGES as u64 * PAGE - GprSgx::SIZE as u64;
/// From an SSA frame to the next.
const FRAME: u64 = SSA_FRAME_PAGES as u64 * PAGE;

const URSP: u64 = GPR + core::mem::offset_of!(GprSgx, ursp) as u64;
const URBP: u64 = GPR + core::mem::offset_of!(GprSgx, urbp) as u64;

/// Value of MXCSR inside.
pub(crate) const MXCSR: u32 = 0x1fbf;

/// What XRSTOR makes of the extended state: XSTATE_BV is zero, so that every component
/// takes its initial value; MXCSR comes from here (*SDM vol. 1, §13.8.1*).
#[repr(C, align(64))]
struct Xstate {
    before: [u32; 6],
    mxcsr: u32,
    rest: [u32; 512 / 4 - 7 + 16],
}

static XSTATE: Xstate = Xstate { before: [0; 6], mxcsr: MXCSR, rest: [0; 512 / 4 - 7 + 16] };

global_asm!(
    ".pushsection .text.enclave_entry, \"ax\", @progbits",
    ".balign 64",
    ".globl enclave_entry, enclave_leave, enclave_end",
    // RAX: CSSA, RBX: TCS, RCX: where to leave to; all by the processor. The rest is the host's.
    "enclave_entry:",
    "    cld",
    "    test rax, rax",
    "    jnz 20f",
    "    mov rax, gs:[{STATE}]",
    "    cmp rax, {RESTING}",
    "    je 10f",
    "    cmp rax, {WAITING}",
    "    je 15f",
    // Out of order: back, with the host's own stack.
    "90: mov rbx, rcx",
    "    jmp 85f",
    // At rest.
    "10: cmp rdi, {CALL}",
    "    jne 90b",
    "    mov gs:[{EXIT}], rcx",
    "    lea rcx, [rbx - {DATA_TO_TCS}]",
    "    mov gs:[{THIS}], rcx",
    "    lea rsp, [rbx - {STACK_TO_TCS}]",
    "    mov r8, rdx",
    "    call 70f",
    "    lfence",
    "    cmp dword ptr [rip + 69f], 2",
    "    jne 30f",
    // From here on compiled code runs, and its exceptions are handled.
    "11: mov qword ptr gs:[{STATE}], {RUNNING}",
    "    mov rdi, rsi",
    "    mov rsi, r8",
    "    xor ebp, ebp",
    "    call {called}",
    "    mov qword ptr gs:[{STATE}], {RESTING}",
    // Out, from CSSA 0.
    "80: call 70f",
    "    mov rbx, gs:[{EXIT}]",
    "    mov rbp, gs:[{URBP}]",
    "    mov rsp, gs:[{URSP}]",
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
    // Waiting for a return.
    "15: cmp rdi, {RETURN}",
    "    jne 90b",
    "    mov gs:[{EXIT}], rcx",
    "    mov rsp, gs:[{STACK}]",
    "    mov r8, rdx",
    "    call 70f",
    "    lfence",
    "    mov qword ptr gs:[{STATE}], {RUNNING}",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbx",
    "    pop rbp",
    "    mov rax, rsi",
    "    mov rdx, r8",
    "    ret",
    // An exception in frame 0, perhaps.
    "20: cmp rax, 1",
    "    jne 90b",
    "    cmp rdi, {EXCEPTION}",
    "    jne 90b",
    "    cmp qword ptr gs:[{STATE}], {RUNNING}",
    "    jne 90b",
    "    mov gs:[{HANDLER_EXIT}], rcx",
    "    mov qword ptr gs:[{HANDLING}], 1",
    "    lea rsp, [rbx - {DATA_TO_TCS}]",
    "    mov r8, rdx",
    "    call 70f",
    "    lfence",
    "    mov rdi, rsi",
    "    mov rsi, r8",
    "    xor ebp, ebp",
    "    call {raised}",
    "    mov qword ptr gs:[{HANDLING}], 0",
    // Out, from CSSA 1.
    "82: call 70f",
    "    mov rbx, gs:[{HANDLER_EXIT}]",
    "    mov rbp, gs:[{URBP} + {FRAME}]",
    "    mov rsp, gs:[{URSP} + {FRAME}]",
    "    jmp 85b",
    // The first entry applies the relocations; whoever comes meanwhile waits.
    "30: xor eax, eax",
    "    mov ecx, 1",
    "    lock cmpxchg [rip + 69f], ecx",
    "    jne 35f",
    "    lea rcx, [rip + __ehdr_start]",
    "    lea rdx, [rip + ENCLAVE_LAYOUT]",
    "    mov r10, [rdx + {RELA}]",
    "    mov r11, [rdx + {RELA_COUNT}]",
    "    add r10, rcx",
    "31: test r11, r11",
    "    jz 32f",
    "    mov rax, [r10]",
    "    mov rdx, [r10 + 16]",
    "    add rdx, rcx",
    "    mov [rcx + rax], rdx",
    "    add r10, 24",
    "    dec r11",
    "    jmp 31b",
    "32: mov dword ptr [rip + 69f], 2",
    "    jmp 11b",
    "35: pause",
    "    cmp dword ptr [rip + 69f], 2",
    "    jne 35b",
    "    jmp 11b",
    // Known flags and extended state.
    "70: push 2",
    "    popfq",
    "    mov eax, -1",
    "    mov edx, -1",
    "    xrstor64 [rip + {XSTATE}]",
    "    ret",
    // Leaves for a call to the host; comes back at the return.
    "enclave_leave:",
    "    push rbp",
    "    push rbx",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    mov gs:[{STACK}], rsp",
    "    mov qword ptr gs:[{STATE}], {WAITING}",
    "    jmp 80b",
    // Leaves for good: the thread stays `RUNNING`, which nothing at CSSA 0 enters.
    "enclave_end:",
    "    cmp qword ptr gs:[{HANDLING}], 0",
    "    je 80b",
    "    jmp 82b",
    ".popsection",
    // 0: not relocated, 1: somebody is at it, 2: relocated
    ".pushsection .data.enclave_relocated, \"aw\", @progbits",
    ".balign 4",
    "69: .long 0",
    ".popsection",
    STATE = const at::STATE,
    THIS = const at::THIS,
    STACK = const at::STACK,
    EXIT = const at::EXIT,
    HANDLER_EXIT = const at::HANDLER_EXIT,
    HANDLING = const at::HANDLING,
    RESTING = const state::RESTING,
    RUNNING = const state::RUNNING,
    WAITING = const state::WAITING,
    CALL = const Command::Call as u64,
    RETURN = const Command::Return as u64,
    EXCEPTION = const Command::Exception as u64,
    DATA_TO_TCS = const DATA_TO_TCS,
    STACK_TO_TCS = const STACK_TO_TCS,
    URSP = const URSP,
    URBP = const URBP,
    FRAME = const FRAME,
    RELA = const core::mem::offset_of!(Layout, rela),
    RELA_COUNT = const core::mem::offset_of!(Layout, rela_count),
    XSTATE = sym XSTATE,
    called = sym crate::call::called,
    raised = sym crate::exception::raised,
);

/// What the host passes at a return: addresses that are not checked yet.
#[repr(C)]
pub(crate) struct Passed {
    pub(crate) exchange: u64,
    pub(crate) capacity: u64,
}

unsafe extern "C" {
    /// Leaves for a call to the host, and is back when the host returns. Not from the
    /// handler of exceptions.
    pub(crate) fn enclave_leave() -> Passed;
    /// Leaves for good.
    pub(crate) fn enclave_end() -> !;
}
