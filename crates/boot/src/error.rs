//! What can be wrong with a kernel, an initrd, a command line or a layout.

use crate::decompress::Format;
use std::path::PathBuf;

/// Why a guest cannot be booted: one line, cause and remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The file cannot be opened or read.
    #[error("cannot read {what} {path}: {source}; check the path and its permissions")]
    File {
        /// "kernel" or "initrd".
        what: &'static str,
        /// Path as given.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The path is a directory, a device or a pipe.
    #[error("{what} {path} is not a regular file; name the image file itself")]
    NotAFile {
        /// "kernel" or "initrd".
        what: &'static str,
        /// Path as given.
        path: PathBuf,
    },
    /// The file is larger than any sensible one.
    #[error("{what} {path} is larger than {max} bytes; is it really a {what} image?")]
    FileTooLarge {
        /// "kernel" or "initrd".
        what: &'static str,
        /// Path as given.
        path: PathBuf,
        /// Limit in bytes.
        max: u64,
    },
    /// Not a kernel image that this crate knows.
    #[error("not an x86-64 kernel: {found}; give a bzImage (vmlinuz), an ELF vmlinux or a multiboot image")]
    NotAKernel {
        /// What the file looks like.
        found: String,
    },
    /// The file ends before something its header promises.
    #[error(
        "kernel file is truncated: {what} needs {need} bytes, the file has {have}; copy or download it again"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// Bytes needed, from the start of the file.
        need: u64,
        /// Bytes present.
        have: u64,
    },
    /// Boot protocol before 2.12.
    #[error(
        "kernel speaks boot protocol {}.{:02}, 2.12 (Linux 3.8) is the oldest supported; use a newer kernel",
        version >> 8, version & 0xff
    )]
    OldProtocol {
        /// `version` of the setup header.
        version: u16,
    },
    /// The ELF file contradicts itself or is of another kind.
    #[error("kernel ELF is not loadable: {0}; give the file as its linker made it")]
    BadElf(&'static str),
    /// The compressed payload does not decompress.
    #[error("kernel's {format} payload is corrupt: {cause}; copy or download the file again")]
    Payload {
        /// Compression.
        format: Format,
        /// What the decompressor says.
        cause: String,
    },
    /// The payload grows past the cap.
    #[error("kernel's {format} payload unpacks to more than {max} bytes; it is no Linux kernel")]
    PayloadTooLarge {
        /// Compression.
        format: Format,
        /// Limit in bytes.
        max: u64,
    },
    /// Kernel outside RAM.
    #[error(
        "{what} needs memory {start:#x}..{end:#x}, usable RAM there ends at {ram_end:#x}; give the machine more memory"
    )]
    NoRoom {
        /// What does not fit.
        what: &'static str,
        /// First address needed.
        start: u64,
        /// One past the last address needed.
        end: u64,
        /// End of the RAM range that `start` lies in or after.
        ram_end: u64,
    },
    /// Initrd does not fit.
    #[error(
        "initrd of {size} bytes does not fit: the largest free range below {limit:#x} has {free} bytes; use a smaller initrd or more memory"
    )]
    InitrdTooBig {
        /// Size in bytes.
        size: u64,
        /// Highest address allowed, exclusive.
        limit: u64,
        /// Largest free range in bytes.
        free: u64,
    },
    /// Command line too long.
    #[error("kernel command line has {len} bytes, this kernel takes at most {max}; shorten it")]
    CmdlineTooLong {
        /// Bytes given.
        len: usize,
        /// Bytes allowed, without the terminating zero.
        max: usize,
    },
    /// Command line with a zero byte.
    #[error("kernel command line contains a zero byte, which would cut it off; remove it")]
    CmdlineNul,
    /// The multiboot header cannot be obeyed.
    #[error("multiboot image is not loadable: {0}")]
    Multiboot(&'static str),
    /// What a multiboot image is told does not fit below its memory.
    #[error(
        "command line and multiboot modules take {size} bytes to describe, {room} fit; give fewer modules or shorter arguments"
    )]
    InfoTooLarge {
        /// Bytes needed.
        size: usize,
        /// Bytes there are.
        room: usize,
    },
    /// The memory layout cannot work.
    #[error("memory layout is not bootable: {0}")]
    Layout(String),
    /// The board description cannot be put into ACPI tables.
    #[error("board description is not valid: {0}")]
    Board(String),
    /// Guest memory does not back what the layout says.
    #[error("guest memory does not back the layout ({0}); map every RAM range and the first MiB")]
    Memory(#[from] vm_memory::GuestMemoryError),
}
