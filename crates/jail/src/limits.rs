//! Limits of resources, for the whole process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::JailError;

/// Files, sockets and connections open at a time.
pub const OPEN_FILES: u64 = 4096;

/// No core files (a guest's memory is nobody else's), and no more than so many open
/// files, also for root.
///
/// # Errors
/// The host refuses.
pub fn confine(open_files: u64) -> Result<(), JailError> {
    lower(Resource::Core, 0, "core files")?;
    lower(Resource::Nofile, open_files, "open files")
}

fn lower(resource: Resource, to: u64, what: &'static str) -> Result<(), JailError> {
    let now = getrlimit(resource);
    let limit = Some(now.maximum.map_or(to, |most| most.min(to)));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })
        .map_err(|e| JailError::Limit { what, reason: e.into() })
}
