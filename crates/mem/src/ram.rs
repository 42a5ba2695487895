//! The VM's RAM: host memory and its place in the physical address map.

use std::fs::File;
use std::sync::Arc;

use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

use crate::code::CodeMap;

/// Guest RAM by `vm-memory`'s traits, with every write reported to the code map.
pub type GuestRam = GuestMemoryMmap<DmaWatch>;

/// Why RAM could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemError {
    /// The host refused the mapping.
    #[error("cannot reserve {bytes} bytes of guest memory: {reason}; choose a smaller --memory")]
    Reserve {
        /// Bytes asked for.
        bytes: u64,
        /// What the host said.
        reason: String,
    },
}

/// Reports device writes to RAM to the code map; `vm-memory` calls it a bitmap.
#[derive(Clone, Debug)]
pub struct DmaWatch {
    /// None where a write reaches no memory.
    code: Option<Arc<CodeMap>>,
    base: u64,
}

impl DmaWatch {
    /// Watches nothing.
    pub(crate) fn nothing() -> Self {
        Self { code: None, base: 0 }
    }
}

impl WithBitmapSlice<'_> for DmaWatch {
    type S = DmaWatch;
}
impl BitmapSlice for DmaWatch {}
impl Bitmap for DmaWatch {
    fn mark_dirty(&self, offset: usize, len: usize) {
        if let Some(code) = &self.code {
            code.written(self.base + offset as u64, len as u64);
        }
    }
    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }
    fn slice_at(&self, offset: usize) -> DmaWatch {
        DmaWatch { code: self.code.clone(), base: self.base + offset as u64 }
    }
}

/// One piece of RAM: physical start, bytes, host address.
#[derive(Clone, Copy, Debug)]
struct Region {
    gpa: u64,
    len: u64,
    host: *mut u8,
}

/// RAM as processors see it: page look-ups without locks or reference counts.
#[derive(Clone, Debug)]
pub struct Ram {
    regions: Arc<[Region]>,
    guest: Arc<GuestRam>,
    code: Arc<CodeMap>,
}

// SAFETY: the host pointers lead to memory that `guest` keeps mapped for as
// long as this value lives; all access to it is by `raw` or by `vm-memory`,
// both made for memory that others write at the same time.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// Reserves RAM at the given physical `(start, bytes)` ranges, which are
    /// page-aligned, ascending and disjoint. Host memory is taken when touched.
    ///
    /// # Errors
    /// [`MemError`] if the host refuses the memory.
    pub fn new(ranges: &[(u64, u64)]) -> Result<Self, MemError> {
        Self::with_top(ranges, 0)
    }

    /// The same, with a code map that reaches at least up to physical address
    /// `top`: for memory that is executed but is not RAM (the EPC).
    ///
    /// # Errors
    /// [`MemError`] if the host refuses the memory.
    pub fn with_top(ranges: &[(u64, u64)], top: u64) -> Result<Self, MemError> {
        Self::mapped(ranges, top, None)
    }

    /// The same with content: `file`, from `offset` on, holds the ranges one after
    /// the other. Pages are read when touched and copied when written; the file
    /// itself is not changed, and must not be while this lives.
    ///
    /// # Errors
    /// [`MemError`] if the host refuses the memory, or the file is too short.
    pub fn restored(
        ranges: &[(u64, u64)],
        top: u64,
        file: &Arc<File>,
        offset: u64,
    ) -> Result<Self, MemError> {
        Self::mapped(ranges, top, Some((file, offset)))
    }

    fn mapped(
        ranges: &[(u64, u64)],
        top: u64,
        mut content: Option<(&Arc<File>, u64)>,
    ) -> Result<Self, MemError> {
        let top = ranges.iter().map(|&(gpa, len)| gpa + len).fold(top, u64::max);
        let code = Arc::new(CodeMap::new(top));
        let mut mapped = Vec::new();
        for &(gpa, len) in ranges {
            let fail = |reason: String| MemError::Reserve { bytes: len, reason };
            let watch = DmaWatch { code: Some(code.clone()), base: gpa };
            let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
            let region = MmapRegionBuilder::new_with_bitmap(len as usize, watch)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
            let region = match &mut content {
                None => region.with_mmap_flags(flags | libc::MAP_ANONYMOUS),
                Some((file, offset)) => {
                    let at = FileOffset::from_arc(file.clone(), *offset);
                    *offset += len;
                    region.with_mmap_flags(flags).with_file_offset(at)
                }
            };
            let region = region.build().map_err(|e| fail(e.to_string()))?;
            let region = GuestRegionMmap::new(region, GuestAddress(gpa))
                .ok_or_else(|| fail("address range overflows".into()))?;
            mapped.push(region);
        }
        let bytes = ranges.iter().map(|r| r.1).sum();
        let guest = GuestMemoryMmap::from_regions(mapped)
            .map_err(|e| MemError::Reserve { bytes, reason: e.to_string() })?;
        let regions = guest
            .iter()
            .map(|r| {
                use vm_memory::GuestMemoryRegion;
                Region { gpa: r.start_addr().0, len: r.len(), host: r.as_ptr() }
            })
            .collect();
        Ok(Self { regions, guest: Arc::new(guest), code })
    }

    /// The same RAM by `vm-memory`'s traits; devices see it through a [`DmaBus`](crate::DmaBus).
    pub fn guest(&self) -> &Arc<GuestRam> {
        &self.guest
    }

    /// The machine's code map.
    pub fn code(&self) -> &Arc<CodeMap> {
        &self.code
    }

    /// Host address of the page that holds physical address `gpa`, or `None`
    /// if no RAM is there. Valid for the page's 4096 bytes while `self` lives.
    #[inline]
    pub fn page(&self, gpa: u64) -> Option<*mut u8> {
        for region in self.regions.iter() {
            let offset = (gpa & !0xfff).wrapping_sub(region.gpa);
            if offset < region.len {
                // SAFETY: `offset` lies inside the region's mapping.
                return Some(unsafe { region.host.add(offset as usize) });
            }
        }
        None
    }

    /// Reads bytes of RAM; `false`, with nothing promised of `buf`, if any of them is not RAM.
    pub fn read(&self, gpa: u64, buf: &mut [u8]) -> bool {
        use vm_memory::Bytes;
        self.guest.read_slice(buf, GuestAddress(gpa)).is_ok()
    }

    /// Writes bytes of RAM, observed by the code map; `false` if any of them is not RAM.
    pub fn write(&self, gpa: u64, buf: &[u8]) -> bool {
        use vm_memory::Bytes;
        self.guest.write_slice(buf, GuestAddress(gpa)).is_ok()
    }
}
