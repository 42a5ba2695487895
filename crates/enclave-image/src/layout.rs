//! From a program to the pages of an enclave.

use crate::elf::{Program, Segment};
use crate::sgxs::{Enclave, Page};
use enclave_abi::layout::SSA_FRAME_PAGES;
use enclave_abi::{Content, Layout, LayoutError, Settings};
use sgx_abi::{PAGE_SIZE, PageType, SecinfoFlags};
use zerocopy::IntoBytes;

/// Lays out a program with its heap and threads.
///
/// # Errors
/// The settings do not make an enclave.
pub fn lay_out(program: &Program<'_>, settings: &Settings) -> Result<Enclave, LayoutError> {
    let layout = Layout::new(&program.image, settings)?;
    let mut pages = program_pages(program, 0);
    fill_in(&mut pages, program.layout, layout.as_bytes());
    Ok(with_areas(pages, &layout, program.entry))
}

/// The enclave of these pages of an image, with heap and threads, which enter at `entry`.
pub(crate) fn with_areas(mut pages: Vec<Page>, layout: &Layout, entry: u64) -> Enclave {
    for area in layout.areas() {
        let (measured, data) = match area.content {
            Content::Zero => (Page::MEASURED, None),
            Content::Unmeasured => (0, None),
            Content::Tcs(index) => {
                let tcs = layout.tcs(index, entry);
                (Page::MEASURED, Some(Box::new(tcs.as_bytes().try_into().expect("a page"))))
            }
        };
        for n in 0..area.size / PAGE_SIZE as u64 {
            let offset = area.offset + n * PAGE_SIZE as u64;
            pages.push(Page { offset, flags: area.flags, measured, data: data.clone() });
        }
    }
    Enclave { size: layout.size, ssa_frame_pages: SSA_FRAME_PAGES, pages }
}

/// Pages of a program whose image begins at `base`.
pub(crate) fn program_pages(program: &Program<'_>, base: u64) -> Vec<Page> {
    let mut pages = Vec::new();
    for segment in &program.segments {
        segment_pages(segment, base, &mut pages);
    }
    pages
}

fn segment_pages(segment: &Segment<'_>, base: u64, pages: &mut Vec<Page>) {
    let mut rights = SecinfoFlags::R;
    rights.set(SecinfoFlags::W, segment.writable);
    rights.set(SecinfoFlags::X, segment.executable);
    let flags = SecinfoFlags::new(PageType::Reg, rights);
    let page = PAGE_SIZE as u64;
    let (start, end) = (segment.start / page * page, segment.start + segment.size);
    // the segment's data with the zeros before it in its first page
    let before = (segment.start - start) as usize;
    for offset in (start..end).step_by(PAGE_SIZE) {
        let at = (offset - start) as usize;
        let from = at.saturating_sub(before);
        let to = (at + PAGE_SIZE).saturating_sub(before).min(segment.data.len());
        let data = segment.data.get(from..to).filter(|bytes| !bytes.is_empty()).map(|bytes| {
            let mut content = Box::new([0; PAGE_SIZE]);
            let skip = before.saturating_sub(at);
            content[skip..skip + bytes.len()].copy_from_slice(bytes);
            content
        });
        pages.push(Page { offset: base + offset, flags, measured: Page::MEASURED, data });
    }
}

/// Overwrites bytes of the image that lie in pages with content.
pub(crate) fn fill_in(pages: &mut [Page], offset: u64, bytes: &[u8]) {
    for (at, &byte) in (offset..).zip(bytes) {
        let page = at / PAGE_SIZE as u64 * PAGE_SIZE as u64;
        let found = pages.binary_search_by_key(&page, |p| p.offset).ok();
        let data = found.and_then(|n| pages[n].data.as_mut()).expect("the file gives the layout's place");
        data[(at - page) as usize] = byte;
    }
}
