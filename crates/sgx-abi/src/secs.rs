//! SECS: the enclave control structure.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: SGX Enclave Control Structure.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::zero;
use crate::{Attributes, MiscSelect};

/// SECS, one page. Bytes 0 to 261 are architectural; the rest is reserved to
/// software (all zero at ECREATE) and holds [`SecsPrivate`] once the page is in
/// the EPC, so a SECS can be evicted and loaded without anything beside it.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Secs {
    /// Bytes of the enclave's address range, a power of two.
    pub size: u64,
    /// Linear address of the range, aligned to its size.
    pub baseaddr: u64,
    /// Pages of one SSA frame.
    pub ssaframesize: u32,
    /// What goes into the MISC region of an SSA frame.
    pub miscselect: MiscSelect,
    /// Page-aligned offset of the legacy code page bitmap (CET).
    pub cet_leg_bitmap_offset: u64,
    /// CET features of the enclave, laid out as bits 0 to 7 of IA32_U_CET.
    pub cet_attributes: u8,
    /// Must be zero.
    pub reserved1: [u8; 15],
    /// Attributes.
    pub attributes: Attributes,
    /// Measurement; complete after EINIT, before it the processor's own state.
    pub mrenclave: [u8; 32],
    /// Must be zero.
    pub reserved2: [u8; 32],
    /// SHA-256 of the signer's modulus; set by EINIT.
    pub mrsigner: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 32],
    /// Identity of the enclave's configuration (KSS).
    pub configid: [u8; 64],
    /// Product identifier; set by EINIT.
    pub isvprodid: u16,
    /// Security version of the enclave; set by EINIT.
    pub isvsvn: u16,
    /// Security version of the enclave's configuration (KSS).
    pub configsvn: u16,
    /// Must be zero.
    pub reserved4: [u8; 2],
    /// What the processor adds; all zero in the page that ECREATE copies.
    pub private: SecsPrivate,
}

layout!(Secs, size 4096, {
    size @ 0, baseaddr @ 8, ssaframesize @ 16, miscselect @ 20, cet_leg_bitmap_offset @ 24,
    cet_attributes @ 32, reserved1 @ 33, attributes @ 48, mrenclave @ 64, reserved2 @ 96,
    mrsigner @ 128, reserved3 @ 160, configid @ 192, isvprodid @ 256, isvsvn @ 258,
    configsvn @ 260, reserved4 @ 262, private @ 264,
});

impl Secs {
    /// Bytes of the smallest enclave: two pages.
    pub const MIN_SIZE: u64 = 8192;

    /// True if every field that ECREATE requires to be zero is: the reserved
    /// bytes of the architectural part and the whole private part.
    pub fn reserved_is_zero(&self) -> bool {
        zero(&self.reserved1)
            && zero(&self.reserved2)
            && zero(&self.reserved3)
            && zero(&self.reserved4)
            && zero(self.private.as_bytes())
    }
}

/// The part of a SECS only the processor sees. The SDM names these fields
/// (EID, PADDING, ISVFAMILYID, ISVEXTPRODID, the running MRENCLAVE) and leaves
/// their place to the implementation; the offsets here are Kluis's own.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SecsPrivate {
    /// Enclave identifier, unique until the platform resets.
    pub eid: u64,
    /// Upper 352 bytes of the encoded message that EINIT recovered from the
    /// signature, in the order of their significance from the highest.
    pub padding: [u8; 352],
    /// Product family (KSS); set by EINIT.
    pub isvfamilyid: [u8; 16],
    /// Extended product identifier (KSS); set by EINIT.
    pub isvextprodid: [u8; 16],
    /// SHA-256 chaining value of the measurement until EINIT.
    pub hash: [u32; 8],
    /// 64-byte blocks measured so far.
    pub hash_blocks: u64,
    /// ENCLAVECONTEXT: a number the hypervisor or kernel knows the SECS by.
    pub enclavecontext: u64,
    /// Zero.
    pub reserved1: [u8; 3392],
}

layout!(SecsPrivate, size 3832, {
    eid @ 0, padding @ 8, isvfamilyid @ 360, isvextprodid @ 376, hash @ 392, hash_blocks @ 424,
    enclavecontext @ 432, reserved1 @ 440,
});

zero_default!(Secs, SecsPrivate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecreate_sees_every_reserved_byte() {
        let reserved = [33..48, 96..128, 160..192, 262..4096];
        for byte in 0..Secs::SIZE {
            let mut secs = Secs::default();
            secs.as_mut_bytes()[byte] = 0x80;
            assert_eq!(secs.reserved_is_zero(), !reserved.iter().any(|r| r.contains(&byte)), "byte {byte}");
        }
    }
}
