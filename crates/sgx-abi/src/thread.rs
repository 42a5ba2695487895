//! TCS and the processor-written areas of an SSA frame.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: Thread Control
//! Structure, State Save Area Frame.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::zero;

flags! {
    /// TCS.FLAGS (*SDM vol. 3D, Layout of TCS.FLAGS Field*).
    pub struct TcsFlags: u64 {
        /// Debug features act while the thread runs in the enclave; only a debugger sets it.
        const DBGOPTIN = 1 << 0;
        /// The thread may be told of asynchronous exits.
        const AEXNOTIFY = 1 << 1;
    }
}

/// TCS, one page. Offsets are relative to the enclave's base address, in bytes.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Tcs {
    /// Whether a processor runs on this TCS; only the processor touches it.
    pub state: u64,
    /// Debug opt-in and AEX-Notify.
    pub flags: TcsFlags,
    /// Offset of the SSA stack, page-aligned.
    pub ossa: u64,
    /// Current SSA slot.
    pub cssa: u32,
    /// Number of SSA slots.
    pub nssa: u32,
    /// Offset of the entry point.
    pub oentry: u64,
    /// Asynchronous exit pointer, kept by EENTER and ERESUME.
    pub aep: u64,
    /// Offset that becomes the FS base.
    pub ofsbase: u64,
    /// Offset that becomes the GS base.
    pub ogsbase: u64,
    /// FS limit of a 32-bit enclave; its low 12 bits are all ones.
    pub fslimit: u32,
    /// GS limit of a 32-bit enclave; its low 12 bits are all ones.
    pub gslimit: u32,
    /// Offset of the CET state save area.
    pub ocetssa: u64,
    /// Shadow-stack pointer to go back to (CET).
    pub prevssp: u64,
    /// Must be zero.
    pub reserved1: [u8; 4008],
}

layout!(Tcs, size 4096, {
    state @ 0, flags @ 8, ossa @ 16, cssa @ 24, nssa @ 28, oentry @ 32, aep @ 40, ofsbase @ 48,
    ogsbase @ 56, fslimit @ 64, gslimit @ 68, ocetssa @ 72, prevssp @ 80, reserved1 @ 88,
});

impl Tcs {
    /// Offset in the page of FLAGS, the one word of a TCS that EDBGWR may write.
    pub const FLAGS_OFFSET: u64 = 8;

    /// True if the reserved bytes and the reserved bits of FLAGS are zero.
    pub fn reserved_is_zero(&self) -> bool {
        !self.flags.has_reserved_bits() && zero(&self.reserved1)
    }
}

/// GPRSGX, the last 184 bytes of an SSA frame: registers at an asynchronous exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs, reason = "each field is the register of its name")]
pub struct GprSgx {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rflags: u64,
    pub rip: u64,
    /// RSP outside the enclave, stored by EENTER and ERESUME.
    pub ursp: u64,
    /// RBP outside the enclave, stored by EENTER and ERESUME.
    pub urbp: u64,
    /// Which exception caused the exit.
    pub exitinfo: ExitInfo,
    /// Zero.
    pub reserved1: [u8; 3],
    /// Bit 0: the enclave wants ERESUME to enter it afresh instead.
    pub aexnotify: u8,
    pub fsbase: u64,
    pub gsbase: u64,
}

layout!(GprSgx, size 184, {
    rax @ 0, rcx @ 8, rdx @ 16, rbx @ 24, rsp @ 32, rbp @ 40, rsi @ 48, rdi @ 56, r8 @ 64, r9 @ 72,
    r10 @ 80, r11 @ 88, r12 @ 96, r13 @ 104, r14 @ 112, r15 @ 120, rflags @ 128, rip @ 136,
    ursp @ 144, urbp @ 152, exitinfo @ 160, reserved1 @ 164, aexnotify @ 167, fsbase @ 168,
    gsbase @ 176,
});

impl GprSgx {
    /// Bit of [`GprSgx::aexnotify`] by which a thread asks to be notified.
    pub const AEXNOTIFY: u8 = 1;

    /// True if the reserved bytes are zero.
    pub fn reserved_is_zero(&self) -> bool {
        zero(&self.reserved1)
    }
}

/// How the exception in EXITINFO arose (*SDM vol. 3D, EXITINFO, EXIT_TYPE*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitType {
    /// Raised by the processor.
    Hardware = 3,
    /// INT3 or INTO.
    Software = 6,
}

/// EXITINFO: vector in bits 0 to 7, type in bits 8 to 10, valid in bit 31.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct ExitInfo(pub u32);

impl ExitInfo {
    /// What an exit leaves that software cannot see the cause of.
    pub const NONE: ExitInfo = ExitInfo(0);
    /// Bit that says the rest is meaningful.
    pub const VALID: u32 = 1 << 31;

    /// A valid EXITINFO.
    pub const fn new(vector: u8, exit_type: ExitType) -> Self {
        Self(Self::VALID | (exit_type as u32) << 8 | vector as u32)
    }

    /// Exception vector, if the entry is valid.
    pub const fn vector(self) -> Option<u8> {
        if self.0 & Self::VALID != 0 { Some(self.0 as u8) } else { None }
    }

    /// Type, if the entry is valid and the SDM defines its number.
    pub const fn exit_type(self) -> Option<ExitType> {
        match (self.0 & Self::VALID != 0, self.0 >> 8 & 7) {
            (true, 3) => Some(ExitType::Hardware),
            (true, 6) => Some(ExitType::Software),
            _ => None,
        }
    }
}

/// EXINFO, 16 bytes directly below GPRSGX: details of #PF, #GP and #CP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ExInfo {
    /// Linear address of a #PF; zero otherwise.
    pub maddr: u64,
    /// Error code of the exception.
    pub errcd: u32,
    /// Zero.
    pub reserved1: u32,
}

layout!(ExInfo, size 16, { maddr @ 0, errcd @ 8, reserved1 @ 12 });

impl ExInfo {
    /// True if the reserved word is zero.
    pub fn reserved_is_zero(&self) -> bool {
        self.reserved1 == 0
    }
}

zero_default!(Tcs);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exitinfo_packs_as_the_sdm_says() {
        assert_eq!(ExitInfo::new(14, ExitType::Hardware).0, 0x8000_030e);
        assert_eq!(ExitInfo::new(3, ExitType::Software).0, 0x8000_0603);
        for vector in 0..=255 {
            for t in [ExitType::Hardware, ExitType::Software] {
                let info = ExitInfo::new(vector, t);
                assert_eq!((info.vector(), info.exit_type()), (Some(vector), Some(t)));
                let invalid = ExitInfo(info.0 & !ExitInfo::VALID);
                assert_eq!((invalid.vector(), invalid.exit_type()), (None, None));
            }
        }
        assert_eq!(ExitInfo(ExitInfo::VALID | 1 << 8).exit_type(), None);
    }

    #[test]
    fn reserved_bytes_of_a_tcs() {
        for byte in 0..Tcs::SIZE {
            let mut tcs = Tcs::default();
            tcs.as_mut_bytes()[byte] = 0x80;
            assert_eq!(tcs.reserved_is_zero(), !((8..16).contains(&byte) || byte >= 88), "byte {byte}");
        }
        let tcs = Tcs { flags: TcsFlags::all(), ..Tcs::default() };
        assert!(tcs.reserved_is_zero());
    }
}
