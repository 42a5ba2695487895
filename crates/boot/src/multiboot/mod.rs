//! Multiboot 1 images (*Multiboot specification 0.6.96*), as QEMU's `-kernel`
//! takes them: an ELF of 32 bits, or any file whose header says itself where it
//! is to be loaded.
//!
//! The image lies where it asks to, its modules in whole pages behind it, in
//! their order; what it is told lies from [`MULTIBOOT_START`] on. Images below
//! 1 MiB are refused, as GRUB refuses them.

mod header;
mod info;

use crate::layout::{self, LOW_MEMORY_END, MULTIBOOT_START};
use crate::{BootError, Layout, Loaded, elf, handoff};
use header::Header;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// EAX at the entry: the image was loaded by a loader of this specification (§3.2).
pub const MAGIC: u32 = 0x2bad_b002;

/// A file handed to the image.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// Content.
    pub data: &'a [u8],
    /// Its string: name and arguments.
    pub text: &'a [u8],
}

/// State in which the boot processor enters the image (§3.2): protected mode
/// without paging, interrupts off, A20 on; CS = [`IMAGE_CS`](crate::IMAGE_CS), the
/// others [`IMAGE_DS`](crate::IMAGE_DS); EAX = [`MAGIC`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// EIP: physical address of the first instruction.
    pub eip: u32,
    /// EBX: physical address of the multiboot information.
    pub ebx: u32,
    /// ESP. The specification promises no stack; QEMU's firmware leaves one, and
    /// here too there is one of some KiB below this address.
    pub esp: u32,
    /// GDTR base: physical and linear address of the GDT.
    pub gdt_base: u64,
    /// GDTR limit, in bytes minus one.
    pub gdt_limit: u16,
    /// Physical range that the image occupies, its `.bss` included.
    pub kernel: (u64, u64),
    /// Physical ranges of the modules.
    pub modules: Vec<(u64, u64)>,
}

/// Whether `file` is a multiboot image. A Linux kernel with a setup header is none,
/// whatever else it contains.
#[must_use]
pub fn is_image(file: &[u8]) -> bool {
    !crate::bzimage::is_bzimage(file) && Header::find(file).is_some()
}

/// Loads the image in `file` with `modules` and makes everything ready for its
/// first instruction.
///
/// `mem` must back all of `layout.ram`, including the first MiB. ACPI tables are
/// not written here.
///
/// # Errors
/// A [`BootError`] of one line with cause and remedy: no image, one that is
/// truncated or asks for what there is not; image or modules too big for the
/// memory; texts with zero bytes or too long. Guest memory may have been written
/// then, nothing else.
pub fn load(
    mem: &impl GuestMemory,
    file: &[u8],
    modules: &[Module<'_>],
    cmdline: &[u8],
    layout: &Layout,
) -> Result<Entry, BootError> {
    layout.validate()?;
    let Some(header) = Header::find(file) else {
        return Err(BootError::Multiboot("it has no multiboot header in its first 8 KiB"));
    };
    header.check()?;
    let kernel = match header.placement(file)? {
        Some(placed) => placed.load(mem, layout)?,
        None => elf(mem, file, layout)?,
    };
    let ranges = place(mem, modules, kernel.end, layout)?;

    if cmdline.contains(&0) || modules.iter().any(|m| m.text.contains(&0)) {
        return Err(BootError::CmdlineNul);
    }
    let texts = modules.iter().map(|m| m.text);
    let info = info::build(layout, cmdline, &ranges.iter().copied().zip(texts).collect::<Vec<_>>())?;
    mem.write_slice(&info, GuestAddress(MULTIBOOT_START))?;
    write_bios_data(mem)?;
    let gdt_limit = handoff::write_image_gdt(mem)?;

    Ok(Entry {
        eip: kernel.entry as u32, // it lies below 4 GiB, as the image does
        ebx: MULTIBOOT_START as u32,
        esp: MULTIBOOT_START as u32,
        gdt_base: layout::GDT_START,
        gdt_limit,
        kernel: (kernel.start, kernel.end),
        modules: ranges,
    })
}

/// Of what a BIOS leaves behind (*IBM PC AT technical reference, BIOS data area*) the
/// words that images read: port of COM1, segment of the EBDA, KiB of memory below it.
fn write_bios_data(mem: &impl GuestMemory) -> Result<(), BootError> {
    let end = LOW_MEMORY_END;
    for (at, word) in [(0x400, 0x3f8), (0x40e, end >> 4), (0x413, end >> 10), (end, 1)] {
        mem.write_slice(&(word as u16).to_le_bytes(), GuestAddress(at))?;
    }
    Ok(())
}

fn elf(mem: &impl GuestMemory, file: &[u8], layout: &Layout) -> Result<Loaded, BootError> {
    if !elf::is_elf(file) {
        return Err(BootError::Multiboot(
            "it is no ELF file, and its header has no addresses (flag 16): link it as elf32-i386",
        ));
    }
    if !elf::ELF32.describes(file) {
        return Err(BootError::Multiboot(
            "it is an ELF file for another machine than i386: make it one with `objcopy -O elf32-i386`, which \
             changes no code",
        ));
    }
    elf::load(mem, file, &elf::ELF32, layout)
}

/// Writes modules in whole pages from `after` on.
fn place(
    mem: &impl GuestMemory,
    modules: &[Module<'_>],
    after: u64,
    layout: &Layout,
) -> Result<Vec<(u64, u64)>, BootError> {
    let mut ranges = Vec::with_capacity(modules.len());
    let mut at = after;
    for module in modules {
        let start = at.next_multiple_of(0x1000);
        at = start + module.data.len() as u64;
        layout.require_usable("module", start, at)?;
        mem.write_slice(module.data, GuestAddress(start))?;
        ranges.push((start, at));
    }
    Ok(ranges)
}
