//! Loading the `PT_LOAD` segments of a 64-bit ELF `vmlinux` (*System V ABI,
//! chapters 4 and 5*) at their physical addresses.

use crate::layout::HIGH_MEMORY;
use crate::{BootError, Layout, Loaded};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

const EHDR: usize = 64;
const PHDR: usize = 56;
/// Linux has at most six program headers; more than this is no kernel.
const MAX_SEGMENTS: u16 = 128;
/// Most memory that the segments may take, in bytes.
const MAX_MEMORY: u64 = 1 << 30;
const PT_LOAD: u32 = 1;
const EM_X86_64: u16 = 62;

#[derive(Clone, Copy, Debug)]
struct Segment<'a> {
    data: &'a [u8],
    start: u64,
    end: u64,
}

/// Whether `file` has the ELF magic number.
#[must_use]
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

/// Writes the segments into memory, zero-filled to their memory size.
///
/// The entry point is `e_entry`, which for x86-64 Linux is the physical address
/// of `startup_64` (`vmlinux.lds.S`: `ENTRY(phys_startup_64)`).
///
/// # Errors
/// [`BootError::NotAKernel`] for another architecture, [`BootError::Truncated`],
/// [`BootError::BadElf`], [`BootError::NoRoom`].
pub fn load(mem: &impl GuestMemory, file: &[u8], layout: &Layout) -> Result<Loaded, BootError> {
    let (entry, segments) = parse(file)?;
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

fn zero(mem: &impl GuestMemory, mut at: u64, end: u64) -> Result<(), BootError> {
    static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
    while at < end {
        let n = (end - at).min(ZEROS.len() as u64);
        mem.write_slice(&ZEROS[..n as usize], GuestAddress(at))?;
        at += n;
    }
    Ok(())
}

fn parse(file: &[u8]) -> Result<(u64, Vec<Segment<'_>>), BootError> {
    let have = file.len() as u64;
    let cut = |what, need| BootError::Truncated { what, need, have };
    let header = file.get(..EHDR).ok_or(cut("the ELF header", EHDR as u64))?;
    if header[4] != 2 || header[5] != 1 {
        return Err(BootError::NotAKernel { found: "it is a 32-bit or big-endian ELF file".into() });
    }
    let machine = u16_at(header, 18);
    if machine != EM_X86_64 {
        return Err(BootError::NotAKernel {
            found: format!("it is an ELF file for machine {machine}, not 62 (x86-64)"),
        });
    }
    if !matches!(u16_at(header, 16), 2 | 3) {
        return Err(BootError::BadElf("it is an object or core file, not an executable"));
    }
    let entry = u64_at(header, 24);
    let phoff = u64_at(header, 32);
    let phnum = u16_at(header, 56);
    if usize::from(u16_at(header, 54)) != PHDR {
        return Err(BootError::BadElf("its program headers have a wrong size"));
    }
    if phnum > MAX_SEGMENTS {
        return Err(BootError::BadElf("it has too many program headers"));
    }
    let table = slice(file, phoff, u64::from(phnum) * PHDR as u64)
        .ok_or(cut("the program header table", phoff.saturating_add(u64::from(phnum) * PHDR as u64)))?;

    let mut segments = Vec::new();
    let mut total = 0u64;
    for p in table.chunks_exact(PHDR) {
        let (offset, filesz, memsz) = (u64_at(p, 8), u64_at(p, 32), u64_at(p, 40));
        if u32_at(p, 0) != PT_LOAD || memsz == 0 {
            continue;
        }
        let start = u64_at(p, 24);
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
        segments.push(Segment { data, start, end });
    }
    segments.sort_by_key(|s| s.start);
    if segments.windows(2).any(|w| w[1].start < w[0].end) {
        return Err(BootError::BadElf("its segments overlap"));
    }
    if segments.is_empty() {
        return Err(BootError::BadElf("it has nothing to load"));
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
