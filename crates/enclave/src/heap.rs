//! The heap: what was added with the enclave and, on SGX2, what EDMM adds.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use enclave_base::leaf;
use sgx_abi::{PAGE_SIZE, PageType, SecinfoFlags};
use spinning_top::RawSpinlock;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use crate::thread;

/// Least number of bytes by which the heap grows.
const STEP: usize = 64 << 10;

/// Whether the processor is said to have SGX2.
static GROWS: AtomicBool = AtomicBool::new(false);

/// Lets the heap grow.
pub(crate) fn allow_growth() {
    GROWS.store(true, Ordering::Release);
}

/// The global allocator.
pub struct Heap(TalcLock<RawSpinlock, Pages>);

impl Heap {
    /// A heap that takes its memory at the first allocation.
    #[allow(clippy::new_without_default, reason = "there is one heap, a static")]
    pub const fn new() -> Self {
        Self(TalcLock::new(Pages { end: None }))
    }
}

// SAFETY: all of it is the allocator's, which keeps the contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { self.0.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract.
        unsafe { self.0.realloc(ptr, layout, new_size) }
    }
}

/// The heap's pages.
#[derive(Debug)]
struct Pages {
    /// End of what the allocator has, as it wants to be told again; and of the pages.
    end: Option<(NonNull<u8>, usize)>,
}

// SAFETY: the pointer is to the enclave's memory, which no thread owns.
unsafe impl Send for Pages {}

// SAFETY: nothing here allocates.
unsafe impl Source for Pages {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, wanted: Layout) -> Result<(), ()> {
        let layout = thread::layout();
        let start = (thread::base() + layout.heap) as usize;
        match talc.source.end {
            None => {
                let size = layout.heap_size as usize;
                // SAFETY: these pages are in the enclave for this, and claimed once.
                let end = unsafe { talc.claim(start as *mut u8, size) }.ok_or(())?;
                talc.source.end = Some((end, start + size));
            }
            Some((end, pages_end)) => {
                let limit = start + layout.heap_limit as usize;
                // as much as may be needed beside what is free at the end, and then some
                let needed = wanted.size().checked_add(wanted.align()).ok_or(())?.max(STEP);
                let size = needed.checked_next_multiple_of(PAGE_SIZE).ok_or(())?.min(limit - pages_end);
                if size == 0 || !GROWS.load(Ordering::Acquire) {
                    return Err(());
                }
                let added = accept(pages_end, size);
                // SAFETY: pages that were just accepted, next to what the allocator has.
                let end = unsafe { talc.extend(end, (pages_end + added) as *mut u8) };
                talc.source.end = Some((end, pages_end + added));
                if added == 0 {
                    return Err(());
                }
            }
        }
        Ok(())
    }
}

/// Accepts pages that the kernel adds as they are touched; the bytes that came.
fn accept(from: usize, size: usize) -> usize {
    let flags = SecinfoFlags::R.union(SecinfoFlags::W).union(SecinfoFlags::PENDING);
    let flags = SecinfoFlags::new(PageType::Reg, flags);
    let pages = (from..from + size).step_by(PAGE_SIZE);
    pages.take_while(|&page| leaf::accept(page as u64, flags).is_ok()).count() * PAGE_SIZE
}
