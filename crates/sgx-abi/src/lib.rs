//! The Intel SGX architecture as data: structures, bits, leaf numbers and
//! result codes of *SDM vol. 3D*. Nothing here executes.
//!
//! * [`leaf`]: numbers of the ENCLS and ENCLU leaf functions
//! * [`status`]: what a leaf reports in RAX
//! * [`attributes`]: ATTRIBUTES and MISCSELECT
//! * [`page`]: PAGEINFO, SECINFO, PCMD, RDINFO and the page types
//! * [`secs`]: the enclave control structure and the part a processor keeps to itself
//! * [`thread`]: TCS and the general-register and MISC areas of an SSA frame
//! * [`launch`]: SIGSTRUCT and EINITTOKEN
//! * [`report`]: TARGETINFO, REPORTDATA and REPORT
//! * [`key`]: KEYREQUEST, key names and key policy
//!
//! Integers are little-endian and in host order, so this crate builds for
//! little-endian hosts only. The structures have the alignment of their fields;
//! the alignment that a leaf demands of its *operand* is the constant `ALIGN`.
//! Every bit pattern is a valid value of every structure, because all of them
//! are read from memory that a guest controls: flags keep unknown bits, and
//! `reserved_is_zero` says whether the reserved fields are clear.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(not(target_endian = "little"))]
compile_error!("the SDM's structures are little-endian; this host is not");

#[macro_use]
mod layout;

pub mod attributes;
pub mod key;
pub mod launch;
pub mod leaf;
pub mod page;
pub mod report;
pub mod secs;
pub mod status;
pub mod thread;

pub use attributes::{AttributeFlags, Attributes, MiscSelect};
pub use key::{KeyName, KeyPolicy, Keyrequest};
pub use launch::{Einittoken, Sigstruct};
pub use leaf::{Encls, Enclu};
pub use page::{PAGE_SIZE, PageType, Pageinfo, Pcmd, Rdinfo, RdinfoStatus, Secinfo, SecinfoFlags};
pub use report::{Report, ReportBody, Reportdata, Targetinfo};
pub use secs::{Secs, SecsPrivate};
pub use status::Status;
pub use thread::{ExInfo, ExitInfo, ExitType, GprSgx, Tcs, TcsFlags};
