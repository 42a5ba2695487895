//! TARGETINFO, REPORTDATA and REPORT: local attestation.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: REPORT,
//! TARGETINFO, REPORTDATA.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::zero;
use crate::{Attributes, MiscSelect};

/// TARGETINFO, 512 bytes: the enclave that shall be able to check a report.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Targetinfo {
    /// MRENCLAVE of the target.
    pub measurement: [u8; 32],
    /// Attributes of the target.
    pub attributes: Attributes,
    /// CET attributes of the target.
    pub cet_attributes: u8,
    /// Must be zero.
    pub reserved1: u8,
    /// CONFIGSVN of the target.
    pub configsvn: u16,
    /// MISCSELECT of the target.
    pub miscselect: MiscSelect,
    /// Must be zero.
    pub reserved2: [u8; 8],
    /// CONFIGID of the target.
    pub configid: [u8; 64],
    /// Must be zero.
    pub reserved3: [u8; 384],
}

layout!(Targetinfo, size 512, {
    measurement @ 0, attributes @ 32, cet_attributes @ 48, reserved1 @ 49, configsvn @ 50,
    miscselect @ 52, reserved2 @ 56, configid @ 64, reserved3 @ 128,
});

impl Targetinfo {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 512;

    /// True if every reserved field is zero.
    pub fn reserved_is_zero(&self) -> bool {
        self.reserved1 == 0 && zero(&self.reserved2) && zero(&self.reserved3)
    }
}

/// REPORTDATA, 64 bytes of the enclave's choice that a report carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Reportdata(pub [u8; 64]);

const _: () = assert!(size_of::<Reportdata>() == Reportdata::SIZE);

impl Reportdata {
    /// Size in bytes: 64.
    pub const SIZE: usize = 64;
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 128;
}

/// The first 384 bytes of a REPORT: everything that is authenticated. Quotes
/// carry it unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ReportBody {
    /// Security version of the processor.
    pub cpusvn: [u8; 16],
    /// MISCSELECT of the enclave.
    pub miscselect: MiscSelect,
    /// CET attributes of the enclave.
    pub cet_attributes: u8,
    /// Zero.
    pub reserved1: [u8; 11],
    /// Extended product identifier (KSS).
    pub isvextprodid: [u8; 16],
    /// Attributes of the enclave.
    pub attributes: Attributes,
    /// Measurement of the enclave.
    pub mrenclave: [u8; 32],
    /// Zero.
    pub reserved2: [u8; 32],
    /// SHA-256 of the signer's modulus.
    pub mrsigner: [u8; 32],
    /// Zero.
    pub reserved3: [u8; 32],
    /// Configuration identity (KSS).
    pub configid: [u8; 64],
    /// Product identifier.
    pub isvprodid: u16,
    /// Security version of the enclave.
    pub isvsvn: u16,
    /// Security version of the configuration (KSS).
    pub configsvn: u16,
    /// Zero.
    pub reserved4: [u8; 42],
    /// Product family (KSS).
    pub isvfamilyid: [u8; 16],
    /// What the enclave wanted to say.
    pub reportdata: [u8; 64],
}

layout!(ReportBody, size 384, {
    cpusvn @ 0, miscselect @ 16, cet_attributes @ 20, reserved1 @ 21, isvextprodid @ 32,
    attributes @ 48, mrenclave @ 64, reserved2 @ 96, mrsigner @ 128, reserved3 @ 160,
    configid @ 192, isvprodid @ 256, isvsvn @ 258, configsvn @ 260, reserved4 @ 262,
    isvfamilyid @ 304, reportdata @ 320,
});

impl ReportBody {
    /// True if every reserved field is zero.
    pub fn reserved_is_zero(&self) -> bool {
        zero(&self.reserved1) && zero(&self.reserved2) && zero(&self.reserved3) && zero(&self.reserved4)
    }
}

/// REPORT, 432 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Report {
    /// The authenticated part.
    pub body: ReportBody,
    /// Wear-out protection value that the report key was derived with.
    pub keyid: [u8; 32],
    /// AES-CMAC, with the target's report key, over the body.
    pub mac: [u8; 16],
}

layout!(Report, size 432, { body @ 0, keyid @ 384, mac @ 416 });

impl Report {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 512;
}

zero_default!(Targetinfo, Reportdata, ReportBody, Report);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_byte_counts() {
        let reserved = [49..50, 56..64, 128..512];
        for byte in 0..Targetinfo::SIZE {
            let mut info = Targetinfo::default();
            info.as_mut_bytes()[byte] = 1;
            assert_eq!(info.reserved_is_zero(), !reserved.iter().any(|r| r.contains(&byte)), "byte {byte}");
        }
        let reserved = [21..32, 96..128, 160..192, 262..304];
        for byte in 0..ReportBody::SIZE {
            let mut body = ReportBody::default();
            body.as_mut_bytes()[byte] = 1;
            assert_eq!(body.reserved_is_zero(), !reserved.iter().any(|r| r.contains(&byte)), "byte {byte}");
        }
    }
}
