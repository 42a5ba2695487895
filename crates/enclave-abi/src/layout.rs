//! An enclave's address space.
//!
//! ```text
//! 0            image        pages of the ELF file, its layout filled in
//!              (a page)     nothing: a guard
//! heap         heap         added with the enclave, not measured
//!              reserve      grows into this, by EDMM
//!              (a page)     nothing
//! threads      thread 0     each:  (a page)         nothing
//!              thread 1            stack            not measured
//!              …                   (a page)         nothing
//!                                  handler's stack  for exceptions; not measured
//!                                  data             of the thread; FS and GS base; measured
//!                                  SSA × 2          not measured
//!                                  TCS
//!              (to a power of two)
//! ```
//!
//! What is not measured is written before it is read: heap, stacks, and SSA frames that
//! only the processor fills.

use sgx_abi::{PAGE_SIZE, PageType, SecinfoFlags, Tcs};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

const PAGE: u64 = PAGE_SIZE as u64;

/// Pages of an SSA frame.
pub const SSA_FRAME_PAGES: u32 = 1;
/// SSA frames of a thread: one for the exit from enclave code, one for an exit from the
/// handler of exceptions.
pub const SSA_FRAMES: u32 = 2;
/// Bytes of the stack on which a thread's exceptions are handled.
pub const HANDLER_STACK: u64 = 8 * PAGE;
/// Most threads of an enclave.
pub const MAX_THREADS: u32 = 1024;
/// Largest size of an enclave, in bytes: what the processors in question accept.
pub const MAX_SIZE: u64 = 1 << 36;

/// Pages of a thread beside its stack: 2 guards, handler's stack, data, SSA, TCS.
const THREAD_EXTRA: u64 = 2 * PAGE + HANDLER_STACK + PAGE + SSA_FRAMES as u64 * PAGE + PAGE;

/// What somebody chose for an enclave, in bytes (multiples of a page).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Heap that is there from the start.
    pub heap: u64,
    /// What the heap may grow to, at least `heap`; growth takes SGX2.
    pub heap_limit: u64,
    /// Stack of each thread.
    pub stack: u64,
    /// Number of threads, each with its TCS.
    pub threads: u32,
}

impl Default for Settings {
    /// 1 MiB of heap, growing to 64 MiB; 4 threads with stacks of 128 KiB.
    fn default() -> Self {
        Self { heap: 1 << 20, heap_limit: 64 << 20, stack: 128 << 10, threads: 4 }
    }
}

/// The ELF file, as far as the layout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// End of the last segment, in bytes.
    pub size: u64,
    /// DT_RELA: where the relocations are; 0 without any.
    pub rela: u64,
    /// Number of relocations.
    pub rela_count: u64,
}

/// Where everything lies; the content of [`crate::build::LAYOUT_SECTION`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Layout {
    /// [`Layout::MAGIC`], also before the tool has filled in the rest.
    pub magic: [u8; 8],
    /// [`Layout::VERSION`], likewise.
    pub version: u64,
    /// Size of the enclave: a power of two.
    pub size: u64,
    /// Bytes of the image, whole pages.
    pub image_size: u64,
    /// Offset of the relocations (`Elf64_Rela`).
    pub rela: u64,
    /// Number of relocations.
    pub rela_count: u64,
    /// Offset of the heap.
    pub heap: u64,
    /// Bytes of the heap that are added with the enclave.
    pub heap_size: u64,
    /// Bytes that the heap may grow to.
    pub heap_limit: u64,
    /// Offset of the first thread's part.
    pub threads: u64,
    /// Bytes from a thread's part to the next.
    pub thread_stride: u64,
    /// Bytes of a thread's stack.
    pub stack_size: u64,
    /// Number of threads.
    pub thread_count: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// Offsets of one thread's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Lowest byte of the stack.
    pub stack: u64,
    /// Lowest byte of the handler's stack.
    pub handler_stack: u64,
    /// The thread's own page.
    pub data: u64,
    /// First SSA frame.
    pub ssa: u64,
    /// TCS.
    pub tcs: u64,
}

/// What the pages of an [`Area`] hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Zeros, which are measured.
    Zero,
    /// Zeros, which are not measured.
    Unmeasured,
    /// The TCS of this thread ([`Layout::tcs`]), which is measured.
    Tcs(u32),
}

/// Consecutive pages beside the image that are added to the enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Of the first page.
    pub offset: u64,
    /// Bytes, whole pages.
    pub size: u64,
    /// Type and permissions.
    pub flags: SecinfoFlags,
    /// What the pages hold.
    pub content: Content,
    /// What it is, in words.
    pub name: &'static str,
}

/// Why there is no layout for an image and settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The named setting is no positive multiple of 4096.
    NotPages(&'static str),
    /// `heap_limit` is below `heap`.
    HeapLimit,
    /// No thread, or more than [`MAX_THREADS`].
    Threads,
    /// The relocations lie outside the image.
    Relocations,
    /// All together is more than [`MAX_SIZE`].
    TooLarge,
}

impl core::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotPages(what) => write!(f, "{what} is not whole pages: choose a multiple of 4096"),
            Self::HeapLimit => f.write_str("heap-limit is below heap: raise it or leave it out"),
            Self::Threads => write!(f, "threads is out of range: choose 1 to {MAX_THREADS}"),
            Self::Relocations => f.write_str("the relocations lie outside the image: the file is damaged"),
            Self::TooLarge => {
                write!(
                    f,
                    "the enclave exceeds {} GiB: choose a smaller heap, stack or number of threads",
                    MAX_SIZE >> 30
                )
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// First bytes of every layout.
    pub const MAGIC: [u8; 8] = *b"KLUISENC";
    /// Version of this contract; a tool refuses an enclave of another.
    pub const VERSION: u64 = 1;

    /// What the enclave's ELF file holds before the tool fills it in.
    pub const BLANK: Layout = Layout {
        magic: Self::MAGIC,
        version: Self::VERSION,
        size: 0,
        image_size: 0,
        rela: 0,
        rela_count: 0,
        heap: 0,
        heap_size: 0,
        heap_limit: 0,
        threads: 0,
        thread_stride: 0,
        stack_size: 0,
        thread_count: 0,
        reserved: [0; 3],
    };

    /// Lays out an enclave.
    pub fn new(image: &Image, settings: &Settings) -> Result<Layout, LayoutError> {
        for (what, size) in
            [("heap", settings.heap), ("heap-limit", settings.heap_limit), ("stack", settings.stack)]
        {
            if size == 0 || size % PAGE != 0 {
                return Err(LayoutError::NotPages(what));
            }
        }
        if settings.heap_limit < settings.heap {
            return Err(LayoutError::HeapLimit);
        }
        if settings.threads == 0 || settings.threads > MAX_THREADS {
            return Err(LayoutError::Threads);
        }
        // each below 2^36, and at most 1024 stacks: no sum overflows
        if image.size.max(settings.heap_limit).max(settings.stack) > MAX_SIZE {
            return Err(LayoutError::TooLarge);
        }
        let relocations_end = image.rela_count.checked_mul(24).and_then(|size| size.checked_add(image.rela));
        if relocations_end.is_none_or(|end| end > image.size) {
            return Err(LayoutError::Relocations);
        }
        let image_size = image.size.next_multiple_of(PAGE);
        let heap = image_size + PAGE;
        let threads = heap + settings.heap_limit + PAGE;
        let thread_stride = settings.stack + THREAD_EXTRA;
        let thread_count = u64::from(settings.threads);
        let size = (threads + thread_count * thread_stride).next_power_of_two();
        if size > MAX_SIZE {
            return Err(LayoutError::TooLarge);
        }
        Ok(Layout {
            size,
            image_size,
            rela: image.rela,
            rela_count: image.rela_count,
            heap,
            heap_size: settings.heap,
            heap_limit: settings.heap_limit,
            threads,
            thread_stride,
            stack_size: settings.stack,
            thread_count,
            ..Self::BLANK
        })
    }

    /// The part of thread `index`, which must be below [`Layout::thread_count`].
    pub const fn thread(&self, index: u32) -> Thread {
        let stack = self.threads + index as u64 * self.thread_stride + PAGE;
        let handler_stack = stack + self.stack_size + PAGE;
        let data = handler_stack + HANDLER_STACK;
        let ssa = data + PAGE;
        let tcs = ssa + SSA_FRAMES as u64 * SSA_FRAME_PAGES as u64 * PAGE;
        Thread { stack, handler_stack, data, ssa, tcs }
    }

    /// The TCS of thread `index` of an enclave whose entry point is at `entry`.
    pub fn tcs(&self, index: u32, entry: u64) -> Tcs {
        let thread = self.thread(index);
        let mut tcs = Tcs::new_zeroed();
        tcs.ossa = thread.ssa;
        tcs.nssa = SSA_FRAMES;
        tcs.oentry = entry;
        tcs.ofsbase = thread.data;
        tcs.ogsbase = thread.data;
        tcs.fslimit = 0xfff;
        tcs.gslimit = 0xfff;
        tcs
    }

    /// Everything beside the image, by ascending offsets.
    pub fn areas(&self) -> impl Iterator<Item = Area> + use<> {
        let layout = *self;
        let rw = SecinfoFlags::new(PageType::Reg, SecinfoFlags::R.union(SecinfoFlags::W));
        let area = move |offset, size, content, name| Area { offset, size, flags: rw, content, name };
        let heap = area(layout.heap, layout.heap_size, Content::Unmeasured, "heap");
        let threads = (0..layout.thread_count as u32).flat_map(move |index| {
            let thread = layout.thread(index);
            [
                area(thread.stack, layout.stack_size, Content::Unmeasured, "stack"),
                area(thread.handler_stack, HANDLER_STACK, Content::Unmeasured, "handler's stack"),
                area(thread.data, PAGE, Content::Zero, "thread data"),
                area(thread.ssa, thread.tcs - thread.ssa, Content::Unmeasured, "SSA"),
                Area {
                    flags: SecinfoFlags::new(PageType::Tcs, SecinfoFlags::empty()),
                    ..area(thread.tcs, PAGE, Content::Tcs(index), "TCS")
                },
            ]
        });
        core::iter::once(heap).chain(threads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Image = Image { size: 0x12345, rela: 0x1000, rela_count: 10 };

    #[test]
    fn areas_are_in_order_and_apart() {
        for threads in [1, 2, 7, MAX_THREADS] {
            let settings = Settings { threads, ..Settings::default() };
            let layout = Layout::new(&IMAGE, &settings).unwrap();
            assert!(layout.size.is_power_of_two());
            let mut end = layout.image_size;
            let mut tcs = 0;
            for area in layout.areas() {
                assert!(area.offset >= end && area.size > 0, "{area:?}");
                assert_eq!((area.offset | area.size) % PAGE, 0);
                // a stack that overflows finds nothing below itself
                if area.name.ends_with("stack") {
                    assert!(area.offset > end, "{area:?}");
                }
                end = area.offset + area.size;
                if let Content::Tcs(index) = area.content {
                    assert_eq!(index, tcs);
                    assert_eq!(layout.thread(index).tcs, area.offset);
                    assert_eq!(area.flags.page_type(), Some(PageType::Tcs));
                    let page = layout.tcs(index, 0x1000);
                    assert!(page.reserved_is_zero() && page.ossa + 2 * PAGE == area.offset);
                    tcs += 1;
                }
            }
            assert_eq!(tcs, threads);
            assert!(end <= layout.size);
        }
    }

    #[test]
    fn settings_that_cannot_be() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            Layout::new(&IMAGE, &settings)
        };
        assert_eq!(with(|s| s.heap = 5000), Err(LayoutError::NotPages("heap")));
        assert_eq!(with(|s| s.stack = 0), Err(LayoutError::NotPages("stack")));
        assert_eq!(with(|s| s.heap_limit = 4096), Err(LayoutError::HeapLimit));
        assert_eq!(with(|s| s.threads = 0), Err(LayoutError::Threads));
        assert_eq!(with(|s| s.threads = MAX_THREADS + 1), Err(LayoutError::Threads));
        assert_eq!(with(|s| s.heap_limit = !4095), Err(LayoutError::TooLarge));
        assert_eq!(with(|s| (s.stack, s.threads) = (1 << 30, 1024)), Err(LayoutError::TooLarge));
        for rela_count in [4000, u64::MAX] {
            let image = Image { rela_count, ..IMAGE };
            assert_eq!(Layout::new(&image, &Settings::default()), Err(LayoutError::Relocations));
        }
    }

    #[test]
    fn a_layout_is_128_bytes() {
        assert_eq!(size_of::<Layout>(), 128);
    }
}
