//! What a leaf reports in RAX.
//!
//! *SDM vol. 3D, Error or Information Codes for Intel SGX Instructions*; the
//! codes of EUPDATESVN as in Linux's `arch/x86/include/asm/sgx.h`.

macro_rules! status {
    ($($(#[$meta:meta])* $variant:ident = $n:literal $name:literal $text:literal),* $(,)?) => {
        /// Result code of a leaf. Anything but [`Status::Success`] comes with
        /// RFLAGS.ZF (or, for some leaves, CF) set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Status { $($(#[$meta])* #[doc = $text] $variant = $n),* }

        impl Status {
            /// All codes, in ascending order.
            pub const ALL: &'static [Status] = &[$(Self::$variant),*];

            /// The code with this number; `None` if none is known.
            pub const fn from_u32(n: u32) -> Option<Self> {
                match n { $($n => Some(Self::$variant),)* _ => None }
            }

            /// The SDM's name, e.g. `SGX_INVALID_SIGNATURE`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The condition in words.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

status! {
    Success = 0 "SGX_SUCCESS" "no error",
    InvalidSigStruct = 1 "SGX_INVALID_SIG_STRUCT" "SIGSTRUCT holds an invalid value",
    InvalidAttribute = 2 "SGX_INVALID_ATTRIBUTE" "the enclave's attributes do not allow this",
    Blkstate = 3 "SGX_BLKSTATE" "the page is blocked already",
    InvalidMeasurement = 4 "SGX_INVALID_MEASUREMENT" "measurement or signer differ from what was signed",
    Notblockable = 5 "SGX_NOTBLOCKABLE" "a page of this type cannot be blocked",
    PgInvld = 6 "SGX_PG_INVLD" "the page is not valid",
    EpcPageConflict = 7 "SGX_EPC_PAGE_CONFLICT" "another processor's leaf uses the page",
    InvalidSignature = 8 "SGX_INVALID_SIGNATURE" "SIGSTRUCT's signature does not verify",
    MacCompareFail = 9 "SGX_MAC_COMPARE_FAIL" "the evicted page or its metadata were changed",
    PageNotBlocked = 10 "SGX_PAGE_NOT_BLOCKED" "the page is not blocked",
    NotTracked = 11 "SGX_NOT_TRACKED" "a processor may still hold a translation of the page",
    VaSlotOccupied = 12 "SGX_VA_SLOT_OCCUPIED" "the version-array slot is in use",
    ChildPresent = 13 "SGX_CHILD_PRESENT" "the SECS still has pages in the EPC",
    EnclaveAct = 14 "SGX_ENCLAVE_ACT" "a processor is inside the enclave",
    EntryepochLocked = 15 "SGX_ENTRYEPOCH_LOCKED" "the enclave's entry epoch is being changed",
    InvalidEinittoken = 16 "SGX_INVALID_EINITTOKEN" "the token, or the lack of one, does not permit the launch",
    PrevTrkIncmpl = 17 "SGX_PREV_TRK_INCMPL" "the previous tracking cycle is not complete",
    PgIsSecs = 18 "SGX_PG_IS_SECS" "the page is a SECS",
    PageAttributesMismatch = 19 "SGX_PAGE_ATTRIBUTES_MISMATCH" "the page is not what SECINFO says",
    PageNotModifiable = 20 "SGX_PAGE_NOT_MODIFIABLE" "the page waits for the enclave's acceptance",
    PageNotDebuggable = 21 "SGX_PAGE_NOT_DEBUGGABLE" "the page waits for the enclave's acceptance",
    InvalidCounter = 25 "SGX_INVALID_COUNTER" "the count of virtual children would go out of range",
    PgNonepc = 26 "SGX_PG_NONEPC" "the address is not in the EPC",
    TrackNotRequired = 27 "SGX_TRACK_NOT_REQUIRED" "a page of this type needs no tracking",
    InsufficientEntropy = 29 "SGX_INSUFFICIENT_ENTROPY" "no entropy for new paging keys",
    EpcNotReady = 30 "SGX_EPC_NOT_READY" "the EPC still holds valid pages",
    NoUpdate = 31 "SGX_NO_UPDATE" "CPUSVN is up to date",
    InvalidCpusvn = 32 "SGX_INVALID_CPUSVN" "CPUSVN is beyond that of the processor",
    InvalidIsvsvn = 64 "SGX_INVALID_ISVSVN" "ISVSVN or CONFIGSVN is beyond that of the enclave",
    UnmaskedEvent = 128 "SGX_UNMASKED_EVENT" "an event is pending; try again",
    InvalidKeyname = 256 "SGX_INVALID_KEYNAME" "no such key",
}

impl Status {
    /// Older editions' name of [`Status::EpcPageConflict`].
    pub const LOCKFAIL: Status = Status::EpcPageConflict;
    /// EINIT's name of [`Status::InvalidAttribute`] for a mismatch with the token.
    pub const INVALID_EINIT_ATTRIBUTE: Status = Status::InvalidAttribute;

    /// The value that goes into RAX.
    pub const fn rax(self) -> u64 {
        self as u64
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({}): {}", self.name(), *self as u32, self.describe())
    }
}

impl core::error::Error for Status {}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn codes_are_ascending_and_found_again() {
        for pair in Status::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for &s in Status::ALL {
            assert_eq!(Status::from_u32(s as u32), Some(s));
            assert!(s.name().starts_with("SGX_"));
        }
        assert_eq!(Status::from_u32(22), None);
        assert_eq!(
            Status::InvalidSignature.to_string(),
            "SGX_INVALID_SIGNATURE (8): SIGSTRUCT's signature does not verify"
        );
    }
}
