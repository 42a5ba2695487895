//! What an instruction can see and change, as both sides report it.

/// Registers visible to user mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// RAX … R15 in encoding order.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// RFLAGS: status flags, DF, NT, AC, ID.
    pub rflags: u64,
    /// YMM0–YMM15.
    pub ymm: [[u64; 4]; 16],
    /// MXCSR.
    pub mxcsr: u32,
    /// x87 control word.
    pub cw: u16,
    /// x87 status word.
    pub sw: u16,
    /// x87 abridged tag byte.
    pub tag: u8,
    /// ST(0)–ST(7), 80 bits each.
    pub st: [u128; 8],
}

/// RFLAGS bits that are compared.
pub const COMPARED_FLAGS: u64 = {
    use arch::regs::rflags::{AC, DF, ID, NT, STATUS};
    STATUS | DF | NT | AC | ID
};

impl Default for Registers {
    fn default() -> Self {
        Registers {
            gpr: [0; 16],
            rip: 0,
            rflags: 2,
            ymm: [[0; 4]; 16],
            mxcsr: 0x1f80,
            cw: 0x37f,
            sw: 0,
            tag: 0,
            st: [0; 8],
        }
    }
}

/// An exception, as the host's kernel or the guest's handler was told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u8,
    /// Error code, zero if there is none.
    pub error: u32,
    /// CR2, for page faults; else zero.
    pub address: u64,
}

/// What came of a case; memory is compared in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Registers after it, or at the fault.
    pub regs: Registers,
    /// The exception, if there was one.
    pub fault: Option<Fault>,
}
