//! GDT and page tables that a kernel is entered with.

use crate::layout::{GDT_START, PAGE_TABLES_START};
use crate::{BootError, Protocol};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// `__BOOT_CS`: flat code of the protocol's width, execute/read (*boot.rst*).
pub const BOOT_CS: u16 = 0x10;
/// `__BOOT_DS`: flat data, read/write (*boot.rst*).
pub const BOOT_DS: u16 = 0x18;

/// Code: G, L, P, DPL 0, S, execute/read, accessed; limit 4 GiB (*SDM vol. 3A
/// §3.4.5*).
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
/// The same with D instead of L: 32-bit code.
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
/// Data: G, B, P, DPL 0, S, read/write, accessed; limit 4 GiB.
const DATA: u64 = 0x00cf_9300_0000_ffff;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;

/// Code segment that a multiboot image is entered with: flat, 32-bit.
pub const IMAGE_CS: u16 = 0x08;
/// Data segments that a multiboot image is entered with: flat.
pub const IMAGE_DS: u16 = 0x10;

/// Writes the GDT of a boot protocol and returns its limit.
pub(crate) fn write_gdt(mem: &impl GuestMemory, protocol: Protocol) -> Result<u16, BootError> {
    let code = match protocol {
        Protocol::Bits64 => CODE_64,
        Protocol::Bits32 => CODE_32,
    };
    write_descriptors(mem, &[0, 0, code, DATA])
}

/// Writes a GDT for a multiboot image and returns its limit.
pub(crate) fn write_image_gdt(mem: &impl GuestMemory) -> Result<u16, BootError> {
    write_descriptors(mem, &[0, CODE_32, DATA])
}

fn write_descriptors(mem: &impl GuestMemory, descriptors: &[u64]) -> Result<u16, BootError> {
    let gdt: Vec<u8> = descriptors.iter().flat_map(|d| d.to_le_bytes()).collect();
    mem.write_slice(&gdt, GuestAddress(GDT_START))?;
    Ok(gdt.len() as u16 - 1)
}

/// Maps the first 4 GiB to themselves by 2 MiB pages, writable and executable
/// (*SDM vol. 3A §4.5*): one level-4 table, one level-3 table, four level-2
/// tables. 1 GiB pages are not assumed of the processor model. Returns CR3.
pub(crate) fn write_page_tables(mem: &impl GuestMemory) -> Result<u64, BootError> {
    let table = |i: u64| PAGE_TABLES_START + i * 0x1000;
    let mut words = vec![0u64; 6 * 512];
    words[0] = table(1) | PRESENT | WRITE;
    for i in 0..4 {
        words[512 + i] = table(2 + i as u64) | PRESENT | WRITE;
    }
    for (i, entry) in words[1024..].iter_mut().enumerate() {
        *entry = ((i as u64) << 21) | PRESENT | WRITE | PAGE_SIZE;
    }
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    mem.write_slice(&bytes, GuestAddress(PAGE_TABLES_START))?;
    Ok(PAGE_TABLES_START)
}
