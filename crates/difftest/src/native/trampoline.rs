//! Into a tested instruction with all registers loaded, and back: by a jump,
//! or by a signal if it faults.

use std::arch::global_asm;
use std::io::Error;
use std::mem::offset_of;
use std::ptr;
use std::sync::OnceLock;

use super::{EXITS, NativeError};
use crate::area;

/// Address of the control block.
pub(super) const CONTROL: u64 = area::CONTROL;

/// FXSAVE's image, 64-bit format (*SDM vol. 1 table 10-2*).
#[repr(C, align(16))]
pub(super) struct Fx {
    pub(super) cw: u16,
    pub(super) sw: u16,
    pub(super) tag: u16,
    pub(super) fop: u16,
    pub(super) fip: u64,
    pub(super) fdp: u64,
    pub(super) mxcsr: u32,
    pub(super) mxcsr_mask: u32,
    pub(super) st: [u128; 8],
    pub(super) xmm: [[u64; 2]; 16],
    reserved: [u64; 12],
}

/// What goes in and comes out, at a fixed address, so that no register is
/// needed to find it.
#[repr(C, align(64))]
pub(super) struct Control {
    pub(super) gpr: [u64; 16],
    pub(super) out_gpr: [u64; 16],
    pub(super) rflags: u64,
    pub(super) rip: u64,
    pub(super) out_rflags: u64,
    pub(super) out_rip: u64,
    /// Stack pointer of the tester; zero while no test runs.
    host_rsp: u64,
    /// Number of the exit taken.
    pub(super) exit: u64,
    exit_pointers: [u64; EXITS],
    /// Signal number, or zero.
    pub(super) signal: u64,
    pub(super) vector: u64,
    pub(super) error: u64,
    pub(super) cr2: u64,
    pub(super) fx: Fx,
    pub(super) high: [[u64; 2]; 16],
    pub(super) out_fx: Fx,
    pub(super) out_high: [[u64; 2]; 16],
}

/// Offset of the exits' addresses in the control block.
pub(super) const EXIT_POINTERS: u32 = offset_of!(Control, exit_pointers) as u32;

const _: () = assert!(size_of::<Fx>() == 512 && size_of::<Control>() <= 8192);

// Absolute addresses below 2 GiB need no register and no relocation. MOV leaves
// the flags alone; they are stored once a stack is there.
global_asm!(
    ".globl difftest_enter",
    "difftest_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "pushfq",
    "sub rsp, 8",
    "stmxcsr [rsp]",
    "mov ds:[{host_rsp}], rsp",
    "fxrstor64 ds:[{fx}]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vinsertf128 ymm\\n, ymm\\n, xmmword ptr ds:[{high} + 16 * \\n], 1",
    ".endr",
    "push qword ptr ds:[{rflags}]",
    "popfq",
    "mov rcx, ds:[{gpr} + 8]",
    "mov rdx, ds:[{gpr} + 16]",
    "mov rbx, ds:[{gpr} + 24]",
    "mov rsp, ds:[{gpr} + 32]",
    "mov rbp, ds:[{gpr} + 40]",
    "mov rsi, ds:[{gpr} + 48]",
    "mov rdi, ds:[{gpr} + 56]",
    "mov r8, ds:[{gpr} + 64]",
    "mov r9, ds:[{gpr} + 72]",
    "mov r10, ds:[{gpr} + 80]",
    "mov r11, ds:[{gpr} + 88]",
    "mov r12, ds:[{gpr} + 96]",
    "mov r13, ds:[{gpr} + 104]",
    "mov r14, ds:[{gpr} + 112]",
    "mov r15, ds:[{gpr} + 120]",
    "mov eax, {gpr}",
    "mov rax, [rax]",
    "jmp qword ptr ds:[{rip}]",
    //
    ".globl difftest_exit_0",
    "difftest_exit_0:",
    "mov qword ptr ds:[{exit}], 0",
    "jmp 2f",
    ".globl difftest_exit_1",
    "difftest_exit_1:",
    "mov qword ptr ds:[{exit}], 1",
    "jmp 2f",
    ".globl difftest_exit_2",
    "difftest_exit_2:",
    "mov qword ptr ds:[{exit}], 2",
    "2:",
    "mov ds:[{out_gpr}], rax",
    "mov ds:[{out_gpr} + 8], rcx",
    "mov ds:[{out_gpr} + 16], rdx",
    "mov ds:[{out_gpr} + 24], rbx",
    "mov ds:[{out_gpr} + 32], rsp",
    "mov ds:[{out_gpr} + 40], rbp",
    "mov ds:[{out_gpr} + 48], rsi",
    "mov ds:[{out_gpr} + 56], rdi",
    "mov ds:[{out_gpr} + 64], r8",
    "mov ds:[{out_gpr} + 72], r9",
    "mov ds:[{out_gpr} + 80], r10",
    "mov ds:[{out_gpr} + 88], r11",
    "mov ds:[{out_gpr} + 96], r12",
    "mov ds:[{out_gpr} + 104], r13",
    "mov ds:[{out_gpr} + 112], r14",
    "mov ds:[{out_gpr} + 120], r15",
    "mov rsp, ds:[{host_rsp}]",
    "pushfq",
    "pop qword ptr ds:[{out_rflags}]",
    "fxsave64 ds:[{out_fx}]",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vextractf128 xmmword ptr ds:[{out_high} + 16 * \\n], ymm\\n, 1",
    ".endr",
    // A signal handler resumes here, with RSP set.
    ".globl difftest_resume",
    "difftest_resume:",
    "mov qword ptr ds:[{host_rsp}], 0",
    "fninit",
    "ldmxcsr [rsp]",
    "add rsp, 8",
    "popfq",
    "vzeroupper",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    // Signal handlers start with the interrupted RFLAGS.AC: clear it first.
    ".globl difftest_signal_entry",
    "difftest_signal_entry:",
    "pushfq",
    "and dword ptr [rsp], 0xfffbffff",
    "popfq",
    "jmp {signal}",
    host_rsp = const CONTROL as usize + offset_of!(Control, host_rsp),
    fx = const CONTROL as usize + offset_of!(Control, fx),
    high = const CONTROL as usize + offset_of!(Control, high),
    rflags = const CONTROL as usize + offset_of!(Control, rflags),
    gpr = const CONTROL as usize + offset_of!(Control, gpr),
    rip = const CONTROL as usize + offset_of!(Control, rip),
    exit = const CONTROL as usize + offset_of!(Control, exit),
    out_gpr = const CONTROL as usize + offset_of!(Control, out_gpr),
    out_rflags = const CONTROL as usize + offset_of!(Control, out_rflags),
    out_fx = const CONTROL as usize + offset_of!(Control, out_fx),
    out_high = const CONTROL as usize + offset_of!(Control, out_high),
    signal = sym on_signal,
);

unsafe extern "sysv64" {
    fn difftest_enter();
    fn difftest_exit_0();
    fn difftest_exit_1();
    fn difftest_exit_2();
    fn difftest_resume();
    fn difftest_signal_entry();
}

/// Runs what the control block says.
///
/// # Safety
/// The control block is filled in, the instruction at its RIP touches only the
/// sandbox and leaves by an exit or a fault.
pub(super) unsafe fn enter() {
    // SAFETY: the caller's; every register the ABI wants kept is kept.
    unsafe { difftest_enter() }
}

static PREVIOUS: OnceLock<[libc::sigaction; 5]> = OnceLock::new();
const SIGNALS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];

/// Sets this thread's signal stack and GS base and, once in a process, the handlers.
pub(super) fn install(stack: &[u8]) -> Result<(), NativeError> {
    let failed = |call| NativeError::System { call, reason: Error::last_os_error() };
    // SAFETY: the control block is mapped; the stack outlives its use, as
    // `Native` keeps it; the handler obeys the rules for signal handlers.
    unsafe {
        let control = &mut *(CONTROL as *mut Control);
        control.exit_pointers = [
            difftest_exit_0 as *const () as u64,
            difftest_exit_1 as *const () as u64,
            difftest_exit_2 as *const () as u64,
        ];
        control.fx.mxcsr_mask = 0xffff;
        let alternate =
            libc::stack_t { ss_sp: stack.as_ptr() as *mut libc::c_void, ss_flags: 0, ss_size: stack.len() };
        if libc::sigaltstack(&alternate, ptr::null_mut()) != 0 {
            return Err(failed("sigaltstack"));
        }
        const ARCH_SET_GS: i32 = 0x1001;
        if libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, area::GS_BASE) != 0 {
            return Err(failed("arch_prctl"));
        }
        if PREVIOUS.get().is_none() {
            let mut previous: [libc::sigaction; 5] = std::mem::zeroed();
            for (number, old) in SIGNALS.into_iter().zip(&mut previous) {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = difftest_signal_entry as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                if libc::sigaction(number, &action, old) != 0 {
                    return Err(failed("sigaction"));
                }
            }
            let _ = PREVIOUS.set(previous);
        }
    }
    Ok(())
}

/// Takes the interrupted state for the result and returns to the tester.
unsafe extern "sysv64" fn on_signal(number: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands over a ucontext. A fault while no test runs is
    // none of ours; the control block is mapped if a handler is installed,
    // except between two sandboxes, when nothing faults but a bug: then the
    // nested fault ends the process.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let control = &mut *(CONTROL as *mut Control);
        if control.host_rsp == 0 {
            // Let it happen again under the previous handler.
            if let Some(previous) = PREVIOUS.get()
                && let Some(at) = SIGNALS.iter().position(|&n| n == number)
            {
                libc::sigaction(number, &previous[at], ptr::null_mut());
            }
            return;
        }
        let gregs = &mut context.uc_mcontext.gregs;
        const ORDER: [i32; 16] = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        for (value, register) in control.out_gpr.iter_mut().zip(ORDER) {
            *value = gregs[register as usize] as u64;
        }
        control.out_rip = gregs[libc::REG_RIP as usize] as u64;
        control.out_rflags = gregs[libc::REG_EFL as usize] as u64;
        control.signal = number as u64;
        control.vector = gregs[libc::REG_TRAPNO as usize] as u64;
        control.error = gregs[libc::REG_ERR as usize] as u64;
        control.cr2 = gregs[libc::REG_CR2 as usize] as u64;
        let state = context.uc_mcontext.fpregs.cast::<u8>();
        ptr::copy_nonoverlapping(state, (&raw mut control.out_fx).cast::<u8>(), 512);
        // XSAVE area: XSTATE_BV after the legacy region, then the upper halves
        // of YMM (SDM vol. 1 §13.4); absent means zero.
        let components = state.add(512).cast::<u64>().read_unaligned();
        if components & 4 != 0 {
            ptr::copy_nonoverlapping(state.add(576), (&raw mut control.out_high).cast::<u8>(), 256);
        } else {
            control.out_high = [[0; 2]; 16];
        }
        let fx = &mut *state.cast::<Fx>();
        (fx.cw, fx.sw, fx.tag, fx.mxcsr) = (0x37f, 0, 0, 0x1f80);
        gregs[libc::REG_RIP as usize] = difftest_resume as *const () as i64;
        gregs[libc::REG_RSP as usize] = control.host_rsp as i64;
        gregs[libc::REG_EFL as usize] = 0x202;
    }
}
