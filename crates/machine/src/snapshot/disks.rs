//! The disks of a snapshot. A file that the guest changes in place, an image's or a kept
//! overlay's, cannot be rewound: a snapshot notes what it was, and is refused once it is
//! anything else. An overlay that goes with its machine is in the snapshot itself.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use devices::virtio::overlay;
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::config::{Disk, Overlay, Place};

/// A disk as it was when the snapshot was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRecord {
    /// The file.
    pub file: FileRecord,
    /// The guest may not write.
    pub read_only: bool,
    /// Where what the guest wrote is, if not in the file.
    pub overlay: Option<OverlayRecord>,
}

/// A file as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its full path.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was changed last: seconds since 1970, and nanoseconds.
    pub modified: (i64, i64),
}

/// The overlay of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayRecord {
    /// Identity of the disk below.
    pub base: [u8; 32],
    /// Where it is.
    pub place: PlaceRecord,
}

/// Where an overlay is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum PlaceRecord {
    /// In the snapshot, since it goes with its machine: from byte `at` of all overlays on.
    Held {
        /// First byte.
        at: u64,
        /// Number of bytes.
        bytes: u64,
    },
    /// In a file of its own, which is kept.
    Kept(FileRecord),
}

impl DiskRecord {
    /// The disk, as a machine has it; what its overlay holds comes from the snapshot.
    #[must_use]
    pub fn disk(&self) -> Disk {
        let path = PathBuf::from(&self.file.path);
        let place = |place: &PlaceRecord| match place {
            // where the disk is there was room then
            PlaceRecord::Held { .. } => Place::Passing(path.parent().unwrap_or(Path::new("/")).into()),
            PlaceRecord::Kept(file) => Place::Kept(PathBuf::from(&file.path)),
        };
        let overlay = self.overlay.as_ref().map(|o| Overlay { base: o.base, place: place(&o.place) });
        Disk { path, read_only: self.read_only, overlay }
    }
}

fn fail<T>(path: &Path, why: &str) -> Result<T, SnapshotError> {
    Err(SnapshotError::Disk(format!("{}: {why}", path.display())))
}

fn look(path: &Path) -> Result<Metadata, SnapshotError> {
    fs::metadata(path).or_else(|e| fail(path, &format!("cannot find it: {e}; check the path")))
}

/// The file of a disk that the guest changes, if it does.
fn written(disk: &Disk) -> Option<&Path> {
    match &disk.overlay {
        Some(Overlay { place: Place::Kept(path), .. }) => Some(path),
        Some(Overlay { place: Place::Passing(_), .. }) => None,
        None => (!disk.read_only).then_some(&disk.path),
    }
}

/// Whether a snapshot of a machine with these disks can be of use.
pub(super) fn can_be_saved(disks: &[Disk], stops: bool) -> Result<(), SnapshotError> {
    for disk in disks {
        let written = written(disk);
        if (written.is_some() || disk.overlay.is_some()) && !look(&disk.path)?.is_file() {
            return fail(
                &disk.path,
                "no snapshot with a block device that the guest writes: nothing tells when it has changed; use an image file",
            );
        }
        if let (Some(path), false) = (written, stops) {
            return fail(
                path,
                "it would change after the snapshot, which is then of no use; add --stop, or attach it so that \
                 the guest's changes are not kept (`,ro`, no --overlay)",
            );
        }
    }
    Ok(())
}

fn file(path: &Path) -> Result<FileRecord, SnapshotError> {
    let about = look(path)?;
    let Some(text) = path.to_str() else {
        return fail(path, "a snapshot cannot keep this name; rename it to one in UTF-8");
    };
    Ok(FileRecord { path: text.into(), bytes: about.len(), modified: (about.mtime(), about.mtime_nsec()) })
}

/// What the disks are now, by their full paths.
pub(super) fn record(disks: &[Disk]) -> Result<Vec<DiskRecord>, SnapshotError> {
    let mut at = 0;
    let mut one = |disk: &Disk| {
        let path = &disk.path;
        let file_record = file(path)?;
        let overlay = match &disk.overlay {
            None => None,
            Some(Overlay { base, place: Place::Kept(path) }) => {
                Some(OverlayRecord { base: *base, place: PlaceRecord::Kept(file(path)?) })
            }
            Some(Overlay { base, place: Place::Passing(_) }) => {
                let bytes = overlay::file_len(file_record.bytes)
                    .or_else(|e| fail(path, &format!("its overlay {e}")))?;
                let place = PlaceRecord::Held { at, bytes };
                at += bytes;
                Some(OverlayRecord { base: *base, place })
            }
        };
        Ok(DiskRecord { file: file_record, read_only: disk.read_only, overlay })
    };
    disks.iter().map(&mut one).collect()
}

/// Bytes of all overlays that the snapshot holds.
pub(super) fn held(records: &[DiskRecord]) -> u64 {
    let bytes = |record: &DiskRecord| match record.overlay {
        Some(OverlayRecord { place: PlaceRecord::Held { bytes, .. }, .. }) => bytes,
        _ => 0,
    };
    records.iter().map(bytes).fold(0, u64::saturating_add)
}

/// Whether the disks of a machine are those of its snapshot, and as they were.
pub(super) fn check(records: &[DiskRecord], disks: &[Disk]) -> Result<(), SnapshotError> {
    let now = record(disks)?;
    if now.len() != records.len() {
        let (had, has) = (records.len(), now.len());
        return Err(SnapshotError::Machine(format!("is of a machine with {had} disks, not {has}")));
    }
    let unchanged = |was: &FileRecord, is: &FileRecord| {
        if (was.bytes, was.modified) == (is.bytes, is.modified) {
            return Ok(());
        }
        fail(
            Path::new(&is.path),
            "it has changed since the snapshot was taken; bring back its content of then (with its time), or take a new snapshot",
        )
    };
    for (was, is) in records.iter().zip(&now) {
        let kind = |record: &DiskRecord| {
            record.overlay.as_ref().map(|o| (o.base, matches!(o.place, PlaceRecord::Kept(_))))
        };
        if (was.read_only, kind(was)) != (is.read_only, kind(is)) {
            return fail(
                Path::new(&is.file.path),
                "it was attached otherwise when the snapshot was taken; add or leave out `,ro` or its overlay",
            );
        }
        unchanged(&was.file, &is.file)?;
        match (&was.overlay, &is.overlay) {
            (
                Some(OverlayRecord { place: PlaceRecord::Kept(was), .. }),
                Some(OverlayRecord { place: PlaceRecord::Kept(is), .. }),
            ) => unchanged(was, is)?,
            // the same place for each, or the file is none of ours
            (Some(was), Some(is)) if was != is => return Err(SnapshotError::Damaged("places of overlays")),
            _ => {}
        }
    }
    Ok(())
}
