//! What a processor model has of SGX; CPUID leaf 12H tells it to software.

/// Capabilities (*SDM vol. 3D, "Detection of SGX Resources"*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// SGX2: EAUG, EMODPR, EMODT, EACCEPT, EMODPE, EACCEPTCOPY.
    pub sgx2: bool,
    /// Key separation and sharing.
    pub kss: bool,
    /// Oversubscription leaves: ETRACKC, ERDINFO, ELDBC, ELDUC.
    pub oversubscription: bool,
    /// EDECCSSA.
    pub edeccssa: bool,
    /// EUPDATESVN.
    pub eupdatesvn: bool,
    /// AEX-Notify.
    pub aex_notify: bool,
    /// Bits of ATTRIBUTES.FLAGS that ECREATE accepts.
    pub attributes: u64,
    /// Bits of XFRM that ECREATE accepts.
    pub xfrm: u64,
    /// Bits of MISCSELECT that ECREATE accepts.
    pub miscselect: u32,
    /// log2 of the largest enclave outside 64-bit mode.
    pub max_size_32: u8,
    /// log2 of the largest enclave in 64-bit mode.
    pub max_size_64: u8,
}

/// ATTRIBUTES.FLAGS: DEBUG, MODE64BIT, PROVISIONKEY, EINITTOKEN_KEY.
const BASE_ATTRIBUTES: u64 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5;
/// KSS.
const KSS: u64 = 1 << 7;
/// AEXNOTIFY.
const AEXNOTIFY: u64 = 1 << 10;
/// EXINFO.
const EXINFO: u32 = 1;

impl Config {
    /// Xeon E-2288G: SGX1; `xfrm` is the XCR0 the model has. As on silicon,
    /// MISCSELECT offers EXINFO only with SGX2.
    pub fn sgx1(xfrm: u64) -> Config {
        Config {
            sgx2: false,
            kss: false,
            oversubscription: false,
            edeccssa: false,
            eupdatesvn: false,
            aex_notify: false,
            attributes: BASE_ATTRIBUTES,
            xfrm,
            miscselect: 0,
            max_size_32: 31,
            max_size_64: 36,
        }
    }

    /// Xeon Platinum 8370C: SGX2, KSS and what later microcode adds.
    pub fn sgx2(xfrm: u64) -> Config {
        Config {
            sgx2: true,
            kss: true,
            oversubscription: true,
            edeccssa: true,
            eupdatesvn: true,
            aex_notify: true,
            attributes: BASE_ATTRIBUTES | KSS | AEXNOTIFY,
            xfrm,
            miscselect: EXINFO,
            max_size_32: 31,
            max_size_64: 56,
        }
    }
}
