//! Disks on the host: raw images, with overlays above them.

use std::fs::OpenOptions;

use devices::virtio::blk::{BlockBackend, FileBackend};
use devices::virtio::overlay::OverlayBackend;

use crate::config::{Disk, MachineError, Place};
use crate::snapshot::Held;

/// Opens a disk, and its overlay if it has one; below that, what a snapshot holds of it.
pub(crate) fn open(disk: &Disk, held: Option<&Held>) -> Result<Box<dyn BlockBackend>, MachineError> {
    let Some(overlay) = &disk.overlay else { return Ok(Box::new(image(disk)?)) };
    let mut base: Box<dyn BlockBackend> = Box::new(image(&Disk { read_only: true, ..disk.clone() })?);
    if let Some(Held { file, start }) = held {
        let fail = |why: String| MachineError::Disk { path: disk.path.clone(), reason: why };
        let file = file.try_clone().map_err(|e| fail(e.to_string()))?;
        let below = OverlayBackend::held(base, &overlay.base, file, *start);
        base = Box::new(below.map_err(|e| fail(format!("what the snapshot holds of it {e}")))?);
    }
    let (path, kept) = match &overlay.place {
        Place::Kept(path) => (path, true),
        Place::Passing(folder) => (folder, false),
    };
    let fail = |reason: String| MachineError::Disk { path: path.clone(), reason };
    let file = if kept {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|e| fail(format!("cannot open: {e}; check the path")))?;
        if file.try_lock().is_err() {
            return Err(fail("is in use by another machine; stop that one, or use a copy".into()));
        }
        file
    } else {
        tempfile::tempfile_in(path)
            .map_err(|e| fail(format!("cannot hold what the machine writes: {e}; check its folder")))?
    };
    let backend = OverlayBackend::new(base, &overlay.base, file, kept).map_err(|e| fail(e.to_string()))?;
    Ok(Box::new(backend))
}

/// Opens a disk image: a regular file or block device of whole sectors,
/// locked against other users.
fn image(disk: &Disk) -> Result<FileBackend, MachineError> {
    let fail = |reason: String| MachineError::Disk { path: disk.path.clone(), reason };
    let file = OpenOptions::new().read(true).write(!disk.read_only).open(&disk.path).map_err(|e| {
        fail(format!("cannot open: {e}; check the path, or add `,ro` if it may only be read"))
    })?;
    let kind = file.metadata().map_err(|e| fail(e.to_string()))?;
    if kind.is_dir() {
        return Err(fail("is a directory; give a raw disk image".into()));
    }
    let locked = if disk.read_only { file.try_lock_shared() } else { file.try_lock() };
    if locked.is_err() {
        return Err(fail("is in use by another machine; stop that one, or use a copy".into()));
    }
    if kind.is_file() && (kind.len() == 0 || kind.len() % 512 != 0) {
        return Err(fail(format!("has {} bytes, not a multiple of 512; give a raw disk image", kind.len())));
    }
    FileBackend::new(file, disk.read_only).map_err(|e| fail(e.to_string()))
}
