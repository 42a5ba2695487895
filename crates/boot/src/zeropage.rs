//! The zero page, `struct boot_params` (Linux
//! `Documentation/arch/x86/zero-page.rst`).
//!
//! `screen_info` stays zero: no VGA, so the kernel takes no text console.

use crate::bzimage::{HEADER_START, SetupHeader};
use crate::layout::{CMDLINE_START, E820_MAX, ZERO_PAGE_START};
use crate::{BootError, Layout, Loaded};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// `acpi_rsdp_addr`, 8 bytes.
pub const ACPI_RSDP_ADDR: usize = 0x070;
/// `e820_entries`, 1 byte.
pub const E820_ENTRIES: usize = 0x1e8;
/// `e820_table`, 20 bytes an entry: address, size, type.
pub const E820_TABLE: usize = 0x2d0;
/// "No assigned boot loader number" (boot.rst, `type_of_loader`).
pub const TYPE_OF_LOADER: u8 = 0xff;
/// Size of the zero page in bytes.
pub const SIZE: usize = 0x1000;

const E820_ENTRY_SIZE: usize = 20;
/// loadflags: the decompressor says by this that KASLR is on.
const KASLR_FLAG: u8 = 1 << 1;
/// loadflags: `heap_end_ptr` is valid; only real-mode code has a use for it.
const CAN_USE_HEAP: u8 = 1 << 7;

pub(crate) fn write(
    mem: &impl GuestMemory,
    header: &SetupHeader,
    kernel: &Loaded,
    initrd: Option<(u64, u64)>,
    layout: &Layout,
) -> Result<(), BootError> {
    let mut h = header.clone();
    h.set(0x210, &[TYPE_OF_LOADER]);
    h.set(0x211, &[h.loadflags() & !(KASLR_FLAG | CAN_USE_HEAP)]);
    // Everything lies below 4 GiB, so the ext_* high halves stay zero.
    h.set(0x214, &(kernel.start as u32).to_le_bytes());
    let (start, end) = initrd.unwrap_or((0, 0));
    h.set(0x218, &(start as u32).to_le_bytes());
    h.set(0x21c, &((end - start) as u32).to_le_bytes());
    h.set(0x228, &(CMDLINE_START as u32).to_le_bytes());
    // A setup_data list in the file would be addresses of another machine.
    h.set(0x250, &[0; 8]);

    let mut page = [0u8; SIZE];
    page[HEADER_START..][..h.as_bytes().len()].copy_from_slice(h.as_bytes());
    page[ACPI_RSDP_ADDR..][..8].copy_from_slice(&layout.rsdp().to_le_bytes());
    let map = layout.e820();
    let count = map.len().min(E820_MAX); // validated to be no more
    page[E820_ENTRIES] = count as u8;
    let slots = page[E820_TABLE..].chunks_exact_mut(E820_ENTRY_SIZE);
    for (slot, e) in slots.zip(&map[..count]) {
        slot[..8].copy_from_slice(&e.range.start.to_le_bytes());
        slot[8..16].copy_from_slice(&(e.range.end - e.range.start).to_le_bytes());
        slot[16..].copy_from_slice(&(e.kind as u32).to_le_bytes());
    }
    mem.write_slice(&page, GuestAddress(ZERO_PAGE_START))?;
    Ok(())
}
