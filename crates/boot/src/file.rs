//! Reading image files, bounded.

use crate::BootError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest kernel file accepted, in bytes (a debug `vmlinux` can be large).
pub const MAX_KERNEL_FILE: u64 = 1 << 30;
/// Largest initrd file accepted, in bytes; `initrd_addr_max` allows no more.
pub const MAX_INITRD_FILE: u64 = 2 << 30;

/// Reads a kernel image file.
///
/// # Errors
/// Missing, unreadable, not a regular file, or over [`MAX_KERNEL_FILE`].
pub fn read_kernel(path: &Path) -> Result<Vec<u8>, BootError> {
    read("kernel", path, MAX_KERNEL_FILE)
}

/// Reads an initrd file.
///
/// # Errors
/// Missing, unreadable, not a regular file, or over [`MAX_INITRD_FILE`].
pub fn read_initrd(path: &Path) -> Result<Vec<u8>, BootError> {
    read("initrd", path, MAX_INITRD_FILE)
}

/// Reads a multiboot module's file.
///
/// # Errors
/// Missing, unreadable, not a regular file, or over [`MAX_INITRD_FILE`].
pub fn read_module(path: &Path) -> Result<Vec<u8>, BootError> {
    read("module", path, MAX_INITRD_FILE)
}

fn read(what: &'static str, path: &Path, max: u64) -> Result<Vec<u8>, BootError> {
    let fail = |source| BootError::File { what, path: path.to_owned(), source };
    // Metadata first: opening a FIFO would wait for a writer.
    let meta = std::fs::metadata(path).map_err(fail)?;
    if !meta.is_file() {
        return Err(BootError::NotAFile { what, path: path.to_owned() });
    }
    let mut bytes = Vec::with_capacity(meta.len().min(max) as usize);
    // The file may grow while it is read; the cap holds all the same.
    let read = File::open(path).and_then(|f| f.take(max + 1).read_to_end(&mut bytes)).map_err(fail)?;
    if read as u64 > max {
        return Err(BootError::FileTooLarge { what, path: path.to_owned(), max });
    }
    Ok(bytes)
}
