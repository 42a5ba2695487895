//! Loading the `PT_LOAD` segments of an ELF executable (*System V ABI,
//! chapters 4 and 5*) at their physical addresses: a 64-bit `vmlinux`, or a
//! 32-bit multiboot image.

use crate::layout::HIGH_MEMORY;
use crate::{BootError, Layout, Loaded};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Linux has at most six program headers; more than this is no kernel.
const MAX_SEGMENTS: u16 = 128;
/// Most memory that the segments may take, in bytes.
const MAX_MEMORY: u64 = 1 << 30;
const PT_LOAD: u32 = 1;

/// Where a class of ELF files keeps its fields: offsets in bytes.
#[derive(Debug)]
pub struct Class {
    /// `EI_CLASS`.
    ident: u8,
    /// `e_machine`, and its name.
    machine: (u16, &'static str),
    /// Bytes of an address, an offset or a size.
    word: usize,
    /// Size of the file header; `e_phoff`, `e_phentsize` and `e_phnum` in it.
    ehdr: usize,
    phoff: usize,
    phentsize: usize,
    phnum: usize,
    /// Size of a program header; the fields in it.
    phdr: usize,
    offset: usize,
    vaddr: usize,
    paddr: usize,
    filesz: usize,
    memsz: usize,
}

/// x86-64.
pub const ELF64: Class = Class {
    ident: 2,
    machine: (62, "x86-64"),
    word: 8,
    ehdr: 64,
    phoff: 32,
    phentsize: 54,
    phnum: 56,
    phdr: 56,
    offset: 8,
    vaddr: 16,
    paddr: 24,
    filesz: 32,
    memsz: 40,
};

/// i386.
pub const ELF32: Class = Class {
    ident: 1,
    machine: (3, "i386"),
    word: 4,
    ehdr: 52,
    phoff: 28,
    phentsize: 42,
    phnum: 44,
    phdr: 32,
    offset: 4,
    vaddr: 8,
    paddr: 12,
    filesz: 16,
    memsz: 20,
};

impl Class {
    /// Whether an ELF file is of this class and for this machine.
    #[must_use]
    pub fn describes(&self, file: &[u8]) -> bool {
        let machine = self.machine.0.to_le_bytes();
        is_elf(file) && file.get(4) == Some(&self.ident) && file.get(18..20) == Some(&machine)
    }

    fn bits(&self) -> usize {
        self.word * 8
    }

    /// A word; callers' slices cover every offset used.
    fn word(&self, bytes: &[u8], at: usize) -> u64 {
        if self.word == 8 { u64_at(bytes, at) } else { u64::from(u32_at(bytes, at)) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    data: &'a [u8],
    start: u64,
    end: u64,
    /// Where the program believes itself to be.
    virt: u64,
}

/// Whether `file` has the ELF magic number.
#[must_use]
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// Writes the segments into memory, zero-filled to their memory size.
///
/// The entry point is `e_entry`: for x86-64 Linux the physical address of
/// `startup_64` (`vmlinux.lds.S`: `ENTRY(phys_startup_64)`). One that lies in a
/// segment's virtual addresses is taken to where that segment is.
///
/// # Errors
/// [`BootError::NotAKernel`] for another architecture, [`BootError::Truncated`],
/// [`BootError::BadElf`], [`BootError::NoRoom`].
pub fn load(
    mem: &impl GuestMemory,
    file: &[u8],
    class: &Class,
    layout: &Layout,
) -> Result<Loaded, BootError> {
    let (entry, segments) = parse(file, class)?;
    for s in &segments {
        layout.require_usable("kernel", s.start, s.end)?;
    }
    for s in &segments {
        mem.write_slice(s.data, GuestAddress(s.start))?;
        zero(mem, s.start + s.data.len() as u64, s.end)?;
    }
    let start = segments.iter().map(|s| s.start).min().unwrap_or(0);
    let end = segments.iter().map(|s| s.end).max().unwrap_or(0);
    Ok(Loaded { start, end, entry })
}

/// Zeroes memory.
pub(crate) fn zero(mem: &impl GuestMemory, mut at: u64, end: u64) -> Result<(), BootError> {
    static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
    while at < end {
        let n = (end - at).min(ZEROS.len() as u64);
        mem.write_slice(&ZEROS[..n as usize], GuestAddress(at))?;
        at += n;
    }
    Ok(())
}

fn parse<'a>(file: &'a [u8], class: &Class) -> Result<(u64, Vec<Segment<'a>>), BootError> {
    let have = file.len() as u64;
    let cut = |what, need| BootError::Truncated { what, need, have };
    let header = file.get(..class.ehdr).ok_or(cut("the ELF header", class.ehdr as u64))?;
    if header[4] != class.ident || header[5] != 1 {
        let bits = class.bits();
        return Err(BootError::NotAKernel {
            found: format!("it is no little-endian ELF file of {bits} bits"),
        });
    }
    let (machine, wanted) = (u16_at(header, 18), class.machine);
    if machine != wanted.0 {
        return Err(BootError::NotAKernel {
            found: format!("it is an ELF file for machine {machine}, not {} ({})", wanted.0, wanted.1),
        });
    }
    if !matches!(u16_at(header, 16), 2 | 3) {
        return Err(BootError::BadElf("it is an object or core file, not an executable"));
    }
    let mut entry = class.word(header, 24);
    let phoff = class.word(header, class.phoff);
    let phnum = u16_at(header, class.phnum);
    if usize::from(u16_at(header, class.phentsize)) != class.phdr {
        return Err(BootError::BadElf("its program headers have a wrong size"));
    }
    if phnum > MAX_SEGMENTS {
        return Err(BootError::BadElf("it has too many program headers"));
    }
    let size = u64::from(phnum) * class.phdr as u64;
    let table =
        slice(file, phoff, size).ok_or(cut("the program header table", phoff.saturating_add(size)))?;

    let mut segments = Vec::new();
    let mut total = 0u64;
    for p in table.chunks_exact(class.phdr) {
        let word = |at| class.word(p, at);
        let (offset, filesz, memsz) = (word(class.offset), word(class.filesz), word(class.memsz));
        if u32_at(p, 0) != PT_LOAD || memsz == 0 {
            continue;
        }
        let start = word(class.paddr);
        if filesz > memsz {
            return Err(BootError::BadElf("a segment has more bytes in the file than in memory"));
        }
        let end =
            start.checked_add(memsz).ok_or(BootError::BadElf("a segment wraps around the address space"))?;
        if start < HIGH_MEMORY {
            return Err(BootError::BadElf("a segment's physical address is below 1 MiB"));
        }
        total = total.saturating_add(memsz);
        if total > MAX_MEMORY {
            return Err(BootError::BadElf("its segments take more than 1 GiB"));
        }
        let data = slice(file, offset, filesz).ok_or(cut("an ELF segment", offset.saturating_add(filesz)))?;
        segments.push(Segment { data, start, end, virt: word(class.vaddr) });
    }
    segments.sort_by_key(|s| s.start);
    if segments.windows(2).any(|w| w[1].start < w[0].end) {
        return Err(BootError::BadElf("its segments overlap"));
    }
    if segments.is_empty() {
        return Err(BootError::BadElf("it has nothing to load"));
    }
    // wrapping: a virtual address may be any
    let inside = |s: &&Segment<'_>| entry.wrapping_sub(s.virt) < s.end - s.start;
    if let Some(s) = segments.iter().find(inside) {
        entry = s.start + entry.wrapping_sub(s.virt);
    }
    if !segments.iter().any(|s| s.start <= entry && entry < s.end) {
        return Err(BootError::BadElf("its entry point is outside its segments"));
    }
    Ok((entry, segments))
}

fn slice(file: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let end = at.checked_add(len)?;
    file.get(usize::try_from(at).ok()?..usize::try_from(end).ok()?)
}

// The callers' slices have a fixed length that covers every offset used.
fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from(u16_at(b, at)) | u32::from(u16_at(b, at + 2)) << 16
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}
