//! A *platform*: the secrets that a manufacturer fuses into one processor
//! package, here owned by the user and kept in a folder of theirs.
//!
//! Machines on one platform unseal each other's data, as on one physical
//! processor; machines on another platform do not. Losing the folder loses all
//! data that enclaves sealed on it: see [`Platform::backup`].
//!
//! * [`roots`]: the secrets, the security version and its one-way chain
//! * [`books`]: what their maker keeps beside them
//! * [`format`](mod@format): their file
//! * [`folder`]: permissions, locks, atomic changes
//! * [`backup`]: the encrypted copy
//! * [`platform`](mod@platform): all of it as one thing to open, make, change, copy and bring back
//!
//! They protect enclaves from the machine's own software, not from whoever
//! controls the process; and they are no Intel root.
#![forbid(unsafe_code)]

pub mod backup;
pub mod books;
pub mod error;
pub mod folder;
pub mod format;
pub mod platform;
pub mod roots;

pub use backup::Passphrase;
pub use books::{Advisory, Books, Revocation};
pub use error::PlatformError;
pub use folder::default_folder;
pub use platform::{Info, Platform, Restored, Update};
pub use roots::{CpuSvn, Fused, Roots, svn_step};
