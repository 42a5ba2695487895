//! Physical memory as bus masters see it: RAM, and the EPC as ones.

use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryResult, MmapRegion, Permissions,
    VolatileSlice,
};

use crate::ram::{DmaWatch, GuestRam, MemError};

const PAGE: usize = 4096;

/// Memory as devices, debuggers and other bus masters see it: RAM's bytes, and
/// abort-page semantics for the EPC: reads give ones, writes are dropped (*SDM
/// vol. 3D, Abort Page Semantics*). Other addresses are no memory.
#[derive(Clone, Debug)]
pub struct DmaBus {
    ram: Arc<GuestRam>,
    epc: Range<u64>,
    abort: Arc<AbortPage>,
}

/// What stands on the bus for a page of the EPC.
#[derive(Debug)]
struct AbortPage {
    /// Read, and never written.
    ones: MmapRegion,
    /// Written, and never read.
    sink: MmapRegion,
}

impl DmaBus {
    /// The bus of a machine with that RAM and an EPC at physical addresses `epc`.
    ///
    /// # Errors
    /// [`MemError`] if the host refuses two pages.
    pub fn new(ram: Arc<GuestRam>, epc: Range<u64>) -> Result<Self, MemError> {
        let page = || {
            MmapRegionBuilder::new(PAGE)
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
                .build()
                .map_err(|e| MemError::Reserve { bytes: PAGE as u64, reason: e.to_string() })
        };
        let abort = AbortPage { ones: page()?, sink: page()? };
        // SAFETY: the mapping has a page, and nobody else has it yet.
        unsafe { abort.ones.as_ptr().write_bytes(0xff, PAGE) };
        Ok(Self { ram, epc, abort: Arc::new(abort) })
    }

    /// Reads bytes as a bus master does; where no memory answers they are ones.
    pub fn read_or_ones(&self, address: u64, bytes: &mut [u8]) {
        bytes.fill(0xff);
        let mut done = 0;
        while done < bytes.len() {
            let Some(at) = address.checked_add(done as u64) else { return };
            let n = (bytes.len() - done).min(PAGE - (at as usize & (PAGE - 1)));
            let piece = &mut bytes[done..done + n];
            if self.read_slice(piece, GuestAddress(at)).is_err() {
                piece.fill(0xff);
            }
            done += n;
        }
    }
}

impl GuestMemory for DmaBus {
    type PhysicalMemory = GuestRam;
    type Bitmap = DmaWatch;

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.get_slices(addr, count, access).is_ok_and(|mut slices| slices.all(|slice| slice.is_ok()))
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> GuestMemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, DmaWatch>>> {
        Ok(Slices { bus: self, at: addr.0, left: count, write: access.has_write() })
    }
}

/// The host memory behind a range of bus addresses, piece by piece.
struct Slices<'a> {
    bus: &'a DmaBus,
    at: u64,
    left: usize,
    write: bool,
}

impl<'a> Slices<'a> {
    /// The piece at `at`, of `left` bytes at most.
    fn piece(&self) -> Result<VolatileSlice<'a, DmaWatch>, Error> {
        let DmaBus { ram, epc, abort } = self.bus;
        if !epc.contains(&self.at) {
            let before_epc = epc.start.checked_sub(self.at).and_then(|n| usize::try_from(n).ok());
            let n = before_epc.map_or(self.left, |n| n.min(self.left));
            let mut pieces = GuestMemoryBackend::get_slices(&**ram, GuestAddress(self.at), n);
            return pieces.next().unwrap_or(Err(Error::InvalidGuestAddress(GuestAddress(self.at))));
        }
        let offset = self.at as usize & (PAGE - 1);
        let to_end = usize::try_from(epc.end - self.at).unwrap_or(usize::MAX);
        let n = self.left.min(PAGE - offset).min(to_end);
        let page = if self.write { &abort.sink } else { &abort.ones };
        // SAFETY: `offset + n` is at most a page, which is what is mapped for as
        // long as the bus lives; other users of it are volatile too.
        Ok(unsafe { VolatileSlice::with_bitmap(page.as_ptr().add(offset), n, DmaWatch::nothing(), None) })
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = GuestMemoryResult<VolatileSlice<'a, DmaWatch>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let piece = self.piece();
        match &piece {
            Ok(slice) => {
                self.left -= slice.len();
                match self.at.checked_add(slice.len() as u64) {
                    Some(next) => self.at = next,
                    None if self.left == 0 => {}
                    None => {
                        self.left = 0;
                        return Some(Err(Error::GuestAddressOverflow));
                    }
                }
            }
            Err(_) => self.left = 0,
        }
        Some(piece)
    }
}

impl FusedIterator for Slices<'_> {}
impl<'a> GuestMemorySliceIterator<'a, DmaWatch> for Slices<'a> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ram;
    use std::sync::atomic::Ordering;

    const RAM: u64 = 0x10_0000;
    /// Right above RAM, so that accesses cross from one into the other.
    const EPC: Range<u64> = RAM..RAM + 0x3000;

    fn bus() -> (Ram, DmaBus) {
        let ram = Ram::new(&[(0, RAM), (0x100_0000, 0x1000)]).unwrap();
        let bus = DmaBus::new(ram.guest().clone(), EPC).unwrap();
        (ram, bus)
    }

    #[test]
    fn ram_is_ram() {
        let (ram, bus) = bus();
        bus.write_slice(&[1, 2, 3], GuestAddress(0x1ffe)).unwrap();
        let mut back = [0; 3];
        assert!(ram.read(0x1ffe, &mut back));
        assert_eq!(back, [1, 2, 3]);
        bus.write_slice(&[4], GuestAddress(0x100_0fff)).unwrap();
        bus.read_slice(&mut back[..1], GuestAddress(0x100_0fff)).unwrap();
        assert_eq!(back[0], 4);
    }

    #[test]
    fn the_epc_reads_ones_and_drops_writes() {
        let (_ram, bus) = bus();
        for at in [EPC.start, EPC.start + 0xffd, EPC.end - 8] {
            bus.write_slice(&[0; 8], GuestAddress(at)).unwrap();
            let mut back = [0; 8];
            bus.read_slice(&mut back, GuestAddress(at)).unwrap();
            assert_eq!(back, [0xff; 8], "{at:#x}");
        }
        bus.store(0u16, GuestAddress(EPC.start + 2), Ordering::SeqCst).unwrap();
        assert_eq!(bus.load::<u16>(GuestAddress(EPC.start + 2), Ordering::SeqCst).unwrap(), 0xffff);
        assert!(bus.load::<u32>(GuestAddress(EPC.start + 2), Ordering::SeqCst).is_err(), "misaligned");
    }

    #[test]
    fn an_access_across_the_border_is_half_and_half() {
        let (ram, bus) = bus();
        bus.write_slice(&[7; 0x2010], GuestAddress(RAM - 0x10)).unwrap();
        let mut back = [0; 0x2010];
        bus.read_slice(&mut back, GuestAddress(RAM - 0x10)).unwrap();
        assert_eq!((&back[..0x10], &back[0x10..]), (&[7; 0x10][..], &[0xff; 0x2000][..]));
        let mut end = [0; 1];
        assert!(ram.read(RAM - 1, &mut end) && end == [7]);
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let (_ram, bus) = bus();
        let mut back = [0; 16];
        for at in [EPC.end, EPC.end - 8, 0x100_0ff8, u64::MAX - 7, u64::MAX - 15] {
            assert!(bus.read_slice(&mut back, GuestAddress(at)).is_err(), "{at:#x}");
            assert!(!bus.check_range(GuestAddress(at), 16, Permissions::Write), "{at:#x}");
        }
        bus.read_or_ones(EPC.end - 8, &mut back);
        assert_eq!(back, [0xff; 16]);
        bus.read_or_ones(u64::MAX - 3, &mut back);
        assert_eq!(back, [0xff; 16]);
    }
}
