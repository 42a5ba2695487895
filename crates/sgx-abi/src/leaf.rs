//! Numbers of the leaf functions, as EAX selects them.
//!
//! *SDM vol. 3D, Intel SGX Instruction References: ENCLS, ENCLU.*

macro_rules! leaves {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $leaf:ident = $n:literal $text:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $leaf = $n),* }

        impl $name {
            /// All leaves, by number.
            pub const ALL: &'static [$name] = &[$(Self::$leaf),*];

            /// The leaf that EAX selects; `None` if the SDM defines none.
            pub const fn from_u32(n: u32) -> Option<Self> {
                match n { $($n => Some(Self::$leaf),)* _ => None }
            }

            /// The SDM's name of the leaf.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$leaf => $text),* }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

leaves! {
    /// Leaves of ENCLS, the privileged instruction.
    Encls {
        /// Create an enclave's SECS page.
        Ecreate = 0x00 "ECREATE",
        /// Add a page to an enclave being built.
        Eadd = 0x01 "EADD",
        /// Check signature and measurement; make the enclave runnable.
        Einit = 0x02 "EINIT",
        /// Remove a page from the EPC.
        Eremove = 0x03 "EREMOVE",
        /// Read from a debug enclave.
        Edbgrd = 0x04 "EDBGRD",
        /// Write to a debug enclave.
        Edbgwr = 0x05 "EDBGWR",
        /// Measure 256 bytes of a page.
        Eextend = 0x06 "EEXTEND",
        /// Load an evicted page, blocked.
        Eldb = 0x07 "ELDB",
        /// Load an evicted page, unblocked.
        Eldu = 0x08 "ELDU",
        /// Block a page from new translations.
        Eblock = 0x09 "EBLOCK",
        /// Make a version-array page.
        Epa = 0x0a "EPA",
        /// Evict a page to ordinary memory.
        Ewb = 0x0b "EWB",
        /// Start tracking of processors inside an enclave.
        Etrack = 0x0c "ETRACK",
        /// Add a zeroed page to a running enclave.
        Eaug = 0x0d "EAUG",
        /// Restrict the permissions of a page.
        Emodpr = 0x0e "EMODPR",
        /// Change the type of a page.
        Emodt = 0x0f "EMODT",
        /// Read type and state of a page.
        Erdinfo = 0x10 "ERDINFO",
        /// As ETRACK, with conflicts reported as codes.
        Etrackc = 0x11 "ETRACKC",
        /// As ELDB, with conflicts reported as codes.
        Eldbc = 0x12 "ELDBC",
        /// As ELDU, with conflicts reported as codes.
        Elduc = 0x13 "ELDUC",
        /// Bring CPUSVN up to the running microcode.
        Eupdatesvn = 0x18 "EUPDATESVN",
    }
}

leaves! {
    /// Leaves of ENCLU, the user instruction.
    Enclu {
        /// Make a report for another enclave.
        Ereport = 0x00 "EREPORT",
        /// Derive a key.
        Egetkey = 0x01 "EGETKEY",
        /// Enter an enclave.
        Eenter = 0x02 "EENTER",
        /// Enter an enclave where it was interrupted.
        Eresume = 0x03 "ERESUME",
        /// Leave an enclave.
        Eexit = 0x04 "EEXIT",
        /// Accept a change the operating system made to a page.
        Eaccept = 0x05 "EACCEPT",
        /// Extend the permissions of a page.
        Emodpe = 0x06 "EMODPE",
        /// Accept a pending page and fill it.
        Eacceptcopy = 0x07 "EACCEPTCOPY",
        /// Step down one SSA frame from inside.
        Edeccssa = 0x09 "EDECCSSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        for n in 0..0x100 {
            assert_eq!(Encls::from_u32(n).map(|l| l as u32), (n < 0x14 || n == 0x18).then_some(n));
            assert_eq!(Enclu::from_u32(n).map(|l| l as u32), (n < 8 || n == 9).then_some(n));
        }
        assert_eq!((Encls::ALL.len(), Enclu::ALL.len()), (21, 9));
        assert_eq!((Encls::Eldu.name(), Enclu::Edeccssa.name()), ("ELDU", "EDECCSSA"));
    }
}
