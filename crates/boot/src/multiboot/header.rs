//! The header in the image (*Multiboot specification 0.6.96 §3.1*).

use crate::{BootError, Layout, Loaded, elf};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

const MAGIC: u32 = 0x1bad_b002;
/// The header lies within so many bytes of the start of the file, at a multiple of 4.
const SEARCHED: usize = 8192;
/// Page-aligned modules, and information on memory: given anyway.
const GIVEN: u32 = 0b11;
/// A video mode is wished for; images live without one, as with QEMU.
const VIDEO: u32 = 1 << 2;
/// What a loader must understand, or refuse.
const MANDATORY: u32 = 0xffff;
/// The address fields are valid.
const ADDRESSES: u32 = 1 << 16;

/// A header that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    /// Offset in the file.
    at: usize,
    flags: u32,
    /// From the header on.
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// The header in `file`.
    pub(super) fn find(file: &'a [u8]) -> Option<Self> {
        let searched = &file[..file.len().min(SEARCHED)];
        (0..searched.len()).step_by(4).find_map(|at| {
            let [magic, flags, checksum] = [0, 4, 8].map(|field| word(searched, at + field));
            let valid = magic? == MAGIC && MAGIC.wrapping_add(flags?).wrapping_add(checksum?) == 0;
            Some(Header { at, flags: flags?, bytes: &file[at..] }).filter(|_| valid)
        })
    }

    /// Refuses what the image demands and there is not.
    pub(super) fn check(&self) -> Result<(), BootError> {
        if self.flags & MANDATORY & !(GIVEN | VIDEO) != 0 {
            return Err(BootError::Multiboot(
                "its header asks for features that version 0.6.96 does not know (flags 3 to 15)",
            ));
        }
        Ok(())
    }

    /// What the address fields say, if they are valid: which part of `file` goes
    /// where.
    pub(super) fn placement(&self, file: &'a [u8]) -> Result<Option<Placement<'a>>, BootError> {
        if self.flags & ADDRESSES == 0 {
            return Ok(None);
        }
        let have = file.len() as u64;
        let cut = |need| BootError::Truncated { what: "the multiboot image", need, have };
        let field = |at| word(self.bytes, at).map(u64::from).ok_or(cut(self.at as u64 + 32));
        let [header, load, load_end, bss_end, entry] =
            [field(12)?, field(16)?, field(20)?, field(24)?, field(28)?];
        let wrong = |what| Err(BootError::Multiboot(what));

        let before = header.checked_sub(load).filter(|before| *before <= self.at as u64);
        let Some(from) = before.map(|before| self.at as u64 - before) else {
            return wrong("its header does not lie where its address fields say");
        };
        let length = match load_end {
            0 => have - from,
            end if end >= load => end - load,
            _ => return wrong("it ends before it begins (load_end_addr)"),
        };
        let data = usize::try_from(from)
            .ok()
            .zip(usize::try_from(from + length).ok())
            .and_then(|(from, to)| file.get(from..to))
            .ok_or(cut(from + length))?;
        let end = match bss_end {
            0 => load + length,
            end if end >= load + length => end,
            _ => return wrong("its .bss ends before its data (bss_end_addr)"),
        };
        if !(load..end).contains(&entry) {
            return wrong("its entry point is outside of it (entry_addr)");
        }
        Ok(Some(Placement { data, start: load, end, entry }))
    }
}

/// A part of the file, and where it goes.
#[derive(Debug)]
pub(super) struct Placement<'a> {
    data: &'a [u8],
    start: u64,
    end: u64,
    entry: u64,
}

impl Placement<'_> {
    /// Writes it into memory.
    pub(super) fn load(&self, mem: &impl GuestMemory, layout: &Layout) -> Result<Loaded, BootError> {
        layout.require_usable("kernel", self.start, self.end)?;
        mem.write_slice(self.data, GuestAddress(self.start))?;
        elf::zero(mem, self.start + self.data.len() as u64, self.end)?;
        Ok(Loaded { start: self.start, end: self.end, entry: self.entry })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
