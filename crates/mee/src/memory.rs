//! The DRAM: ciphertext, codes and tree nodes in ordinary memory, where anyone
//! who reaches the host's memory may read and change them.

use std::{io, ptr::NonNull};

use mem::raw;

use crate::{MeeError, PAGE};

/// Bytes of a page's code.
pub(crate) const TAG: usize = 16;
/// Counters in a tree node.
pub(crate) const FAN: u32 = 64;
/// Bytes of a tree node: its counters and its code.
pub(crate) const NODE: usize = FAN as usize * 8 + TAG;
/// Most counters on the processor.
const ROOT_MAX: u32 = 512;

/// An address in DRAM, in bytes from its start.
pub(crate) type At = usize;

/// The DRAM of one machine's EPC. Address space for all of it; host memory only
/// for what was written.
#[derive(Debug)]
pub(crate) struct Memory {
    map: NonNull<u8>,
    len: usize,
    tags: At,
    /// Where each tree level starts, and its number of nodes; level 0 first.
    levels: Vec<(At, u32)>,
}

// SAFETY: plain memory with a stable address, accessed by copies under the
// engine's lock.
unsafe impl Send for Memory {}

impl Memory {
    /// For `pages` pages (1 to [`crate::MAX_PAGES`]: all sums fit 64 bits).
    pub(crate) fn new(pages: u32) -> Result<Self, MeeError> {
        let tags = pages as usize * PAGE;
        let mut end = (tags + pages as usize * TAG).next_multiple_of(PAGE);
        let mut levels = Vec::new();
        let mut nodes = pages.div_ceil(FAN);
        loop {
            levels.push((end, nodes));
            end = (end + nodes as usize * NODE).next_multiple_of(PAGE);
            if nodes <= ROOT_MAX {
                break;
            }
            nodes = nodes.div_ceil(FAN);
        }
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                end,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let failed = |source| MeeError::Map { bytes: end, source };
        if map == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let map: NonNull<u8> =
            NonNull::new(map.cast()).ok_or_else(|| failed(io::ErrorKind::OutOfMemory.into()))?;
        // Huge pages would take 2 MiB for each page touched. A kernel without
        // them refuses the advice, and needs none.
        // SAFETY: advice on our own mapping that leaves its content alone.
        unsafe { libc::madvise(map.as_ptr().cast(), end, libc::MADV_NOHUGEPAGE) };
        Ok(Self { map, len: end, tags, levels })
    }

    /// Pages there are.
    pub(crate) fn pages(&self) -> u32 {
        (self.tags / PAGE) as u32
    }

    /// Node counts, level 0 first.
    pub(crate) fn levels(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().map(|(_, nodes)| *nodes)
    }

    /// Where a page's ciphertext is.
    pub(crate) fn page(&self, page: u32) -> At {
        page as usize * PAGE
    }

    /// Where a page's code is.
    pub(crate) fn tag(&self, page: u32) -> At {
        self.tags + page as usize * TAG
    }

    /// Where a tree node is.
    pub(crate) fn node(&self, level: usize, index: u32) -> At {
        self.levels[level].0 + index as usize * NODE
    }

    /// Fetches bytes, once: what is checked afterwards is this copy.
    pub(crate) fn fetch(&self, at: At, to: &mut [u8]) {
        self.check(at, to.len());
        // SAFETY: checked to be inside the mapping; the other side is a slice.
        unsafe { raw::copy(self.map.as_ptr().add(at), to.as_mut_ptr(), to.len()) };
    }

    /// Stores bytes.
    pub(crate) fn store(&mut self, at: At, from: &[u8]) {
        self.check(at, from.len());
        // SAFETY: checked to be inside the mapping; the other side is a slice.
        unsafe { raw::copy(from.as_ptr(), self.map.as_ptr().add(at), from.len()) };
    }

    fn check(&self, at: At, len: usize) {
        assert!(at <= self.len && len <= self.len - at, "{len} bytes at {at} are outside DRAM");
    }

    /// Gives all memory back; everything reads as zero afterwards.
    pub(crate) fn release(&mut self) -> Result<(), MeeError> {
        // SAFETY: our own private mapping, of which no reference exists.
        let done = unsafe { libc::madvise(self.map.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
        if done == 0 {
            return Ok(());
        }
        Err(MeeError::Map { bytes: self.len, source: io::Error::last_os_error() })
    }

    /// Searches the memory the kernel has given for it: the bytes searched and
    /// where `needle` (at most a page) is found first.
    pub(crate) fn search(&self, needle: &[u8]) -> (u64, Option<At>) {
        const CHUNK: usize = 1 << 18;
        let mut resident = vec![0u8; CHUNK];
        let mut window = vec![0u8; 2 * PAGE];
        let (mut searched, mut found) = (0, None);
        for first in (0..self.len).step_by(CHUNK * PAGE) {
            let pages = ((self.len - first) / PAGE).min(CHUNK);
            // SAFETY: inside the mapping; one byte is written per page.
            let known = unsafe {
                libc::mincore(self.map.as_ptr().add(first).cast(), pages * PAGE, resident.as_mut_ptr()) == 0
            };
            for (i, state) in resident.iter().enumerate().take(pages) {
                if known && state & 1 == 0 {
                    continue;
                }
                let at = first + i * PAGE;
                let window = &mut window[..(2 * PAGE).min(self.len - at)];
                self.fetch(at, window);
                searched += PAGE as u64;
                if found.is_none() {
                    found = window.windows(needle.len().max(1)).position(|w| w == needle).map(|o| at + o);
                }
            }
        }
        (searched, found)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unmapped once.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.len) };
    }
}
