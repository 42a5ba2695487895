//! Parameters and metadata of single EPC pages.
//!
//! *SDM vol. 3D, Enclave Access Control and Data Structures: PAGEINFO, SECINFO,
//! PCMD, VA, EPCM.*

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::layout::zero;

/// Bytes of an EPC page.
pub const PAGE_SIZE: usize = 4096;
/// Slots, of eight bytes each, in a version-array page.
pub const VA_SLOTS: usize = 512;
/// Bytes that one EEXTEND measures.
pub const EEXTEND_CHUNK: usize = 256;

/// Type of an EPC page (*SDM vol. 3D, Supported PAGE_TYPE*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PageType {
    /// Enclave control structure.
    Secs = 0,
    /// Thread control structure.
    Tcs = 1,
    /// Regular page.
    Reg = 2,
    /// Version array.
    Va = 3,
    /// Being removed from a live enclave.
    Trim = 4,
    /// First page of a shadow stack.
    SsFirst = 5,
    /// Any other page of a shadow stack.
    SsRest = 6,
}

impl PageType {
    /// All page types, by number.
    pub const ALL: [PageType; 7] = [
        PageType::Secs,
        PageType::Tcs,
        PageType::Reg,
        PageType::Va,
        PageType::Trim,
        PageType::SsFirst,
        PageType::SsRest,
    ];

    /// The type with this number; `None` if the SDM defines none.
    pub const fn from_u8(n: u8) -> Option<Self> {
        if (n as usize) < Self::ALL.len() { Some(Self::ALL[n as usize]) } else { None }
    }

    /// The SDM's name, e.g. `PT_REG`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secs => "PT_SECS",
            Self::Tcs => "PT_TCS",
            Self::Reg => "PT_REG",
            Self::Va => "PT_VA",
            Self::Trim => "PT_TRIM",
            Self::SsFirst => "PT_SS_FIRST",
            Self::SsRest => "PT_SS_REST",
        }
    }
}

flags! {
    /// SECINFO.FLAGS (*SDM vol. 3D, Layout of SECINFO.FLAGS Field*). The page
    /// type is a number in bits 8 to 15: see [`SecinfoFlags::page_type`].
    pub struct SecinfoFlags: u64 {
        /// Readable from inside the enclave.
        const R = 1 << 0;
        /// Writable from inside the enclave.
        const W = 1 << 1;
        /// Executable from inside the enclave.
        const X = 1 << 2;
        /// Waits for EACCEPT or EACCEPTCOPY after EAUG.
        const PENDING = 1 << 3;
        /// Waits for EACCEPT after EMODT.
        const MODIFIED = 1 << 4;
        /// Permissions were restricted by EMODPR; waits for EACCEPT.
        const PR = 1 << 5;
        /// All bits of the page-type number.
        const PAGE_TYPE = 0xff << 8;
    }
}

impl SecinfoFlags {
    /// The three permission bits.
    pub const RWX: SecinfoFlags = Self::R.union(Self::W).union(Self::X);

    /// Flags of a page type with the given permission and state bits.
    pub const fn new(page_type: PageType, bits: SecinfoFlags) -> Self {
        Self::from_bits_retain(bits.bits() & !Self::PAGE_TYPE.bits() | (page_type as u64) << 8)
    }

    /// Bits 8 to 15 as they stand.
    pub const fn page_type_bits(self) -> u8 {
        (self.bits() >> 8) as u8
    }

    /// The page type; `None` if the number is undefined.
    pub const fn page_type(self) -> Option<PageType> {
        PageType::from_u8(self.page_type_bits())
    }
}

/// SECINFO, 64 bytes: type and permissions of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Secinfo {
    /// Permissions, state and page type.
    pub flags: SecinfoFlags,
    /// Must be zero.
    pub reserved1: [u8; 56],
}

layout!(Secinfo, size 64, { flags @ 0, reserved1 @ 8 });

impl Secinfo {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 64;
    /// Bytes of SECINFO that EADD measures.
    pub const MEASURED: usize = 48;

    /// A SECINFO with these flags.
    pub const fn new(flags: SecinfoFlags) -> Self {
        Self { flags, reserved1: [0; 56] }
    }

    /// True if every reserved field and flag is zero.
    pub fn reserved_is_zero(&self) -> bool {
        !self.flags.has_reserved_bits() && zero(&self.reserved1)
    }
}

/// PAGEINFO, 32 bytes: the operand of the leaves that build or move pages. All
/// four are linear addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Pageinfo {
    /// Enclave linear address of the page.
    pub linaddr: u64,
    /// Where the page's content comes from or goes to.
    pub srcpge: u64,
    /// SECINFO for ECREATE, EADD and EAUG; PCMD for EWB and the ELD leaves.
    pub secinfo: u64,
    /// The SECS the page belongs to.
    pub secs: u64,
}

layout!(Pageinfo, size 32, { linaddr @ 0, srcpge @ 8, secinfo @ 16, secs @ 24 });

impl Pageinfo {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 32;
}

/// PCMD, 128 bytes: what EWB stores beside an evicted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Pcmd {
    /// Type, permissions and state of the evicted page.
    pub secinfo: Secinfo,
    /// Identifier of the enclave the page belongs to; zero for a SECS or VA page.
    pub enclaveid: u64,
    /// Must be zero.
    pub reserved1: [u8; 40],
    /// Message authentication code over page, metadata, address and version.
    pub mac: [u8; 16],
}

layout!(Pcmd, size 128, { secinfo @ 0, enclaveid @ 64, reserved1 @ 72, mac @ 112 });

impl Pcmd {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 128;

    /// True if every reserved field, SECINFO's included, is zero.
    pub fn reserved_is_zero(&self) -> bool {
        self.secinfo.reserved_is_zero() && zero(&self.reserved1)
    }
}

flags! {
    /// RDINFO.STATUS (*SDM vol. 3D, Layout of RDINFO.STATUS Structure*).
    pub struct RdinfoStatus: u64 {
        /// The SECS has child pages in the EPC.
        const CHLDPRESENT = 1 << 0;
        /// The SECS has virtual child pages in the EPC.
        const VIRTCHLDPRESENT = 1 << 1;
    }
}

/// RDINFO, 24 bytes: what ERDINFO tells of an EPC page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Rdinfo {
    /// State of a SECS page; zero for other types.
    pub status: RdinfoStatus,
    /// The flags of SECINFO, and in bit 63 whether the page is blocked.
    pub flags: u64,
    /// ENCLAVECONTEXT of the SECS, or of the page's SECS.
    pub enclavecontext: u64,
}

layout!(Rdinfo, size 24, { status @ 0, flags @ 8, enclavecontext @ 16 });

impl Rdinfo {
    /// Alignment in bytes a leaf demands of this operand.
    pub const ALIGN: u64 = 32;
    /// Bit of [`Rdinfo::flags`] that says the page is blocked.
    pub const BLOCKED: u64 = 1 << 63;
}

zero_default!(Secinfo, Pcmd);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_types_survive_the_flags() {
        for n in 0..=255u8 {
            let flags = SecinfoFlags::from_bits_retain(u64::from(n) << 8 | 0b101);
            assert_eq!(flags.page_type_bits(), n);
            assert_eq!(flags.page_type().map(|t| t as u8), (n <= 6).then_some(n));
        }
        for t in PageType::ALL {
            let flags = SecinfoFlags::new(t, SecinfoFlags::R | SecinfoFlags::PAGE_TYPE);
            assert_eq!((flags.page_type(), flags & SecinfoFlags::RWX), (Some(t), SecinfoFlags::R));
        }
    }

    #[test]
    fn every_reserved_byte_counts() {
        let mut info = Secinfo::new(SecinfoFlags::from_bits_retain(0xff3f));
        assert!(info.reserved_is_zero());
        for bit in (6..8).chain(16..64) {
            info.flags = SecinfoFlags::from_bits_retain(1 << bit);
            assert!(!info.reserved_is_zero(), "bit {bit}");
        }
        for byte in 8..Pcmd::SIZE {
            let mut pcmd = Pcmd::default();
            pcmd.as_mut_bytes()[byte] = 1;
            let reserved = (8..64).contains(&byte) || (72..112).contains(&byte);
            assert_eq!(pcmd.reserved_is_zero(), !reserved, "byte {byte}");
        }
    }
}
