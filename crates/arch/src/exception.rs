//! Exception vectors and the exception value (*SDM vol. 3A §6.3, §6.13, §6.15*).

/// The processor-defined interrupt vectors (*SDM vol. 3A table 6-1*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Vector {
    DivideError = 0,
    Debug = 1,
    Nmi = 2,
    Breakpoint = 3,
    Overflow = 4,
    BoundRange = 5,
    InvalidOpcode = 6,
    DeviceNotAvailable = 7,
    DoubleFault = 8,
    InvalidTss = 10,
    SegmentNotPresent = 11,
    StackFault = 12,
    GeneralProtection = 13,
    PageFault = 14,
    X87 = 16,
    AlignmentCheck = 17,
    MachineCheck = 18,
    Simd = 19,
    ControlProtection = 21,
}

impl Vector {
    /// True if delivery pushes an error code (*SDM vol. 3A table 6-1*).
    pub const fn has_error_code(self) -> bool {
        matches!(
            self,
            Vector::DoubleFault
                | Vector::InvalidTss
                | Vector::SegmentNotPresent
                | Vector::StackFault
                | Vector::GeneralProtection
                | Vector::PageFault
                | Vector::AlignmentCheck
                | Vector::ControlProtection
        )
    }

    /// True for the vectors that combine to a double fault with each other
    /// (*SDM vol. 3A table 6-4*, "contributory").
    pub const fn is_contributory(self) -> bool {
        matches!(
            self,
            Vector::DivideError
                | Vector::InvalidTss
                | Vector::SegmentNotPresent
                | Vector::StackFault
                | Vector::GeneralProtection
                | Vector::ControlProtection
        )
    }

    /// The SDM's mnemonic, such as `#GP`.
    pub const fn mnemonic(self) -> &'static str {
        match self {
            Vector::DivideError => "#DE",
            Vector::Debug => "#DB",
            Vector::Nmi => "NMI",
            Vector::Breakpoint => "#BP",
            Vector::Overflow => "#OF",
            Vector::BoundRange => "#BR",
            Vector::InvalidOpcode => "#UD",
            Vector::DeviceNotAvailable => "#NM",
            Vector::DoubleFault => "#DF",
            Vector::InvalidTss => "#TS",
            Vector::SegmentNotPresent => "#NP",
            Vector::StackFault => "#SS",
            Vector::GeneralProtection => "#GP",
            Vector::PageFault => "#PF",
            Vector::X87 => "#MF",
            Vector::AlignmentCheck => "#AC",
            Vector::MachineCheck => "#MC",
            Vector::Simd => "#XM",
            Vector::ControlProtection => "#CP",
        }
    }
}

/// An exception the guest will see: eight bytes, `Copy`, no unwinding.
///
/// The faulting linear address of a page fault, and the DR6 bits of a debug
/// exception, are left in the processor's state by whoever raises it; CR2 and
/// DR6 change only at delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which exception.
    pub vector: Vector,
    /// Error code; pushed only where [`Vector::has_error_code`] says so.
    pub error: u32,
}

impl Exception {
    /// `#UD`.
    pub const UD: Self = Self::new(Vector::InvalidOpcode, 0);
    /// `#GP(0)`.
    pub const GP0: Self = Self::new(Vector::GeneralProtection, 0);
    /// `#SS(0)`.
    pub const SS0: Self = Self::new(Vector::StackFault, 0);
    /// `#NM`.
    pub const NM: Self = Self::new(Vector::DeviceNotAvailable, 0);
    /// `#DE`.
    pub const DE: Self = Self::new(Vector::DivideError, 0);
    /// `#MF`.
    pub const MF: Self = Self::new(Vector::X87, 0);
    /// `#XM`.
    pub const XM: Self = Self::new(Vector::Simd, 0);
    /// `#AC(0)`.
    pub const AC0: Self = Self::new(Vector::AlignmentCheck, 0);
    /// `#DB`.
    pub const DB: Self = Self::new(Vector::Debug, 0);

    /// An exception with an error code.
    pub const fn new(vector: Vector, error: u32) -> Self {
        Self { vector, error }
    }

    /// `#GP(error)`.
    pub const fn gp(error: u32) -> Self {
        Self::new(Vector::GeneralProtection, error)
    }

    /// `#PF(error)`.
    pub const fn pf(error: u32) -> Self {
        Self::new(Vector::PageFault, error)
    }
}
