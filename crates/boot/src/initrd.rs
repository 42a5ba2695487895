//! Placing the initrd.

use crate::layout::{IDENTITY_END, subtract};
use crate::{BootError, Layout, Loaded};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Writes the initrd at the highest page below `addr_max` that has room beside
/// the kernel, and returns its range (boot.rst, `initrd_addr_max`: the highest
/// address of its last byte).
pub(crate) fn place(
    mem: &impl GuestMemory,
    initrd: &[u8],
    kernel: &Loaded,
    addr_max: u32,
    layout: &Layout,
) -> Result<(u64, u64), BootError> {
    let size = initrd.len() as u64;
    let limit = (u64::from(addr_max) + 1).min(IDENTITY_END);
    // Whole pages: the kernel frees the initrd by pages.
    let kernel = kernel.start..kernel.end.next_multiple_of(0x1000);
    let mut best = None;
    let mut free = 0;
    for ram in layout.usable() {
        for part in subtract(ram.start..ram.end.min(limit), std::slice::from_ref(&kernel)) {
            free = free.max(part.end - part.start);
            let Some(start) = part.end.checked_sub(size).map(|s| s & !0xfff) else {
                continue;
            };
            if start >= part.start {
                best = Some(start); // ranges ascend: the last one is the highest
            }
        }
    }
    let start = best.ok_or(BootError::InitrdTooBig { size, limit, free })?;
    mem.write_slice(initrd, GuestAddress(start))?;
    Ok((start, start + size))
}
