//! Memory at fixed addresses for tested instructions.

use std::io::Error;
use std::ptr;

use super::NativeError;
use crate::area::{self, CODE, CODE_PAGES, CONTROL, DATA, DATA_BYTES, HOLE, MAPPED, Page};

const PAGE: usize = 4096;
const CONTROL_BYTES: usize = 8192;

/// The control block, code pages and data window, mapped; and a writable view
/// of the data pages, whatever tested instructions may do there.
pub struct Memory {
    data: *mut u8,
}

impl Memory {
    /// Maps everything.
    pub(super) fn new() -> Result<Self, NativeError> {
        // SAFETY: system calls that touch no memory in use: the fixed mappings
        // are made with MAP_FIXED_NOREPLACE, or over the reservation made so
        // by this very function.
        unsafe {
            let mut memory = Memory { data: ptr::null_mut() };
            let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            let fixed = libc::MAP_FIXED_NOREPLACE;
            map("the control block", CONTROL, CONTROL_BYTES, rw, anonymous | fixed, -1, 0)?;
            let rwx = rw | libc::PROT_EXEC;
            map("the code pages", CODE, CODE_PAGES as usize * PAGE, rwx, anonymous | fixed, -1, 0)?;
            let window = (DATA_BYTES + 2 * HOLE) as usize;
            map("the data window", DATA - HOLE, window, libc::PROT_NONE, anonymous | fixed, -1, 0)?;
            let fd = libc::memfd_create(c"kluis-difftest".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 || libc::ftruncate(fd, (MAPPED * PAGE) as i64) != 0 {
                return Err(NativeError::System { call: "memfd_create", reason: Error::last_os_error() });
            }
            for (i, (address, page)) in area::mapped_pages().enumerate() {
                let rights = if page == Page::Rw { rw } else { libc::PROT_READ };
                let shared = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
                map("a data page", address, PAGE, rights, shared, fd, i * PAGE)?;
                // Present from the start: error codes tell the difference.
                (address as *const u8).read_volatile();
            }
            let view = libc::mmap(ptr::null_mut(), MAPPED * PAGE, rw, libc::MAP_SHARED, fd, 0);
            libc::close(fd);
            if view == libc::MAP_FAILED {
                return Err(NativeError::System { call: "mmap", reason: Error::last_os_error() });
            }
            memory.data = view.cast();
            Ok(memory)
        }
    }

    /// The mapped data pages, one after the other.
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: mapped in `new`; tested instructions, which write the same
        // memory under other addresses, run only while `Native` is borrowed
        // exclusively and so no such slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.data, MAPPED * PAGE) }
    }

    /// Writes code.
    pub fn write_code(&mut self, address: u64, bytes: &[u8]) {
        assert!(address >= CODE && address + bytes.len() as u64 <= CODE + CODE_PAGES * 4096);
        // SAFETY: inside the writable code pages.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let unmap = |address: u64, bytes: usize| {
            // SAFETY: mapped in `new` and used no more.
            unsafe { libc::munmap(address as *mut libc::c_void, bytes) };
        };
        if !self.data.is_null() {
            unmap(self.data as u64, MAPPED * PAGE);
            unmap(CONTROL, CONTROL_BYTES);
            unmap(CODE, CODE_PAGES as usize * PAGE);
            unmap(DATA - HOLE, (DATA_BYTES + 2 * HOLE) as usize);
        }
    }
}

/// # Safety
/// As for `mmap`.
unsafe fn map(
    what: &'static str,
    address: u64,
    bytes: usize,
    rights: i32,
    flags: i32,
    fd: i32,
    offset: usize,
) -> Result<(), NativeError> {
    // SAFETY: the caller vouches for it.
    let at = unsafe { libc::mmap(address as *mut libc::c_void, bytes, rights, flags, fd, offset as i64) };
    if at as u64 == address {
        return Ok(());
    }
    Err(NativeError::Map { what, address, reason: Error::last_os_error() })
}
