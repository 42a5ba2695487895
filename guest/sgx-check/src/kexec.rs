//! Another kernel started by this one, without a reset in between, while an enclave
//! lives: what is in the EPC stays there.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

use crate::driver::{Enclave, heap_page};
use crate::image::at;
use crate::vdso::Enter;

/// Loads the kernel and initial RAM disk, makes an enclave and jumps.
pub fn run(enter: Enter, kernel: &str, initrd: &str, cmdline: &str) -> Result<(), String> {
    let open = |path: &str| File::open(path).map_err(|e| format!("{path}: {e}"));
    let (kernel, initrd) = (open(kernel)?, open(initrd)?);
    let cmdline = CString::new(cmdline).map_err(|e| e.to_string())?;
    let page = heap_page(at::HEAP, Box::new([0; 4096]));
    let enclave =
        Enclave::load(enter, 0x1_0000, 0, std::iter::once(page)).map_err(|e| format!("load: {e}"))?;
    // SAFETY: the command line is `cmdline_len` bytes with its zero, the files are open.
    let loaded = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            cmdline.as_bytes_with_nul().len(),
            cmdline.as_ptr(),
            0u64,
        )
    };
    if loaded != 0 {
        return Err(format!("kexec_file_load: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: ends this kernel.
    unsafe { libc::reboot(libc::LINUX_REBOOT_CMD_KEXEC) };
    drop(enclave);
    Err(format!("kexec: {}", std::io::Error::last_os_error()))
}
