//! Exceptions of the enclave's own code, handled inside.
//!
//! The processor leaves the enclave at an exception and notes in the thread's SSA frame
//! which it was, for #DE, #DB, #BP, #BR, #UD, #MF, #AC and #XM; for #PF and #GP too, with
//! address and error code, where the enclave asks for it by MISCSELECT.EXINFO. The host
//! then enters again, for the handlers to look at it; it may also not, or never resume.
//!
//! CPUID, which is illegal in an enclave, is answered from what the enclave was built
//! with, so that crates which ask for features find those.

use core::sync::atomic::{AtomicPtr, Ordering};

use enclave_abi::call::Outcome;
use sgx_abi::{ExInfo, ExitInfo, ExitType, GprSgx, MiscSelect};

use crate::abort::Text;
use crate::boundary::Window;
use crate::{abort, entry, report, thread};

/// #UD.
const UNDEFINED: u8 = 6;
/// #GP.
const GENERAL_PROTECTION: u8 = 13;
/// #PF.
const PAGE_FAULT: u8 = 14;

/// An exception, as handlers see it.
pub struct Exception<'a> {
    /// Vector, e.g. 6 for #UD.
    pub vector: u8,
    /// How it arose.
    pub kind: ExitType,
    /// Address and error code, for #PF and #GP.
    pub details: Option<ExInfo>,
    /// Registers of the interrupted code, to be changed. Only RAX to R15, RIP and RFLAGS
    /// have an effect.
    pub registers: &'a mut GprSgx,
}

/// Handles an exception, or leaves it to the next handler.
///
/// It runs on a small stack of its own, wherever the thread was: it must not take locks,
/// use the heap or call the host. To go on behind an instruction it advances
/// `registers.rip`. A panic in it ends the enclave.
pub type Handler = fn(&mut Exception<'_>) -> Disposition;

/// What a handler has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The thread goes on with the registers as they are.
    Resume,
    /// Nothing; the exception is another handler's.
    Pass,
}

/// Handlers in the order of their registration.
static HANDLERS: [AtomicPtr<()>; 8] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 8];

/// Adds a handler, for all threads and for good.
///
/// # Errors
/// Gives the handler back if there are eight already.
pub fn register(handler: Handler) -> Result<(), Handler> {
    let (empty, new) = (core::ptr::null_mut(), handler as *mut ());
    let place = HANDLERS
        .iter()
        .find(|place| place.compare_exchange(empty, new, Ordering::AcqRel, Ordering::Relaxed).is_ok());
    place.map(|_| ()).ok_or(handler)
}

/// What the entry code calls for [`enclave_abi::call::Command::Exception`], on the
/// handler's stack, while the thread is somewhere in compiled code.
pub(crate) extern "C" fn raised(exchange: u64, capacity: u64) {
    let window = Window::new(exchange, capacity);
    thread::set_window(window);
    let Some(window) = window else { return };
    let frame = (thread::data() as u64 + entry::GPR) as *mut GprSgx;
    // SAFETY: GPRSGX of the thread's first SSA frame, which the processor has filled and
    // reads again at ERESUME. The interrupted code does not run meanwhile.
    let registers = unsafe { &mut *frame };
    let info = core::mem::replace(&mut registers.exitinfo, ExitInfo::NONE);
    // an interrupt, or an exception that was looked at already
    let (Some(vector), Some(kind)) = (info.vector(), info.exit_type()) else { return };
    if abort::is_dead() {
        return window.say(Outcome::Aborted);
    }
    let details = matches!(vector, PAGE_FAULT | GENERAL_PROTECTION)
        .then(|| report::own().miscselect.contains(MiscSelect::EXINFO))
        .filter(|&selected| selected)
        // SAFETY: EXINFO lies right below GPRSGX, where MISCSELECT asks for it.
        .map(|_| unsafe { frame.cast::<ExInfo>().sub(1).read_volatile() });
    let mut exception = Exception { vector, kind, details, registers };
    if answer_cpuid(&mut exception) == Disposition::Resume || ask_handlers(&mut exception) {
        return window.say(Outcome::Resume);
    }
    abort::die();
    let mut text = Text::new();
    if report::is_debug() {
        use core::fmt::Write;
        let offset = exception.registers.rip.wrapping_sub(thread::base());
        // it fits
        let _ = write!(text, "exception {vector} at offset {offset:#x} of the enclave");
    }
    // it fits, or there is no room for anything
    let _ = window.put(Outcome::Unhandled, 0, text.bytes());
}

fn ask_handlers(exception: &mut Exception<'_>) -> bool {
    HANDLERS.iter().map(|place| place.load(Ordering::Acquire)).take_while(|p| !p.is_null()).any(|pointer| {
        // SAFETY: only `register` stores here, and only this type.
        let handler = unsafe { core::mem::transmute::<*mut (), Handler>(pointer) };
        handler(exception) == Disposition::Resume
    })
}

/// Answers CPUID if that is what raised #UD.
fn answer_cpuid(exception: &mut Exception<'_>) -> Disposition {
    let layout = thread::layout();
    let offset = exception.registers.rip.wrapping_sub(thread::base());
    if exception.vector != UNDEFINED || offset > layout.image_size - 2 {
        return Disposition::Pass;
    }
    // SAFETY: two bytes of the image, which the processor was about to execute.
    let code = unsafe { (exception.registers.rip as *const [u8; 2]).read_volatile() };
    if code != [0x0f, 0xa2] {
        return Disposition::Pass;
    }
    let registers = &mut *exception.registers;
    let [eax, ebx, ecx, edx] = cpuid(registers.rax as u32);
    (registers.rax, registers.rbx, registers.rcx, registers.rdx) =
        (eax.into(), ebx.into(), ecx.into(), edx.into());
    registers.rip += 2;
    Disposition::Resume
}

/// What CPUID would say of a processor with just the features that the program may use
/// (*SDM vol. 2A, CPUID*): EAX, EBX, ECX, EDX.
fn cpuid(leaf: u32) -> [u32; 4] {
    const fn bit(present: bool, n: u32) -> u32 {
        (present as u32) << n
    }
    const ECX: u32 = bit(cfg!(target_feature = "sse3"), 0)
        | bit(cfg!(target_feature = "pclmulqdq"), 1)
        | bit(cfg!(target_feature = "ssse3"), 9)
        | bit(cfg!(target_feature = "sse4.1"), 19)
        | bit(cfg!(target_feature = "sse4.2"), 20)
        | bit(cfg!(target_feature = "popcnt"), 23)
        | bit(cfg!(target_feature = "aes"), 25)
        | bit(cfg!(target_feature = "rdrand"), 30);
    // FPU, CMOV, MMX, FXSR, SSE, SSE2: what every x86-64 has, as far as it is for programs
    const EDX: u32 = 1 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26;
    match leaf {
        // nobody's processor: "KluisEnclave"
        0 => [7, u32::from_le_bytes(*b"Klui"), u32::from_le_bytes(*b"lave"), u32::from_le_bytes(*b"sEnc")],
        1 => [0, 0, ECX, EDX],
        7 => [0, bit(cfg!(target_feature = "rdseed"), 18), 0, 0],
        _ => [0; 4],
    }
}
