//! The addresses at which tested instructions live and work, natively and in
//! Kluis. All lie below 2 GiB, so that absolute 32-bit displacements and 32-bit
//! address sizes reach them.

/// The control block of the trampoline (native only).
pub const CONTROL: u64 = 0x1000_0000;

/// First byte of the code pages (readable and executable).
pub const CODE: u64 = 0x2000_0000;
/// Code pages.
pub const CODE_PAGES: u64 = 64;
/// Bytes from one tested instruction to the next: more than a block's decoder
/// marks as code, so that new code does not invalidate old.
pub const SLOT: u64 = 512;
/// Places for a tested instruction before the code pages are used again.
pub const SLOTS: u64 = CODE_PAGES * 4096 / SLOT;

/// First byte of the data window; a wide hole lies before and after it.
pub const DATA: u64 = 0x3000_0000;
/// What the data window's pages allow, in order of addresses.
pub const DATA_PAGES: [Page; 6] = [Page::Rw, Page::Rw, Page::Ro, Page::None, Page::Rw, Page::None];
/// Bytes of the data window.
pub const DATA_BYTES: u64 = DATA_PAGES.len() as u64 * 4096;
/// Bytes around the data window where nothing is mapped on either side.
pub const HOLE: u64 = 4 << 20;

/// Base of GS during tests.
pub const GS_BASE: u64 = 0x20_0000;

/// Rights of a data page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Readable and writable.
    Rw,
    /// Read-only.
    Ro,
    /// Not present.
    None,
}

/// Data pages that are mapped, with their rights: address and page.
pub fn mapped_pages() -> impl Iterator<Item = (u64, Page)> {
    (DATA..).step_by(4096).zip(DATA_PAGES).filter(|(_, page)| *page != Page::None)
}

/// Mapped data pages.
pub const MAPPED: usize = 4;

/// Index of the mapped data page that holds `address`.
pub fn mapped_index(address: u64) -> Option<usize> {
    let number = address.checked_sub(DATA)? / 4096;
    let page = *DATA_PAGES.get(number as usize)?;
    (page != Page::None)
        .then(|| DATA_PAGES[..number as usize].iter().filter(|page| **page != Page::None).count())
}

/// True if an access of up to a few hundred bytes at `address` touches neither
/// the tester's own memory nor anything else of the host process: the data
/// window and its holes, the first page, the kernel's half, no canonical address.
pub fn harmless(address: u64) -> bool {
    (DATA - HOLE..DATA + DATA_BYTES + HOLE).contains(&address)
        || address < 0xc00
        || (0xffff_ff00_0000_0000..0xffff_ffff_0000_0000).contains(&address)
        || (!arch::paging::is_canonical(address) && !arch::paging::is_canonical(address.wrapping_add(0x1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_numbered_by_what_is_mapped() {
        assert_eq!(mapped_pages().count(), MAPPED);
        for (i, (address, _)) in mapped_pages().enumerate() {
            assert_eq!(mapped_index(address + 4095), Some(i));
        }
        assert_eq!(mapped_index(DATA + 3 * 4096), None);
        assert_eq!(mapped_index(DATA - 1), None);
        assert_eq!(mapped_index(DATA + DATA_BYTES), None);
    }

    #[test]
    fn only_harmless_addresses_are_harmless() {
        let here = &0u8 as *const u8 as u64;
        assert!(!harmless(here) && !harmless(CODE) && !harmless(CONTROL));
        assert!(harmless(DATA) && harmless(1 << 63) && harmless(0xffff_8000_0000_0000 | 0xff << 40));
        assert!(!harmless(0x7fff_ffff_f000) && !harmless(0xffff_ffff_ff60_0000));
    }
}
