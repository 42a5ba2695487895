//! ATTRIBUTES and MISCSELECT: what an enclave is and what its exits record.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: ATTRIBUTES, MISCSELECT.*

use core::ops::{BitAnd, BitOr, Not};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

flags! {
    /// The first eight bytes of ATTRIBUTES (*SDM vol. 3D, Layout of ATTRIBUTES Structure*).
    pub struct AttributeFlags: u64 {
        /// EINIT has succeeded; never set by software.
        const INIT = 1 << 0;
        /// A debugger may read and write the enclave with EDBGRD and EDBGWR.
        const DEBUG = 1 << 1;
        /// The enclave runs in 64-bit mode.
        const MODE64BIT = 1 << 2;
        /// EGETKEY gives out the provisioning keys.
        const PROVISIONKEY = 1 << 4;
        /// EGETKEY gives out the EINIT token key.
        const EINITTOKEN_KEY = 1 << 5;
        /// Control-flow enforcement applies inside the enclave.
        const CET = 1 << 6;
        /// Key separation and sharing: the CONFIGID, ISVFAMILYID and ISVEXTPRODID family.
        const KSS = 1 << 7;
        /// Threads may ask to be told of an asynchronous exit.
        const AEXNOTIFY = 1 << 10;
    }
}

flags! {
    /// MISCSELECT: what is saved in the MISC region of an SSA frame
    /// (*SDM vol. 3D, Bit Vector Layout of MISCSELECT Field*).
    pub struct MiscSelect: u32 {
        /// #PF and #GP information goes to EXINFO.
        const EXINFO = 1 << 0;
        /// #CP information goes to EXINFO.
        const CPINFO = 1 << 1;
    }
}

/// ATTRIBUTES, 16 bytes: flags and the XSAVE components the enclave uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Attributes {
    /// What the enclave may do.
    pub flags: AttributeFlags,
    /// XSAVE-feature request mask: the value of XCR0 inside the enclave.
    pub xfrm: u64,
}

layout!(Attributes, size 16, { flags @ 0, xfrm @ 8 });

impl Attributes {
    /// The bits of ATTRIBUTES that EGETKEY includes whatever the mask says:
    /// INIT and DEBUG (*SDM vol. 3D, EGETKEY: REQUIRED_SEALING_MASK*).
    pub const REQUIRED_SEALING_MASK: Attributes =
        Attributes { flags: AttributeFlags::INIT.union(AttributeFlags::DEBUG), xfrm: 0 };
    /// The bits only an enclave signed by the IA32_SGXLEPUBKEYHASH key may set
    /// (*SDM vol. 3D, EINIT: CONTROLLED_ATTRIBUTES*).
    pub const CONTROLLED: Attributes = Attributes { flags: AttributeFlags::EINITTOKEN_KEY, xfrm: 0 };
    /// Bits 0 and 1 of XFRM, x87 and SSE: both must be set.
    pub const XFRM_LEGACY: u64 = 0b11;
}

impl BitAnd for Attributes {
    type Output = Self;
    fn bitand(self, mask: Self) -> Self {
        // on the raw bits: the operators of `bitflags` may drop unknown ones
        Self {
            flags: AttributeFlags::from_bits_retain(self.flags.bits() & mask.flags.bits()),
            xfrm: self.xfrm & mask.xfrm,
        }
    }
}

impl BitOr for Attributes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self {
            flags: AttributeFlags::from_bits_retain(self.flags.bits() | other.flags.bits()),
            xfrm: self.xfrm | other.xfrm,
        }
    }
}

impl Not for Attributes {
    type Output = Self;
    fn not(self) -> Self {
        Self { flags: AttributeFlags::from_bits_retain(!self.flags.bits()), xfrm: !self.xfrm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_bits_the_sdm_reserves() {
        let all = Attributes { flags: AttributeFlags::from_bits_retain(u64::MAX), xfrm: u64::MAX };
        let odd = Attributes { flags: AttributeFlags::from_bits_retain(1 << 63 | 1), xfrm: 5 };
        assert_eq!(all & odd, odd);
        assert_eq!(odd | Attributes::default(), odd);
        assert_eq!(!!odd, odd);
        assert_eq!((!odd).flags.bits(), !(1 << 63 | 1));
        assert!(odd.flags.has_reserved_bits());
        assert!(!AttributeFlags::all().has_reserved_bits());
        assert!(AttributeFlags::from_bits_retain(1 << 3).has_reserved_bits());
    }
}
