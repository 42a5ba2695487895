//! Enters an enclave without the kernel's help and with whatever registers one likes.

use std::arch::global_asm;
use std::mem::offset_of;

/// FXSAVE's image.
pub type Fx = [u8; 512];

/// One entry: what goes in, and what came out. Registers are RAX, RCX, RDX, RBX, RSP,
/// RBP, RSI, RDI, R8 to R15; of those that go in, RAX, RCX and RBX are the processor's.
#[repr(C, align(64))]
pub struct Entry {
    fx_in: Fx,
    fx_out: Fx,
    fx_host: Fx,
    gpr_in: [u64; 16],
    gpr_out: [u64; 16],
    rflags_in: u64,
    rflags_out: u64,
    fs_in: u64,
    gs_in: u64,
    tcs: u64,
    aex_command: u64,
    aex_exchange: u64,
    aex_capacity: u64,
    aexes: u64,
    rsp_host: u64,
    fs_host: u64,
    gs_host: u64,
}

/// The command that stands for none.
const NOTHING: u64 = u64::MAX;

/// Number of RSP among the registers.
pub const RSP: usize = 4;
/// Number of RBP.
pub const RBP: usize = 5;
/// Number of RSI: the exchange.
const RSI: usize = 6;
/// Number of RDI: the command.
const RDI: usize = 7;
/// Number of RDX: the capacity.
const RDX: usize = 2;

impl Entry {
    /// By the TCS at this address.
    pub fn new(tcs: u64) -> Box<Self> {
        let mut fx = [0; 512];
        fx[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        fx[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
        Box::new(Self {
            fx_in: fx,
            fx_out: [0; 512],
            fx_host: [0; 512],
            gpr_in: [0; 16],
            gpr_out: [0; 16],
            rflags_in: 2,
            rflags_out: 0,
            fs_in: 0,
            gs_in: 0,
            tcs,
            aex_command: NOTHING,
            aex_exchange: 0,
            aex_capacity: 0,
            aexes: 0,
            rsp_host: 0,
            fs_host: 0,
            gs_host: 0,
        })
    }

    /// Sets all that the enclave must not depend on.
    pub fn with(&mut self, registers: [u64; 16], rflags: u64, fx: Fx, bases: [u64; 2]) {
        (self.gpr_in, self.rflags_in, self.fx_in) = (registers, rflags, fx);
        [self.fs_in, self.gs_in] = bases;
    }

    /// Has the enclave entered with this command after each asynchronous exit, before it
    /// is resumed.
    pub fn after_aex(&mut self, command: Option<(u64, u64, u64)>) {
        (self.aex_command, self.aex_exchange, self.aex_capacity) = command.unwrap_or((NOTHING, 0, 0));
    }

    /// Enters.
    pub fn enter(&mut self, command: u64, exchange: u64, capacity: u64) {
        self.gpr_in[RDI] = command;
        self.gpr_in[RSI] = exchange;
        self.gpr_in[RDX] = capacity;
        // SAFETY: the TCS is of an enclave that stays loaded, in nobody's use; whatever
        // registers it was given, it gives RSP back, and the code restores the rest.
        unsafe { enclave_check_enter(self) };
    }

    /// Asynchronous exits so far.
    pub fn aexes(&self) -> u64 {
        self.aexes
    }

    /// What is wrong with the state after the last exit: anything of the enclave's.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (n, &value) in self.gpr_out.iter().enumerate() {
            let expected = match n {
                0 => 4,            // EEXIT
                1 | 3 => continue, // where the host's own code goes on
                RSP | RBP => self.gpr_in[n],
                _ => 0,
            };
            if value != expected {
                leaks.push(format!("register {n}: {value:#x}"));
            }
        }
        // DF and AC; arithmetic's flags are of a register that was cleared
        if self.rflags_out & (1 << 10 | 1 << 18) != 0 {
            leaks.push(format!("rflags {:#x}", self.rflags_out));
        }
        // ST0-7 and XMM0-15
        if self.fx_out[32..416].iter().any(|&byte| byte != 0) {
            leaks.push("vector or x87 registers".into());
        }
        leaks
    }
}

global_asm!(
    "enclave_check_enter:",
    "    push rbp",
    "    push rbx",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    mov [rip + 88f], rdi",
    "    mov [rdi + {RSP_HOST}], rsp",
    "    fxsave64 [rdi + {FX_HOST}]",
    "    rdfsbase rax",
    "    mov [rdi + {FS_HOST}], rax",
    "    rdgsbase rax",
    "    mov [rdi + {GS_HOST}], rax",
    "    mov rax, [rdi + {FS_IN}]",
    "    wrfsbase rax",
    "    mov rax, [rdi + {GS_IN}]",
    "    wrgsbase rax",
    "    fxrstor64 [rdi + {FX_IN}]",
    "    push qword ptr [rdi + {RFLAGS_IN}]",
    "    mov rdx, [rdi + {IN} + 16]",
    "    mov rbp, [rdi + {IN} + 40]",
    "    mov rsi, [rdi + {IN} + 48]",
    "    mov r8, [rdi + {IN} + 64]",
    "    mov r9, [rdi + {IN} + 72]",
    "    mov r10, [rdi + {IN} + 80]",
    "    mov r11, [rdi + {IN} + 88]",
    "    mov r12, [rdi + {IN} + 96]",
    "    mov r13, [rdi + {IN} + 104]",
    "    mov r14, [rdi + {IN} + 112]",
    "    mov r15, [rdi + {IN} + 120]",
    "    mov rbx, [rdi + {TCS}]",
    "    popfq",
    "    mov rsp, [rdi + {IN} + 32]",
    "    mov rdi, [rdi + {IN} + 56]",
    "    lea rcx, [rip + 70f]",
    "    mov eax, 2",
    "    enclu",
    // EEXIT
    "    mov [rip + 86f], rdi",
    "    mov rdi, [rip + 88f]",
    "    mov [rdi + {OUT}], rax",
    "    mov [rdi + {OUT} + 8], rcx",
    "    mov [rdi + {OUT} + 16], rdx",
    "    mov [rdi + {OUT} + 24], rbx",
    "    mov [rdi + {OUT} + 32], rsp",
    "    mov [rdi + {OUT} + 40], rbp",
    "    mov [rdi + {OUT} + 48], rsi",
    "    mov rax, [rip + 86f]",
    "    mov [rdi + {OUT} + 56], rax",
    "    mov [rdi + {OUT} + 64], r8",
    "    mov [rdi + {OUT} + 72], r9",
    "    mov [rdi + {OUT} + 80], r10",
    "    mov [rdi + {OUT} + 88], r11",
    "    mov [rdi + {OUT} + 96], r12",
    "    mov [rdi + {OUT} + 104], r13",
    "    mov [rdi + {OUT} + 112], r14",
    "    mov [rdi + {OUT} + 120], r15",
    "    mov rsp, [rdi + {RSP_HOST}]",
    "    pushfq",
    "    pop qword ptr [rdi + {RFLAGS_OUT}]",
    "    push 2",
    "    popfq",
    "    fxsave64 [rdi + {FX_OUT}]",
    "    fxrstor64 [rdi + {FX_HOST}]",
    "    mov rax, [rdi + {FS_HOST}]",
    "    wrfsbase rax",
    "    mov rax, [rdi + {GS_HOST}]",
    "    wrgsbase rax",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbx",
    "    pop rbp",
    "    ret",
    // An asynchronous exit: perhaps another entry, then ERESUME.
    "70: mov rdi, [rip + 88f]",
    "    inc qword ptr [rdi + {AEXES}]",
    "    cmp qword ptr [rdi + {AEX_COMMAND}], -1",
    "    je 75f",
    "    mov rsi, [rdi + {AEX_EXCHANGE}]",
    "    mov rdx, [rdi + {AEX_CAPACITY}]",
    "    mov rbx, [rdi + {TCS}]",
    "    mov rdi, [rdi + {AEX_COMMAND}]",
    "    lea rcx, [rip + 71f]",
    "    mov eax, 2",
    "71: enclu",
    "    mov rdi, [rip + 88f]",
    "75: mov rbx, [rdi + {TCS}]",
    "    lea rcx, [rip + 70b]",
    "    mov eax, 3",
    "    enclu",
    "    ud2",
    ".pushsection .bss",
    ".balign 8",
    "86: .skip 8",
    "88: .skip 8",
    ".popsection",
    IN = const offset_of!(Entry, gpr_in),
    OUT = const offset_of!(Entry, gpr_out),
    FX_IN = const offset_of!(Entry, fx_in),
    FX_OUT = const offset_of!(Entry, fx_out),
    FX_HOST = const offset_of!(Entry, fx_host),
    RFLAGS_IN = const offset_of!(Entry, rflags_in),
    RFLAGS_OUT = const offset_of!(Entry, rflags_out),
    FS_IN = const offset_of!(Entry, fs_in),
    GS_IN = const offset_of!(Entry, gs_in),
    TCS = const offset_of!(Entry, tcs),
    AEX_COMMAND = const offset_of!(Entry, aex_command),
    AEX_EXCHANGE = const offset_of!(Entry, aex_exchange),
    AEX_CAPACITY = const offset_of!(Entry, aex_capacity),
    AEXES = const offset_of!(Entry, aexes),
    RSP_HOST = const offset_of!(Entry, rsp_host),
    FS_HOST = const offset_of!(Entry, fs_host),
    GS_HOST = const offset_of!(Entry, gs_host),
);

unsafe extern "C" {
    /// Enters; one entry at a time in the whole program.
    fn enclave_check_enter(entry: *mut Entry);
}
