//! Boots Linux, and multiboot images, on x86-64 without firmware.
//!
//! The crate does what a boot loader and a BIOS would have done before the
//! kernel's first instruction, by writing into guest memory:
//!
//! - [`load`] puts the kernel, the initrd, the command line, the zero page
//!   (`struct boot_params`), a boot GDT and identity page tables in place and
//!   says with which registers the boot processor starts ([`Entry`]), as the
//!   *64-bit boot protocol* asks (Linux, `Documentation/arch/x86/boot.rst`), or
//!   for a kernel without it, which is an i386 one, the *32-bit boot protocol*.
//! - [`multiboot::load`] does the same for an image of the *Multiboot
//!   specification 0.6.96*.
//! - [`acpi::write`] describes the board ([`acpi::Board`]) in ACPI tables.
//!
//! A bzImage is decompressed by the host and its ELF `vmlinux` entered
//! directly, at `startup_64` of `arch/x86/kernel/head_64.S` (i386: `startup_32`
//! of `head_32.S`). That saves the
//! guest the decompression, which is slow on an emulated processor. In return
//! **the kernel runs at its link address**: the relocations that the
//! decompressor would apply are not applied, so there is no KASLR (neither
//! physical nor virtual), as with `nokaslr`. An image whose compression is not
//! known here is loaded compressed and entered at its own entry; it then
//! unpacks (and randomises) itself.
//!
//! Why not the `linux-loader` crate: it neither decompresses, nor zeroes
//! `.bss`, nor checks segments against the memory map, and copies the setup
//! header past its declared end; what is left of it is smaller than the glue.
#![forbid(unsafe_code)]

pub mod acpi;
pub mod bzimage;
pub mod decompress;
pub mod elf;
pub mod error;
pub mod handoff;
pub mod layout;
pub mod multiboot;
pub mod zeropage;

mod file;
mod initrd;

pub use error::BootError;
pub use file::{MAX_INITRD_FILE, MAX_KERNEL_FILE, read_initrd, read_kernel, read_module};
pub use handoff::{BOOT_CS, BOOT_DS, IMAGE_CS, IMAGE_DS};
pub use layout::Layout;

use bzimage::SetupHeader;
use layout::{CMDLINE_MAX, CMDLINE_START, ZERO_PAGE_START};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// How the kernel was brought into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An ELF `vmlinux`, given as such.
    Elf,
    /// The ELF `vmlinux` inside a bzImage, decompressed by the host.
    Unpacked(decompress::Format),
    /// A bzImage loaded as it is; the guest decompresses it.
    Compressed,
}

/// In which mode a kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Long mode, paging on (*boot.rst*, "64-bit Boot Protocol").
    Bits64,
    /// Protected mode of 32 bits, paging off (*boot.rst*, "32-bit Boot Protocol").
    Bits32,
}

/// State in which the boot processor enters the kernel.
///
/// Interrupts off; CS = [`BOOT_CS`]; DS, ES and SS = [`BOOT_DS`]. No stack is
/// promised: every entry point sets up its own before the first push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In which mode.
    pub protocol: Protocol,
    /// RIP: physical address of the first instruction (identity mapped).
    pub rip: u64,
    /// RSI: physical address of the zero page.
    pub rsi: u64,
    /// CR3: physical address of the level-4 page table mapping the first
    /// 4 GiB to themselves; for the 64-bit protocol.
    pub cr3: u64,
    /// GDTR base: physical and linear address of the boot GDT.
    pub gdt_base: u64,
    /// GDTR limit, in bytes minus one.
    pub gdt_limit: u16,
    /// Physical range that the kernel occupies, including the room it needs
    /// before it reads the memory map (`.bss`; for [`Form::Compressed`] the
    /// header's `init_size`).
    pub kernel: (u64, u64),
    /// Physical range of the initrd, when there is one.
    pub initrd: Option<(u64, u64)>,
    /// How the kernel was brought into memory.
    pub form: Form,
}

/// Loads `kernel` (bzImage or ELF `vmlinux`), `initrd` and `cmdline` into
/// `mem` and makes everything ready for the first instruction.
///
/// `mem` must back all of `layout.ram`, including the first MiB. ACPI tables
/// are not written here: the zero page names `layout.acpi.start` as the RSDP,
/// where [`acpi::write`] puts it.
///
/// # Errors
/// A [`BootError`] of one line with cause and remedy: foreign, truncated or
/// corrupt kernel; kernel or initrd too big for the memory; command line too
/// long for this kernel; bad layout. Guest memory may have been written then,
/// nothing else.
pub fn load(
    mem: &impl GuestMemory,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
    layout: &Layout,
) -> Result<Entry, BootError> {
    layout.validate()?;
    let (loaded, header, form) = load_kernel(mem, kernel, layout)?;

    let max = (header.cmdline_size() as usize).min(CMDLINE_MAX);
    if cmdline.len() > max {
        return Err(BootError::CmdlineTooLong { len: cmdline.len(), max });
    }
    if cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    mem.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE_START))?;
    mem.write_slice(&[0], GuestAddress(CMDLINE_START + cmdline.len() as u64))?;

    let initrd = match initrd {
        Some(bytes) if !bytes.is_empty() => {
            Some(initrd::place(mem, bytes, &loaded, header.initrd_addr_max(), layout)?)
        }
        _ => None,
    };
    zeropage::write(mem, &header, &loaded, initrd, layout)?;
    let protocol = header.protocol();
    let gdt_limit = handoff::write_gdt(mem, protocol)?;
    let cr3 = handoff::write_page_tables(mem)?;

    Ok(Entry {
        protocol,
        rip: loaded.entry,
        rsi: ZERO_PAGE_START,
        cr3,
        gdt_base: layout::GDT_START,
        gdt_limit,
        kernel: (loaded.start, loaded.end),
        initrd,
        form,
    })
}

/// A kernel in guest memory; addresses are physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// First byte occupied.
    pub start: u64,
    /// One past the last byte the kernel occupies or needs early.
    pub end: u64,
    /// Entry point.
    pub entry: u64,
}

fn load_kernel(
    mem: &impl GuestMemory,
    kernel: &[u8],
    layout: &Layout,
) -> Result<(Loaded, SetupHeader, Form), BootError> {
    if elf::is_elf(kernel) {
        let loaded = elf::load(mem, kernel, &elf::ELF64, layout)?;
        return Ok((loaded, SetupHeader::for_elf(), Form::Elf));
    }
    let image = bzimage::parse(kernel)?;
    let Some((format, vmlinux)) = image.unpack()? else {
        let loaded = image.load_compressed(mem, layout)?;
        return Ok((loaded, image.header, Form::Compressed));
    };
    // `init_size` is what the decompressor needs; the unpacked kernel needs no
    // more than its segments, which include `.bss` and `.brk`.
    let class = match image.header.protocol() {
        Protocol::Bits64 => &elf::ELF64,
        Protocol::Bits32 => &elf::ELF32,
    };
    let loaded = elf::load(mem, &vmlinux, class, layout)?;
    Ok((loaded, image.header, Form::Unpacked(format)))
}
