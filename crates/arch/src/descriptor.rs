//! Segment and gate descriptors (*SDM vol. 3A §3.4.5, §5.8.3, §6.14*).

/// Attributes of a segment as the hidden part of a segment register keeps
/// them: bits 8–15 and 20–23 of a descriptor's high doubleword, in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Attr(pub u32);

impl Attr {
    /// Bits of the high doubleword that are attributes.
    pub const MASK: u32 = 0x00f0_ff00;
    /// A flat, accessed, present 64-bit code segment of privilege level 0.
    pub const CODE64: Attr = Attr(0x00a0_9b00);
    /// The same of 32-bit code.
    pub const CODE32: Attr = Attr(0x00c0_9b00);
    /// A flat, accessed, present, writable data segment of privilege level 0.
    pub const DATA: Attr = Attr(0x00c0_9300);
    /// A busy 64-bit TSS.
    pub const TSS_BUSY: Attr = Attr(0x0000_8b00);
    /// An LDT.
    pub const LDT: Attr = Attr(0x0000_8200);

    /// The four type bits.
    #[inline]
    pub const fn kind(self) -> u32 {
        (self.0 >> 8) & 15
    }
    /// S: code or data, not a system segment.
    #[inline]
    pub const fn is_user(self) -> bool {
        self.0 & 1 << 12 != 0
    }
    /// Descriptor privilege level.
    #[inline]
    pub const fn dpl(self) -> u8 {
        (self.0 >> 13 & 3) as u8
    }
    /// P: present.
    #[inline]
    pub const fn present(self) -> bool {
        self.0 & 1 << 15 != 0
    }
    /// L: 64-bit code segment.
    #[inline]
    pub const fn long(self) -> bool {
        self.0 & 1 << 21 != 0
    }
    /// D/B: default operand size, stack size.
    #[inline]
    pub const fn big(self) -> bool {
        self.0 & 1 << 22 != 0
    }
    /// G: limit counts 4 KiB pages.
    #[inline]
    pub const fn granular(self) -> bool {
        self.0 & 1 << 23 != 0
    }
    /// A code segment.
    #[inline]
    pub const fn is_code(self) -> bool {
        self.is_user() && self.kind() & 8 != 0
    }
    /// A conforming code segment.
    #[inline]
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 4 != 0
    }
    /// May be written: a data segment with W.
    #[inline]
    pub const fn is_writable(self) -> bool {
        self.is_user() && self.kind() & 0b1010 == 0b0010
    }
    /// May be read: any data segment, or a code segment with R.
    #[inline]
    pub const fn is_readable(self) -> bool {
        self.is_user() && self.kind() & 0b1010 != 0b1000
    }
    /// An expand-down data segment.
    #[inline]
    pub const fn is_expand_down(self) -> bool {
        self.is_user() && self.kind() & 0b1100 == 0b0100
    }
}

/// An eight-byte segment descriptor, as in a GDT or LDT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Attributes.
    #[inline]
    pub const fn attr(self) -> Attr {
        Attr((self.0 >> 32) as u32 & Attr::MASK)
    }
    /// Base address, its low 32 bits.
    #[inline]
    pub const fn base(self) -> u32 {
        let (low, high) = (self.0 as u32, (self.0 >> 32) as u32);
        (low >> 16) | (high & 0xff) << 16 | (high & 0xff00_0000)
    }
    /// Limit in bytes, inclusive.
    #[inline]
    pub const fn limit(self) -> u32 {
        let raw = (self.0 as u32 & 0xffff) | (self.0 >> 32) as u32 & 0xf_0000;
        if self.attr().granular() { raw << 12 | 0xfff } else { raw }
    }
    /// Builds a descriptor; `limit` is in bytes, or in pages if G is in `attr`.
    #[inline]
    pub const fn new(base: u32, limit: u32, attr: Attr) -> Self {
        let low = (base << 16) | (limit & 0xffff);
        let high = (base >> 16 & 0xff) | (base & 0xff00_0000) | (limit & 0xf_0000) | attr.0;
        Descriptor((high as u64) << 32 | low as u64)
    }
}

/// System descriptor types, by their names outside IA-32e mode, which has none of 16 bits (*SDM vol. 3A table 3-2*).
#[allow(missing_docs)]
pub mod system_type {
    pub const TSS16: u32 = 1;
    pub const LDT: u32 = 2;
    pub const TSS16_BUSY: u32 = 3;
    pub const CALL_GATE16: u32 = 4;
    pub const TASK_GATE: u32 = 5;
    pub const TSS: u32 = 9;
    pub const TSS_BUSY: u32 = 11;
    pub const CALL_GATE: u32 = 12;
    pub const INTERRUPT_GATE: u32 = 14;
    pub const TRAP_GATE: u32 = 15;
}
