//! The bzImage: setup header, payload, and loading without unpacking.
//!
//! Offsets and field names are those of Linux `Documentation/arch/x86/boot.rst`
//! ("Details of Header Fields").

use crate::decompress::{self, Format};
use crate::layout::HIGH_MEMORY;
use crate::{BootError, Layout, Loaded, Protocol};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Where the setup header starts, in the file and in the zero page.
pub const HEADER_START: usize = 0x1f1;
/// Where the zero page's room for the setup header ends
/// (`edd_mbr_sig_buffer` follows).
pub const HEADER_ROOM_END: usize = 0x290;
/// Bytes from the start of the protected-mode code to its 64-bit entry point.
pub const ENTRY_64: u64 = 0x200;

const MAGIC: &[u8; 4] = b"HdrS";
const OLDEST: u16 = 0x020c;
const LOADED_HIGH: u8 = 1 << 0;
const XLF_KERNEL_64: u16 = 1 << 0;

/// The setup header (`struct setup_header`) as raw bytes, by file offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    // Bytes HEADER_START..HEADER_ROOM_END; zero past the declared end.
    raw: [u8; HEADER_ROOM_END - HEADER_START],
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $t:ty = $at:expr;)*) => {
        impl SetupHeader {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> $t {
                const LEN: usize = size_of::<$t>();
                let mut b = [0; LEN];
                b.copy_from_slice(&self.raw[$at - HEADER_START..][..LEN]);
                <$t>::from_le_bytes(b)
            }
        )*}
    };
}

fields! {
    /// Real-mode setup code, in 512-byte sectors without the boot sector.
    setup_sects: u8 = 0x1f1;
    /// Boot protocol version, major in the high byte.
    version: u16 = 0x206;
    /// Boot protocol option flags.
    loadflags: u8 = 0x211;
    /// Where the protected-mode code is loaded by default.
    code32_start: u32 = 0x214;
    /// Highest address the last byte of the initrd may have.
    initrd_addr_max: u32 = 0x22c;
    /// Alignment required if relocatable, in bytes.
    kernel_alignment: u32 = 0x230;
    /// Whether the protected-mode code may be loaded anywhere.
    relocatable_kernel: u8 = 0x234;
    /// 64-bit flags.
    xloadflags: u16 = 0x236;
    /// Longest command line in bytes, without the terminating zero.
    cmdline_size: u32 = 0x238;
    /// Compressed payload, from the start of the protected-mode code.
    payload_offset: u32 = 0x248;
    /// Length of the payload in bytes.
    payload_length: u32 = 0x24c;
    /// Preferred load address, physical.
    pref_address: u64 = 0x258;
    /// Bytes of memory needed from the load address on.
    init_size: u32 = 0x260;
}

impl SetupHeader {
    /// The header for an ELF `vmlinux`, which brings none: protocol 2.15 with
    /// the values that x86-64 kernels have had for long.
    #[must_use]
    pub fn for_elf() -> Self {
        let mut h = SetupHeader { raw: [0; HEADER_ROOM_END - HEADER_START] };
        h.set(0x1fe, &0xaa55u16.to_le_bytes()); // boot_flag
        h.set(0x202, MAGIC);
        h.set(0x206, &0x020fu16.to_le_bytes());
        h.set(0x211, &[LOADED_HIGH]);
        h.set(0x22c, &0x7fff_ffffu32.to_le_bytes());
        h.set(0x230, &0x100_0000u32.to_le_bytes());
        h.set(0x236, &XLF_KERNEL_64.to_le_bytes());
        h.set(0x238, &2047u32.to_le_bytes()); // COMMAND_LINE_SIZE - 1
        h
    }

    /// How the kernel wants to be entered: an i386 one has no 64-bit entry.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        if self.xloadflags() & XLF_KERNEL_64 != 0 { Protocol::Bits64 } else { Protocol::Bits32 }
    }

    /// Overwrites bytes at the file offset `at`; those outside the header's
    /// room are a programming error.
    pub(crate) fn set(&mut self, at: usize, bytes: &[u8]) {
        self.raw[at - HEADER_START..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The raw header, from [`HEADER_START`] on.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.raw
    }
}

/// A bzImage whose header has been checked.
#[derive(Clone, Debug)]
pub struct BzImage<'a> {
    /// The setup header.
    pub header: SetupHeader,
    /// Protected-mode code: all that follows the setup sectors.
    code: &'a [u8],
    payload: &'a [u8],
}

/// Whether `file` has a setup header.
#[must_use]
pub fn is_bzimage(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(MAGIC)
}

/// Parses a bzImage.
///
/// # Errors
/// [`BootError::NotAKernel`], [`BootError::Truncated`],
/// [`BootError::OldProtocol`] (before 2.12).
pub fn parse(file: &[u8]) -> Result<BzImage<'_>, BootError> {
    let have = file.len() as u64;
    let truncated = |what, need| BootError::Truncated { what, need, have };
    if file.get(0x202..0x206) != Some(MAGIC) || file.get(0x1fe..0x200) != Some(&[0x55, 0xaa]) {
        return Err(foreign(file));
    }
    // The header ends where the jump at 0x200 lands (boot.rst, `jump`).
    let end = 0x202 + usize::from(*file.get(0x201).unwrap_or(&0));
    let end = end.min(HEADER_ROOM_END);
    let bytes = file.get(HEADER_START..end).ok_or_else(|| truncated("the setup header", end as u64))?;
    let mut header = SetupHeader { raw: [0; HEADER_ROOM_END - HEADER_START] };
    header.set(HEADER_START, bytes);

    if header.version() < OLDEST {
        return Err(BootError::OldProtocol { version: header.version() });
    }
    if header.loadflags() & LOADED_HIGH == 0 {
        return Err(BootError::NotAKernel { found: "a zImage, loaded low".into() });
    }
    // Zero stands for 4 (boot.rst, `setup_sects`).
    let sects = match header.setup_sects() {
        0 => 4,
        n => usize::from(n),
    };
    let start = (sects + 1) * 512;
    let code = file
        .get(start..)
        .filter(|c| c.len() as u64 > ENTRY_64)
        .ok_or_else(|| truncated("the protected-mode code", start as u64 + ENTRY_64 + 1))?;
    let from = header.payload_offset() as usize;
    let to = from as u64 + u64::from(header.payload_length());
    let payload = usize::try_from(to)
        .ok()
        .and_then(|to| code.get(from..to))
        .ok_or_else(|| truncated("the compressed payload", start as u64 + to))?;
    Ok(BzImage { header, code, payload })
}

impl BzImage<'_> {
    /// The `vmlinux` inside, or `None` when its compression is not known.
    ///
    /// # Errors
    /// [`BootError::Payload`], [`BootError::PayloadTooLarge`].
    pub fn unpack(&self) -> Result<Option<(Format, Vec<u8>)>, BootError> {
        let Some(format) = decompress::detect(self.payload) else {
            return Ok(None);
        };
        let vmlinux = decompress::unpack(format, self.payload)?;
        Ok(Some((format, vmlinux)))
    }

    /// Loads the image as it is, for its own decompressor to unpack.
    ///
    /// # Errors
    /// [`BootError::NoRoom`] when `init_size` bytes from the load address on
    /// are not RAM, [`BootError::NotAKernel`] for a load address below 1 MiB.
    pub fn load_compressed(&self, mem: &impl GuestMemory, layout: &Layout) -> Result<Loaded, BootError> {
        let h = &self.header;
        let start = match h.relocatable_kernel() {
            0 => u64::from(h.code32_start()),
            _ => h.pref_address(),
        };
        if start < HIGH_MEMORY {
            return Err(BootError::NotAKernel { found: "an image to be loaded below 1 MiB".into() });
        }
        let size = u64::from(h.init_size()).max(self.code.len() as u64);
        let end = start.saturating_add(size);
        layout.require_usable("kernel", start, end)?;
        mem.write_slice(self.code, GuestAddress(start))?;
        let entry = match h.protocol() {
            Protocol::Bits64 => start + ENTRY_64,
            Protocol::Bits32 => start,
        };
        Ok(Loaded { start, end, entry })
    }
}

/// Says what a file that is no bzImage looks like.
fn foreign(file: &[u8]) -> BootError {
    let at = |from: usize, what: &[u8]| file.get(from..from + what.len()) == Some(what);
    let found = if file.is_empty() {
        "the file is empty".into()
    } else if at(0x202, MAGIC) {
        "its boot sector signature is missing".into()
    } else if at(0x38, b"ARMd") || at(0x38, b"ARM\x64") {
        "it is an arm64 Image".into()
    } else if at(0x38, b"RSC\x05") {
        "it is a RISC-V Image".into()
    } else if at(0, b"MZ") {
        "it is an EFI or DOS program without a Linux setup header".into()
    } else if at(0, b"#!") {
        "it is a script".into()
    } else if at(0, b"070701") || at(0, b"070702") {
        "it is a cpio archive (an initrd?)".into()
    } else if let Some(format) = decompress::detect(file) {
        format!("it is {format} data (an initrd?)")
    } else if file.len() < 0x206 {
        format!("it has only {} bytes", file.len())
    } else {
        "it has no setup header (no \"HdrS\" at 0x202)".into()
    };
    BootError::NotAKernel { found }
}
