//! The host side: one instruction, executed by this very process.

mod memory;
mod trampoline;

use std::cell::Cell;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::area;
use crate::snapshot::{Fault, Outcome, Registers};

pub use memory::Memory;
use trampoline::{CONTROL, Control};

/// What the host refuses.
#[derive(Debug, thiserror::Error)]
pub enum NativeError {
    /// A mapping at a fixed address failed.
    #[error(
        "cannot map {what} at {address:#x}: {reason}; is something else there, or executable memory forbidden?"
    )]
    Map {
        /// What was to be mapped.
        what: &'static str,
        /// Where.
        address: u64,
        /// What the system said.
        reason: std::io::Error,
    },
    /// Some other system call failed.
    #[error("{call} failed: {reason}")]
    System {
        /// The call.
        call: &'static str,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The processor cannot do what the trampoline needs.
    #[error("the host processor has no AVX; the tester compares YMM registers and needs it")]
    NoAvx,
}

/// Places where a tested instruction leaves its code, by number: after it,
/// forwards and backwards.
pub const EXITS: usize = 3;

/// The host processor. There is one sandbox in a process: others wait.
pub struct Native {
    /// The memory of tested instructions.
    pub memory: Memory,
    _alone: MutexGuard<'static, ()>,
    _stack: Box<[u8]>,
    /// Bound to the thread whose signal stack and GS base it has set.
    _thread: Cell<*const ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Native {
    /// Maps the memory, installs the signal handlers and sets GS.
    pub fn new() -> Result<Self, NativeError> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::arch::is_x86_feature_detected!("avx") {
            return Err(NativeError::NoAvx);
        }
        let memory = Memory::new()?;
        let stack = vec![0u8; 256 << 10].into_boxed_slice();
        trampoline::install(&stack)?;
        Ok(Native { memory, _alone: alone, _stack: stack, _thread: Cell::new(ptr::null()) })
    }

    /// Executes the instruction at `regs.rip`; `exits` are the places it may
    /// leave its code by, which must hold what [`exit_code`] gives.
    pub fn run(&mut self, regs: &Registers, exits: &[u64; EXITS]) -> Outcome {
        let control = CONTROL as *mut Control;
        // SAFETY: the control block is mapped while `memory` lives, and only
        // this thread, which holds ALONE, uses it.
        unsafe {
            let c = &mut *control;
            c.gpr = regs.gpr;
            c.rflags = regs.rflags | 0x202;
            c.rip = regs.rip;
            c.fx.cw = regs.cw;
            c.fx.sw = regs.sw;
            c.fx.tag = u16::from(regs.tag);
            c.fx.mxcsr = regs.mxcsr;
            c.fx.st = regs.st;
            for (i, ymm) in regs.ymm.iter().enumerate() {
                c.fx.xmm[i] = [ymm[0], ymm[1]];
                c.high[i] = [ymm[2], ymm[3]];
            }
            c.signal = 0;
            trampoline::enter();
            let c = &*control;
            let mut after = Registers {
                gpr: c.out_gpr,
                rip: 0,
                rflags: c.out_rflags,
                cw: c.out_fx.cw,
                sw: c.out_fx.sw,
                tag: c.out_fx.tag as u8,
                mxcsr: c.out_fx.mxcsr,
                st: c.out_fx.st.map(|st| st & ((1 << 80) - 1)),
                ymm: [[0; 4]; 16],
            };
            for (i, ymm) in after.ymm.iter_mut().enumerate() {
                let (low, high) = (c.out_fx.xmm[i], c.out_high[i]);
                *ymm = [low[0], low[1], high[0], high[1]];
            }
            if c.signal == 0 {
                after.rip = exits[c.exit as usize % EXITS];
                return Outcome { regs: after, fault: None };
            }
            after.rip = c.out_rip;
            let vector = c.vector as u8;
            let address = if vector == 14 { c.cr2 } else { 0 };
            Outcome { regs: after, fault: Some(Fault { vector, error: c.error as u32, address }) }
        }
    }
}

/// The code at exit number `exit`: 7 bytes that lead back to the tester.
pub fn exit_code(exit: usize) -> [u8; 7] {
    let at = (area::CONTROL as u32 + trampoline::EXIT_POINTERS + 8 * exit as u32).to_le_bytes();
    // jmp qword ptr [abs32]
    [0xff, 0x24, 0x25, at[0], at[1], at[2], at[3]]
}

#[cfg(test)]
mod tests;
