//! Which RAM holds decoded code.
//!
//! Every page of RAM has one word with a bit for each of its 32 granules of
//! 128 bytes. A processor sets bits *before* it reads code bytes to decode
//! them; whoever writes RAM looks *after* writing. One of the two then sees
//! the other, so no stale block outlives a write:
//!
//! * a writer that finds bits clears them and tells every listener
//!   ([`CodeListener::code_written`]), which drops the blocks concerned;
//! * the first code in a page is announced ([`CodeListener::code_appeared`]), so
//!   that processors give up translations that let them write there unnoticed.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// log2 of the bytes of a granule.
pub const GRANULE_SHIFT: u32 = 7;

/// A processor, as the code map sees it.
pub trait CodeListener: Send + Sync {
    /// Granules (bits) of physical page `page` (address / 4096) were written.
    fn code_written(&self, page: u64, granules: u32);
    /// Page `page` holds code from now on; see [`CodeMap::epoch`].
    fn code_appeared(&self, page: u64);
}

/// The code map of one machine; shared by processors and devices.
pub struct CodeMap {
    pages: Box<[AtomicU32]>,
    listeners: OnceLock<Vec<Arc<dyn CodeListener>>>,
    epoch: AtomicU64,
}

impl std::fmt::Debug for CodeMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CodeMap({} pages)", self.pages.len())
    }
}

impl CodeMap {
    /// A map for physical addresses below `top` bytes.
    pub fn new(top: u64) -> Self {
        let zeroed = vec![0u32; (top >> 12) as usize].into_boxed_slice();
        // SAFETY: AtomicU32 has u32's size, alignment and valid values. The
        // vector comes zeroed from the allocator, so large maps cost nothing
        // until touched.
        let pages = unsafe { Box::from_raw(Box::into_raw(zeroed) as *mut [AtomicU32]) };
        Self { pages, listeners: OnceLock::new(), epoch: AtomicU64::new(0) }
    }

    /// Names the processors to tell; once, before any of them runs.
    pub fn set_listeners(&self, listeners: Vec<Arc<dyn CodeListener>>) {
        let _ = self.listeners.set(listeners);
    }

    fn listeners(&self) -> &[Arc<dyn CodeListener>] {
        self.listeners.get().map_or(&[], |v| v)
    }

    /// Bits of the granules that `len` bytes at `offset` of a page touch.
    pub fn granules(offset: u64, len: u64) -> u32 {
        if len == 0 {
            return 0;
        }
        let first = (offset & 0xfff) >> GRANULE_SHIFT;
        let last = ((offset & 0xfff) + len - 1).min(0xfff) >> GRANULE_SHIFT;
        ((2u64 << last) - (1u64 << first)) as u32
    }

    /// True if the map reaches physical address `gpa`.
    pub fn covers(&self, gpa: u64) -> bool {
        gpa >> 12 < self.pages.len() as u64
    }

    /// True if the page holds any decoded code.
    #[inline]
    pub fn has_code(&self, page: u64) -> bool {
        self.pages.get(page as usize).is_some_and(|w| w.load(Ordering::Relaxed) != 0)
    }

    /// Number of times code appeared in a page that had none. A processor that
    /// has dealt with every announcement up to this number can no longer write
    /// such a page unnoticed.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Marks granules as code, before their bytes are read for decoding.
    /// Returns the epoch all *other* processors must reach before the page's
    /// code can be trusted to stay as decoded, or `None` if the page had code.
    pub fn mark(&self, page: u64, granules: u32) -> Option<u64> {
        let word = self.pages.get(page as usize)?;
        let before = word.fetch_or(granules, Ordering::SeqCst);
        if before != 0 {
            return None;
        }
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        for listener in self.listeners() {
            listener.code_appeared(page);
        }
        Some(epoch)
    }

    /// Notes that `len` bytes at physical address `gpa` have been written; true
    /// if there was code, whose decoded form is now on its way out.
    pub fn written(&self, gpa: u64, len: u64) -> bool {
        let end = gpa.saturating_add(len);
        let (mut at, mut hit) = (gpa, false);
        while at < end {
            let next = (at | 0xfff).saturating_add(1).min(end);
            hit |= self.written_in_page(at >> 12, Self::granules(at, next - at));
            at = next;
        }
        hit
    }

    fn written_in_page(&self, page: u64, granules: u32) -> bool {
        let Some(word) = self.pages.get(page as usize) else { return false };
        // The write must be visible before the look at the bits.
        super::raw::fence();
        if word.load(Ordering::SeqCst) & granules == 0 {
            return false;
        }
        let hit = word.fetch_and(!granules, Ordering::SeqCst) & granules;
        if hit != 0 {
            for listener in self.listeners() {
                listener.code_written(page, hit);
            }
        }
        hit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Log(Mutex<Vec<(u64, u32)>>);
    impl CodeListener for Log {
        fn code_written(&self, page: u64, granules: u32) {
            self.0.lock().unwrap().push((page, granules));
        }
        fn code_appeared(&self, page: u64) {
            self.0.lock().unwrap().push((page, 0));
        }
    }

    #[test]
    fn granules_cover_exactly_the_bytes() {
        assert_eq!(CodeMap::granules(0, 1), 1);
        assert_eq!(CodeMap::granules(127, 2), 3);
        assert_eq!(CodeMap::granules(0xfff, 9), 1 << 31);
        assert_eq!(CodeMap::granules(0, 4096), u32::MAX);
        assert_eq!(CodeMap::granules(5, 0), 0);
    }

    #[test]
    fn a_write_reports_marked_granules_once() {
        let (map, log) = (CodeMap::new(0x4000), Arc::new(Log::default()));
        map.set_listeners(vec![log.clone()]);
        assert_eq!(map.mark(1, 0b100), Some(1));
        assert_eq!(map.mark(1, 0b1000), None);
        map.written(0x1000, 128); // another granule
        map.written(0x0ff0, 0x1000); // across pages, hits both
        map.written(0x1100, 4);
        map.written(u64::MAX - 8, 100); // beyond RAM: nothing
        assert_eq!(*log.0.lock().unwrap(), [(1, 0), (1, 0b1100)]);
        assert!(!map.has_code(1));
    }
}
