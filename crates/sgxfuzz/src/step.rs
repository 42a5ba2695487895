//! What the hostile kernel, its user program and the enclaves may do.

use crate::layout::Gadget;
use crate::model::enclu::Enclu;
use crate::model::leaf::Encls;

/// How ENCLS's operand in RCX is made wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twist {
    /// Not at all.
    None,
    /// By one byte.
    Unaligned,
    /// It leads to RAM.
    Ram,
}

/// One step. `lp` is a processor; one that is not where the step needs it to be is
/// interrupted first, or the step is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Step {
    /// A leaf of the kernel.
    Kernel { leaf: Encls, twist: Twist },
    /// EENTER or ERESUME of the TCS at `la`; `tf` with RFLAGS.TF.
    Enter { lp: usize, la: u64, resume: bool, tf: bool },
    /// EENTER or ERESUME of whatever thread of the enclave with that SECS is free.
    GoIn { lp: usize, secs: usize },
    /// EEXIT.
    Exit { lp: usize },
    /// A leaf inside.
    Leaf { lp: usize, leaf: Enclu },
    /// ENCLU on the wrong side, or ENCLS at CPL 3 (24 and above).
    Misplaced { lp: usize, number: u64 },
    /// A load, store or locked operation.
    Memory { lp: usize, gadget: Gadget, la: u64, user: bool },
    /// REP MOVSB.
    Copy { lp: usize, from: u64, to: u64, bytes: u64 },
    /// The enclave writes a SECINFO, from RAM.
    Secinfo { lp: usize, la: u64, flags: u64 },
    /// The enclave stores code that [`Step::Jump`] may then execute: MOV EAX, `value`.
    Patch { lp: usize, la: u64, value: u32 },
    /// A jump.
    Jump { lp: usize, la: u64 },
    /// An instruction that faults inside.
    Fault { lp: usize, gadget: Gadget },
    /// A non-maskable interrupt.
    Interrupt { lp: usize },
    /// A non-maskable interrupt whose handler's stack is where the kernel wants it.
    Stack { lp: usize, la: u64 },
    /// Breakpoints on code and data inside.
    Breakpoint { lp: usize, la: u64 },
    /// An entry of the enclaves' page table.
    Map { la: u64, entry: u64 },
    /// Maps all pages of the enclave with that SECS where they belong.
    MapAll { secs: usize },
    /// The enclaves' range is one large page on the EPC, or is not.
    Large { on: bool },
    /// A page table is put into the EPC.
    Table { page: usize },
    /// A bit of an evicted page, its PCMD (4096 and above) or LINADDR (4224) is flipped.
    Tamper { place: u64, at: u64, bit: u8 },
    /// A place gets what some earlier eviction wrote.
    Replay { place: u64, record: usize },
    /// The debugger looks at `la`.
    Debugger { lp: usize, la: u64 },
    /// A device writes and reads an EPC page.
    Device { page: usize },
}
