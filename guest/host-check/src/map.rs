//! A file as memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// Makes the file's letters capitals, through memory.
pub(crate) fn change(path: &str) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of a file of that length, at a place of the kernel's choice.
    let at = unsafe { libc::mmap(null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping has that length, and nothing else in this process uses it.
    unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>(), len) }.make_ascii_uppercase();
    // SAFETY: the mapping made above, whole; no reference to it is left.
    let done = unsafe { libc::msync(at, len, libc::MS_SYNC) | libc::munmap(at, len) };
    if done != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
