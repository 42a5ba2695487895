//! The SGX architecture as state machines (*SDM vol. 3D*), behind one small
//! [`port`] to the logical processor that executes a leaf.
//!
//! * [`package`]: what all processors of a machine share: [`epcm`], [`enclave`]s, key [`keys`], the encrypted EPC
//! * [`access`]: may this access use this EPC page?
//! * [`thread`]: a logical processor in enclave mode; [`aex`]: how an event takes it out
//! * [`encls`], [`enclu`]: the leaves, one file each, their checks by name ([`rule`])
//! * [`measure`], [`sigstruct`], [`keys`]: measurement, signatures, key derivation
//! * [`claim`]: which leaves may use a page at the same time
//! * [`debugger`]: what a debugger of the machine reaches of debug enclaves
//! * [`trace`]: counters and the record of every leaf; [`inspect`]: what an operator may see
#![forbid(unsafe_code)]

/// True if the bug at a [site](planted::Site) is planted; only in builds that can.
#[cfg(feature = "planted")]
#[macro_export]
#[doc(hidden)]
macro_rules! planted {
    ($site:ident) => {
        $crate::planted::is_left_out($crate::planted::Site::$site)
    };
}
/// False: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
#[macro_export]
#[doc(hidden)]
macro_rules! planted {
    ($site:ident) => {
        false
    };
}

pub mod access;
pub mod aex;
pub mod claim;
pub mod config;
pub mod debugger;
pub mod enclave;
pub mod encls;
pub mod enclu;
pub mod epcm;
pub mod inspect;
pub mod keys;
pub mod leaf;
pub mod measure;
pub mod package;
#[cfg(feature = "planted")]
pub mod planted;
pub mod port;
pub mod rule;
pub mod sigstruct;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod thread;
pub mod trace;

pub use config::Config;
pub use epcm::EpcPage;
pub use leaf::{Done, Leaf};
pub use package::Package;
pub use port::Port;
pub use thread::Thread;
