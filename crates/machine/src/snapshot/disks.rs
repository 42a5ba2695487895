//! The disks of a snapshot. A raw image is changed in place and cannot be rewound:
//! a snapshot notes what it was, and is refused once it is anything else.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::config::Disk;

/// A disk as it was when the snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// The file, by its full path.
    pub path: String,
    /// The guest may not write.
    pub read_only: bool,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was changed last: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
}

fn fail<T>(path: &Path, why: &str) -> Result<T, SnapshotError> {
    Err(SnapshotError::Disk(format!("{}: {why}", path.display())))
}

fn look(path: &Path) -> Result<Metadata, SnapshotError> {
    fs::metadata(path).or_else(|e| fail(path, &format!("cannot find it: {e}; check the path")))
}

/// Whether a snapshot of a machine with these disks can be of use.
pub(super) fn can_be_saved(disks: &[Disk], stops: bool) -> Result<(), SnapshotError> {
    if let Some(disk) = disks.iter().find(|disk| disk.overlay.is_some()) {
        return fail(&disk.path, "what the guest writes to it is in an overlay, which no snapshot keeps");
    }
    for disk in disks.iter().filter(|disk| !disk.read_only) {
        if !look(&disk.path)?.is_file() {
            return fail(
                &disk.path,
                "no snapshot with a block device that the guest writes: nothing tells when it has changed; use an image file",
            );
        }
        if !stops {
            return fail(
                &disk.path,
                "it would change after the snapshot, which is then of no use; add --stop, or attach it with `,ro`",
            );
        }
    }
    Ok(())
}

/// What the disks are now, by their full paths.
pub(super) fn record(disks: &[Disk]) -> Result<Vec<DiskRecord>, SnapshotError> {
    let one = |disk: &Disk| {
        let path = &disk.path;
        let about = look(path)?;
        let Some(text) = path.to_str() else {
            return fail(path, "a snapshot cannot keep this name; rename it to one in UTF-8");
        };
        Ok(DiskRecord {
            path: text.into(),
            read_only: disk.read_only,
            bytes: about.len(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    };
    disks.iter().map(one).collect()
}

/// Whether the disks of a machine are those of its snapshot, and as they were.
pub(super) fn check(records: &[DiskRecord], disks: &[Disk]) -> Result<(), SnapshotError> {
    let now = record(disks)?;
    if now.len() != records.len() {
        let (had, has) = (records.len(), now.len());
        return Err(SnapshotError::Machine(format!("is of a machine with {had} disks, not {has}")));
    }
    for (was, is) in records.iter().zip(&now) {
        if was.read_only != is.read_only {
            return fail(
                Path::new(&is.path),
                "it was attached otherwise when the snapshot was taken; add or leave out `,ro`",
            );
        }
        if (was.bytes, was.modified) != (is.bytes, is.modified) {
            return fail(
                Path::new(&is.path),
                "it has changed since the snapshot was taken; bring back its content of then (with its time), or take a new snapshot",
            );
        }
    }
    Ok(())
}
