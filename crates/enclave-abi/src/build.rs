//! How an enclave is built, and what the tool does with the ELF file.
//!
//! An enclave is a binary package (`#![no_std]`, `#![no_main]`) for the host's own
//! target, by the stock stable compiler, with [`FLAGS`] for [`TARGET`]. The target is
//! named, so that cargo keeps the flags from build scripts and macros.
//!
//! From the ELF file the tool takes
//!
//! * its `PT_LOAD` segments, as pages of the image, with the segments' own permissions
//!   and content, measured; the first begins at address 0, and no page belongs to two
//!   of different permissions. The segment that `PT_GNU_RELRO` covers stays writable.
//! * `e_entry`, which is the entry point of every TCS;
//! * `DT_RELA` and `DT_RELASZ`, for [`crate::Image`]. Only `R_X86_64_RELATIVE` is
//!   accepted, at 8 bytes inside a writable segment: the enclave applies them itself at
//!   its first entry, to whatever base the host gave it. Thus measured pages do not
//!   depend on the base.
//! * the section [`LAYOUT_SECTION`], which holds a [`crate::Layout`] that is zero but
//!   for its magic number and version. The tool overwrites it with the true one, in the
//!   image's page, before it measures.
//!
//! No `PT_INTERP`, `PT_TLS` or `DT_NEEDED`: there is nobody who would serve them.

/// The only target.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Flags for `rustc`, for [`TARGET`] (e.g. by `CARGO_ENCODED_RUSTFLAGS`).
///
/// The processor's features are fixed: what asks CPUID instead would fault, as the
/// instruction is illegal in an enclave. They are those of the oldest processor with
/// flexible launch control and of every model of Kluis; AVX is not among them, so that
/// XFRM is [`XFRM`]. `getrandom` asks the runtime, not an operating system.
pub const FLAGS: &[&str] = &[
    "-Cpanic=abort",
    "-Crelocation-model=pie",
    "-Ctarget-feature=+crt-static,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand,+rdseed",
    "-Cforce-unwind-tables=no",
    "--check-cfg=cfg(enclave_test)",
    "--cfg=getrandom_backend=\"custom\"",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-Wl,-e,enclave_entry,-z,noexecstack,-z,separate-code,--build-id=none,--gc-sections",
];

/// What cargo's profile `release` is for an enclave, whatever its manifest says: arguments of
/// `--config`.
pub const PROFILE: &[&str] = &[
    "profile.release.panic='abort'",
    "profile.release.codegen-units=1",
    "profile.release.incremental=false",
    "profile.release.lto='fat'",
    // for the debugger; not part of what is measured
    "profile.release.debug='full'",
];

/// `--cfg` that is added for an enclave's program where it is built for its tests: functions
/// with `#[enclave_test]` exist only then. What it is linked with is built without.
pub const TEST_CFG: &str = "enclave_test";

/// Name of the section with the [`crate::Layout`].
pub const LAYOUT_SECTION: &str = ".enclave.layout";

/// XFRM of an enclave: x87 and SSE.
pub const XFRM: u64 = sgx_abi::Attributes::XFRM_LEGACY;
