//! KEYREQUEST, the operand of EGETKEY.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: Key Request.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Attributes;
use crate::layout::zero;

/// KEYNAME (*SDM vol. 3D, Supported KEYName Values*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum KeyName {
    /// Authenticates EINIT tokens; for launch enclaves.
    Einittoken = 0,
    /// For provisioning; outlives a change of owner.
    Provision = 1,
    /// For sealing provisioning data.
    ProvisionSeal = 2,
    /// Authenticates reports meant for the enclave.
    Report = 3,
    /// For sealing the enclave's own data.
    Seal = 4,
}

impl KeyName {
    /// All key names, by number.
    pub const ALL: [KeyName; 5] =
        [KeyName::Einittoken, KeyName::Provision, KeyName::ProvisionSeal, KeyName::Report, KeyName::Seal];

    /// The key with this number; `None` if the SDM defines none.
    pub const fn from_u16(n: u16) -> Option<Self> {
        if (n as usize) < Self::ALL.len() { Some(Self::ALL[n as usize]) } else { None }
    }

    /// The SDM's name, e.g. `SEAL_KEY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Einittoken => "EINITTOKEN_KEY",
            Self::Provision => "PROVISION_KEY",
            Self::ProvisionSeal => "PROVISION_SEAL_KEY",
            Self::Report => "REPORT_KEY",
            Self::Seal => "SEAL_KEY",
        }
    }
}

flags! {
    /// KEYPOLICY (*SDM vol. 3D, Layout of KEYPOLICY Field*).
    pub struct KeyPolicy: u16 {
        /// Depend on MRENCLAVE.
        const MRENCLAVE = 1 << 0;
        /// Depend on MRSIGNER.
        const MRSIGNER = 1 << 1;
        /// Do not depend on ISVPRODID.
        const NOISVPRODID = 1 << 2;
        /// Depend on CONFIGID and CONFIGSVN.
        const CONFIGID = 1 << 3;
        /// Depend on ISVFAMILYID.
        const ISVFAMILYID = 1 << 4;
        /// Depend on ISVEXTPRODID.
        const ISVEXTPRODID = 1 << 5;
    }
}

impl KeyPolicy {
    /// The bits that only an enclave with the KSS attribute may use.
    pub const KSS: KeyPolicy =
        Self::NOISVPRODID.union(Self::CONFIGID).union(Self::ISVFAMILYID).union(Self::ISVEXTPRODID);
}

/// KEYREQUEST, 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Keyrequest {
    /// Which key; see [`KeyName::from_u16`].
    pub keyname: u16,
    /// What the key shall depend on.
    pub keypolicy: KeyPolicy,
    /// Security version of the enclave to derive for.
    pub isvsvn: u16,
    /// Bits of the CET attributes the key depends on.
    pub cet_attributes_mask: u8,
    /// Must be zero.
    pub reserved1: u8,
    /// Security version of the processor to derive for.
    pub cpusvn: [u8; 16],
    /// Bits of the attributes the key depends on.
    pub attributemask: Attributes,
    /// Wear-out protection value.
    pub keyid: [u8; 32],
    /// Bits of MISCSELECT the key depends on.
    pub miscmask: u32,
    /// Security version of the configuration to derive for (KSS).
    pub configsvn: u16,
    /// Must be zero.
    pub reserved2: [u8; 434],
}

layout!(Keyrequest, size 512, {
    keyname @ 0, keypolicy @ 2, isvsvn @ 4, cet_attributes_mask @ 6, reserved1 @ 7, cpusvn @ 8,
    attributemask @ 24, keyid @ 40, miscmask @ 72, configsvn @ 76, reserved2 @ 78,
});

impl Keyrequest {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 512;
    /// Bytes of the key that EGETKEY writes, and the alignment it demands for it.
    pub const KEY_SIZE: usize = 16;

    /// True if every reserved field and the reserved bits of KEYPOLICY are zero.
    pub fn reserved_is_zero(&self) -> bool {
        !self.keypolicy.has_reserved_bits() && self.reserved1 == 0 && zero(&self.reserved2)
    }
}

zero_default!(Keyrequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reserved_byte_counts() {
        for byte in 0..Keyrequest::SIZE {
            let mut request = Keyrequest::default();
            request.as_mut_bytes()[byte] = 0x40;
            let reserved = byte == 2 || byte == 3 || byte == 7 || byte >= 78;
            assert_eq!(request.reserved_is_zero(), !reserved, "byte {byte}");
        }
        assert!(Keyrequest { keypolicy: KeyPolicy::all(), ..Keyrequest::default() }.reserved_is_zero());
        assert_eq!(KeyPolicy::KSS.bits(), 0x3c);
    }

    #[test]
    fn key_names_by_number() {
        for n in 0..=u16::MAX {
            assert_eq!(KeyName::from_u16(n).map(|k| k as u16), (n < 5).then_some(n));
        }
    }
}
