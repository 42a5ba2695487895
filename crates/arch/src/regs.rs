//! Register numbers and the bits of flag and control registers.

/// General-purpose register numbers as instructions encode them (*SDM vol. 2A table 2-2*).
#[allow(missing_docs)]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// Segment register numbers as instructions encode them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// RFLAGS bits (*SDM vol. 1 §3.4.3*).
#[allow(missing_docs)]
pub mod rflags {
    pub const CF: u64 = 1 << 0;
    pub const FIXED: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
    /// The six status flags.
    pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
    /// Every bit that software can set in 64-bit mode.
    pub const WRITABLE: u64 = STATUS | TF | IF | DF | IOPL | NT | RF | AC | ID;
}

/// The flag types: bitflags makes documented constants whose names are the SDM's.
mod flag_types {
    #![allow(missing_docs)]
    use bitflags::bitflags;

    bitflags! {
    /// CR0 (*SDM vol. 3A §2.5*).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr0: u64 {
        const PE = 1 << 0;
        const MP = 1 << 1;
        const EM = 1 << 2;
        const TS = 1 << 3;
        const ET = 1 << 4;
        const NE = 1 << 5;
        const WP = 1 << 16;
        const AM = 1 << 18;
        const NW = 1 << 29;
        const CD = 1 << 30;
        const PG = 1 << 31;
    }

    /// CR4 (*SDM vol. 3A §2.5*).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Cr4: u64 {
        const VME = 1 << 0;
        const PVI = 1 << 1;
        const TSD = 1 << 2;
        const DE = 1 << 3;
        const PSE = 1 << 4;
        const PAE = 1 << 5;
        const MCE = 1 << 6;
        const PGE = 1 << 7;
        const PCE = 1 << 8;
        const OSFXSR = 1 << 9;
        const OSXMMEXCPT = 1 << 10;
        const UMIP = 1 << 11;
        const LA57 = 1 << 12;
        const VMXE = 1 << 13;
        const SMXE = 1 << 14;
        const FSGSBASE = 1 << 16;
        const PCIDE = 1 << 17;
        const OSXSAVE = 1 << 18;
        const SMEP = 1 << 20;
        const SMAP = 1 << 21;
        const PKE = 1 << 22;
        const CET = 1 << 23;
    }

    /// IA32_EFER (*SDM vol. 3A §2.2.1*).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Efer: u64 {
        const SCE = 1 << 0;
        const LME = 1 << 8;
        const LMA = 1 << 10;
        const NXE = 1 << 11;
    }

    /// XCR0 (*SDM vol. 3A §2.6*).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Xcr0: u64 {
        const X87 = 1 << 0;
        const SSE = 1 << 1;
        const AVX = 1 << 2;
        const OPMASK = 1 << 5;
        const ZMM_HI256 = 1 << 6;
        const HI16_ZMM = 1 << 7;
    }
    }
}
pub use flag_types::{Cr0, Cr4, Efer, Xcr0};

/// Debug status register DR6 (*SDM vol. 3B §17.2.3*).
#[allow(missing_docs)]
pub mod dr6 {
    /// Bits that always read as one.
    pub const FIXED: u64 = 0xffff_0ff0;
    pub const BD: u64 = 1 << 13;
    pub const BS: u64 = 1 << 14;
    pub const BT: u64 = 1 << 15;
}

/// Debug control register DR7 (*SDM vol. 3B §17.2.4*).
#[allow(missing_docs)]
pub mod dr7 {
    /// Bit 10 always reads as one.
    pub const FIXED: u64 = 1 << 10;
    pub const GD: u64 = 1 << 13;
    /// The eight local and global enable bits.
    pub const ENABLES: u64 = 0xff;
}

/// MXCSR (*SDM vol. 1 §10.2.3*).
#[allow(missing_docs)]
pub mod mxcsr {
    pub const FLAGS: u32 = 0x3f;
    pub const DAZ: u32 = 1 << 6;
    pub const MASKS: u32 = 0x3f << 7;
    pub const FTZ: u32 = 1 << 15;
    /// Value after reset: every exception masked, round to nearest.
    pub const RESET: u32 = 0x1f80;
    /// Bits software may set.
    pub const WRITABLE: u32 = 0xffff;
}
