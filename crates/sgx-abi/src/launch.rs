//! SIGSTRUCT and EINITTOKEN, the operands of EINIT.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: Enclave Signature
//! Structure, EINIT Token Structure.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::zero;
use crate::{Attributes, MiscSelect};

/// SIGSTRUCT, 1808 bytes: the signer's statement about an enclave. The numbers
/// of 3072 bits are little-endian.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Sigstruct {
    /// [`Sigstruct::HEADER`].
    pub header: [u8; 16],
    /// Zero or [`Sigstruct::VENDOR_INTEL`].
    pub vendor: u32,
    /// Day of the build as the binary-coded decimal 0xYYYYMMDD.
    pub date: u32,
    /// [`Sigstruct::HEADER2`].
    pub header2: [u8; 16],
    /// Free for software.
    pub swdefined: u32,
    /// Must be zero.
    pub reserved1: [u8; 84],
    /// Modulus of the signer's key.
    pub modulus: [u8; 384],
    /// Public exponent: [`Sigstruct::EXPONENT`].
    pub exponent: u32,
    /// RSA signature, PKCS #1 v1.5 with SHA-256, over [`Sigstruct::signed_parts`].
    pub signature: [u8; 384],
    /// Required MISCSELECT.
    pub miscselect: MiscSelect,
    /// Bits of MISCSELECT that are required.
    pub miscmask: u32,
    /// Required CET attributes.
    pub cet_attributes: u8,
    /// Bits of the CET attributes that are required.
    pub cet_attributes_mask: u8,
    /// Must be zero.
    pub reserved2: [u8; 2],
    /// Product family (KSS).
    pub isvfamilyid: [u8; 16],
    /// Required attributes.
    pub attributes: Attributes,
    /// Bits of the attributes that are required.
    pub attributemask: Attributes,
    /// Required measurement.
    pub enclavehash: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 16],
    /// Extended product identifier (KSS).
    pub isvextprodid: [u8; 16],
    /// Product identifier.
    pub isvprodid: u16,
    /// Security version.
    pub isvsvn: u16,
    /// Must be zero; not signed.
    pub reserved4: [u8; 12],
    /// floor(SIGNATURE² / MODULUS).
    pub q1: [u8; 384],
    /// floor((SIGNATURE³ − Q1·SIGNATURE·MODULUS) / MODULUS).
    pub q2: [u8; 384],
}

layout!(Sigstruct, size 1808, {
    header @ 0, vendor @ 16, date @ 20, header2 @ 24, swdefined @ 40, reserved1 @ 44,
    modulus @ 128, exponent @ 512, signature @ 516, miscselect @ 900, miscmask @ 904,
    cet_attributes @ 908, cet_attributes_mask @ 909, reserved2 @ 910, isvfamilyid @ 912,
    attributes @ 928, attributemask @ 944, enclavehash @ 960, reserved3 @ 992,
    isvextprodid @ 1008, isvprodid @ 1024, isvsvn @ 1026, reserved4 @ 1028, q1 @ 1040, q2 @ 1424,
});

impl Sigstruct {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 4096;
    /// The only valid HEADER.
    pub const HEADER: [u8; 16] = [6, 0, 0, 0, 0xe1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    /// The only valid HEADER2.
    pub const HEADER2: [u8; 16] = [1, 1, 0, 0, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 1, 0, 0, 0];
    /// The only valid EXPONENT.
    pub const EXPONENT: u32 = 3;
    /// VENDOR of enclaves that Intel made.
    pub const VENDOR_INTEL: u32 = 0x8086;

    /// The two runs of bytes that are signed, one after the other: 0 to 127 and
    /// 900 to 1027.
    pub fn signed_parts(&self) -> [&[u8]; 2] {
        let bytes = self.as_bytes();
        [&bytes[..128], &bytes[900..1028]]
    }

    /// True if every reserved field is zero, the unsigned one included.
    pub fn reserved_is_zero(&self) -> bool {
        zero(&self.reserved1) && zero(&self.reserved2) && zero(&self.reserved3) && zero(&self.reserved4)
    }
}

/// EINITTOKEN, 304 bytes: a launch enclave's permission to run an enclave. Fields
/// ending in `le` describe the launch enclave.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Einittoken {
    /// Bit 0: the token is to be used; the other bits are reserved.
    pub valid: u32,
    /// Must be zero.
    pub reserved1: [u8; 44],
    /// Attributes of the enclave to launch.
    pub attributes: Attributes,
    /// Measurement of the enclave to launch.
    pub mrenclave: [u8; 32],
    /// Must be zero.
    pub reserved2: [u8; 32],
    /// Signer of the enclave to launch.
    pub mrsigner: [u8; 32],
    /// Must be zero.
    pub reserved3: [u8; 32],
    /// CPUSVN that the token key was derived with.
    pub cpusvnle: [u8; 16],
    /// ISVPRODID of the launch enclave.
    pub isvprodidle: u16,
    /// ISVSVN that the token key was derived with.
    pub isvsvnle: u16,
    /// Masked CET attributes of the launch enclave.
    pub cet_masked_attributes_le: u8,
    /// Must be zero.
    pub reserved4: [u8; 23],
    /// Masked MISCSELECT of the launch enclave.
    pub maskedmiscselectle: MiscSelect,
    /// Masked attributes of the launch enclave.
    pub maskedattributesle: Attributes,
    /// KEYID that the token key was derived with.
    pub keyid: [u8; 32],
    /// AES-CMAC, with the token key, over [`Einittoken::mac_data`].
    pub mac: [u8; 16],
}

layout!(Einittoken, size 304, {
    valid @ 0, reserved1 @ 4, attributes @ 48, mrenclave @ 64, reserved2 @ 96, mrsigner @ 128,
    reserved3 @ 160, cpusvnle @ 192, isvprodidle @ 208, isvsvnle @ 210,
    cet_masked_attributes_le @ 212, reserved4 @ 213, maskedmiscselectle @ 236,
    maskedattributesle @ 240, keyid @ 256, mac @ 288,
});

impl Einittoken {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 512;
    /// Bit of VALID that says the token is to be used.
    pub const VALID: u32 = 1;

    /// The 192 bytes that MAC authenticates.
    pub fn mac_data(&self) -> &[u8] {
        &self.as_bytes()[..192]
    }

    /// True if every reserved field and the upper bits of VALID are zero.
    pub fn reserved_is_zero(&self) -> bool {
        self.valid & !Self::VALID == 0
            && zero(&self.reserved1)
            && zero(&self.reserved2)
            && zero(&self.reserved3)
            && zero(&self.reserved4)
    }
}

zero_default!(Sigstruct, Einittoken);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_byte_of_sigstruct_counts() {
        let reserved = [44..128, 910..912, 992..1008, 1028..1040];
        for byte in 0..Sigstruct::SIZE {
            let mut sig = Sigstruct::default();
            sig.as_mut_bytes()[byte] = 1;
            assert_eq!(sig.reserved_is_zero(), !reserved.iter().any(|r| r.contains(&byte)), "byte {byte}");
        }
    }

    #[test]
    fn every_reserved_byte_of_einittoken_counts() {
        let reserved = [0..48, 96..128, 160..192, 213..236];
        for byte in 0..Einittoken::SIZE {
            let mut token = Einittoken::default();
            token.as_mut_bytes()[byte] = 2;
            assert_eq!(token.reserved_is_zero(), !reserved.iter().any(|r| r.contains(&byte)), "byte {byte}");
        }
        assert!(Einittoken { valid: 1, ..Einittoken::default() }.reserved_is_zero());
    }

    #[test]
    fn signed_parts_leave_out_key_signature_and_quotients() {
        let mut sig = Sigstruct::default();
        for (i, byte) in sig.as_mut_bytes().iter_mut().enumerate() {
            *byte = (i / 16) as u8;
        }
        let [first, second] = sig.signed_parts();
        assert_eq!((first.len(), second.len()), (128, 128));
        assert_eq!((first[127], second[0], second[127]), (7, 56, 64));
    }
}
