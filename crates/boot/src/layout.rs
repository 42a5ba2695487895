//! Guest physical memory map: where RAM is, what is reserved, and where the
//! boot structures go.
//!
//! ```text
//! 0x0000_0400  for a multiboot image: words of the BIOS data area
//! 0x0000_0500  boot GDT
//! 0x0000_7000  zero page (struct boot_params)
//! 0x0000_9000  identity page tables, 6 pages; for a multiboot image all it is told
//! 0x0002_0000  command line
//! 0x0009_fc00  reserved from here (where a PC has EBDA, VGA and ROMs)
//! 0x000e_0000  ACPI tables, RSDP first; FACS in the last page
//! 0x0010_0000  RAM: kernel at its link address, initrd as high as allowed
//! ```

use crate::BootError;
use std::ops::Range;

/// Boot GDT, physical address.
pub const GDT_START: u64 = 0x500;
/// Zero page (`struct boot_params`), physical address.
pub const ZERO_PAGE_START: u64 = 0x7000;
/// Level-4 page table; the five other tables follow it.
pub const PAGE_TABLES_START: u64 = 0x9000;
/// What a multiboot image is told: information, memory map, modules, texts.
pub const MULTIBOOT_START: u64 = 0x9000;
/// Command line, physical address.
pub const CMDLINE_START: u64 = 0x2_0000;
/// Longest command line that the room at [`CMDLINE_START`] takes, in bytes
/// without the terminating zero.
pub const CMDLINE_MAX: usize = 0xffff;
/// End of conventional memory; reserved from here to [`HIGH_MEMORY`].
pub const LOW_MEMORY_END: u64 = 0x9_fc00;
/// Start of memory above the first MiB.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// End of the identity mapping, and of what the loader uses.
pub const IDENTITY_END: u64 = 1 << 32;
/// Default place of the ACPI tables: found by the RSDP scan as well.
pub const ACPI: Range<u64> = 0xe_0000..0xf_f000;
/// Default place of the FACS.
pub const ACPI_NVS: Range<u64> = 0xf_f000..0x10_0000;

/// Most E820 entries the zero page holds (`E820_MAX_ENTRIES_ZEROPAGE`).
pub const E820_MAX: usize = 128;

/// Kind of an E820 range (*ACPI 6.5 ch. 15*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Kind {
    /// Free for the kernel.
    Ram = 1,
    /// Not for the kernel's use.
    Reserved = 2,
    /// ACPI tables; could be reclaimed once read.
    Acpi = 3,
    /// ACPI memory that must be kept (FACS).
    Nvs = 4,
}

/// One E820 entry; `range` in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// Physical addresses.
    pub range: Range<u64>,
    /// Kind.
    pub kind: E820Kind,
}

/// Guest physical memory as the kernel is told about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// RAM, ascending, without overlaps, bounds at multiples of 4 KiB. The
    /// first range starts at 0.
    pub ram: Vec<Range<u64>>,
    /// Ranges to be reported reserved (ECAM window, EPC …). They may cut RAM.
    pub reserved: Vec<Range<u64>>,
    /// ACPI tables, below 1 MiB; the RSDP is at the start.
    pub acpi: Range<u64>,
    /// FACS, below 1 MiB; at least one page.
    pub nvs: Range<u64>,
}

impl Layout {
    /// Layout with the given RAM and reserved ranges and default places for
    /// all else.
    #[must_use]
    pub fn new(ram: Vec<Range<u64>>, reserved: Vec<Range<u64>>) -> Self {
        Layout { ram, reserved, acpi: ACPI, nvs: ACPI_NVS }
    }

    /// Physical address of the RSDP.
    #[must_use]
    pub fn rsdp(&self) -> u64 {
        self.acpi.start
    }

    /// Checks what [`crate::load`] and [`crate::acpi::write`] rely on.
    ///
    /// # Errors
    /// [`BootError::Layout`] naming the first rule broken.
    pub fn validate(&self) -> Result<(), BootError> {
        let fail = |s: String| Err(BootError::Layout(s));
        let mut last = 0;
        for (i, r) in self.ram.iter().enumerate() {
            if r.start >= r.end || (r.start | r.end) & 0xfff != 0 || r.end > 1 << 52 {
                return fail(format!("RAM range {r:#x?} is empty, not in whole pages or above 2^52"));
            }
            if i > 0 && r.start < last {
                return fail(format!("RAM range {r:#x?} overlaps or precedes another"));
            }
            last = r.end;
        }
        if self.ram.first().is_none_or(|r| r.start != 0 || r.end <= HIGH_MEMORY) {
            return fail("RAM must start at 0 and reach above 1 MiB".into());
        }
        for r in &self.reserved {
            if r.start >= r.end || r.start < HIGH_MEMORY {
                return fail(format!("reserved range {r:#x?} is empty or below 1 MiB"));
            }
        }
        let low = |r: &Range<u64>| {
            r.start >= 0xa_0000 && r.start < r.end && r.end <= HIGH_MEMORY && r.start & 0xfff == 0
        };
        if !low(&self.acpi) || !low(&self.nvs) || self.nvs.end - self.nvs.start < 64 {
            return fail("ACPI ranges must be whole pages in 0xa0000..0x100000".into());
        }
        if self.acpi.start < self.nvs.end && self.nvs.start < self.acpi.end {
            return fail("ACPI ranges overlap".into());
        }
        if self.e820().len() > E820_MAX {
            return fail(format!("more than {E820_MAX} memory ranges; merge some"));
        }
        Ok(())
    }

    /// The memory map for the kernel: ascending, without overlaps.
    #[must_use]
    pub fn e820(&self) -> Vec<E820Entry> {
        let mut fixed = vec![
            E820Entry { range: self.acpi.clone(), kind: E820Kind::Acpi },
            E820Entry { range: self.nvs.clone(), kind: E820Kind::Nvs },
        ];
        // The legacy area is reserved where it is not ACPI's.
        let taken = [self.acpi.clone(), self.nvs.clone()];
        fixed.extend(
            subtract(LOW_MEMORY_END..HIGH_MEMORY, &taken)
                .into_iter()
                .map(|range| E820Entry { range, kind: E820Kind::Reserved }),
        );
        for range in merged(&self.reserved) {
            fixed.push(E820Entry { range, kind: E820Kind::Reserved });
        }
        let cut: Vec<_> = fixed.iter().map(|e| e.range.clone()).collect();
        let mut map = fixed;
        for ram in &self.ram {
            map.extend(
                subtract(ram.clone(), &cut).into_iter().map(|range| E820Entry { range, kind: E820Kind::Ram }),
            );
        }
        map.sort_by_key(|e| e.range.start);
        map
    }

    /// RAM ranges from 1 MiB on that the kernel may use.
    pub fn usable(&self) -> impl Iterator<Item = Range<u64>> {
        self.e820()
            .into_iter()
            .filter(|e| e.kind == E820Kind::Ram && e.range.start >= HIGH_MEMORY)
            .map(|e| e.range)
    }

    /// Checks that `start..end` is usable RAM below [`IDENTITY_END`].
    ///
    /// # Errors
    /// [`BootError::NoRoom`].
    pub fn require_usable(&self, what: &'static str, start: u64, end: u64) -> Result<(), BootError> {
        let mut ram_end = 0;
        for r in self.usable() {
            let r = r.start..r.end.min(IDENTITY_END);
            if r.start <= start && start <= end && end <= r.end {
                return Ok(());
            }
            if r.start <= start {
                ram_end = r.end;
            }
        }
        Err(BootError::NoRoom { what, start, end, ram_end })
    }
}

/// Parts of `whole` that are in none of `holes`, ascending.
pub(crate) fn subtract(whole: Range<u64>, holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut parts = Vec::new();
    let mut at = whole.start;
    for h in merged(holes) {
        if h.end <= at {
            continue;
        }
        if h.start >= whole.end {
            break;
        }
        if h.start > at {
            parts.push(at..h.start);
        }
        at = h.end;
    }
    if at < whole.end {
        parts.push(at..whole.end);
    }
    parts
}

fn merged(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<_> = ranges.iter().filter(|r| r.start < r.end).cloned().collect();
    sorted.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for r in sorted {
        match out.last_mut() {
            Some(l) if r.start <= l.end => l.end = l.end.max(r.end),
            _ => out.push(r),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)] // one RAM range is meant
mod tests {
    use super::*;

    #[test]
    fn e820_of_a_plain_machine() {
        let l = Layout::new(vec![0..0x8000_0000, 1 << 32..2 << 32], vec![0xe000_0000..0xf000_0000]);
        l.validate().unwrap();
        let want = [
            (0, 0x9_fc00, E820Kind::Ram),
            (0x9_fc00, 0xe_0000, E820Kind::Reserved),
            (0xe_0000, 0xf_f000, E820Kind::Acpi),
            (0xf_f000, 0x10_0000, E820Kind::Nvs),
            (0x10_0000, 0x8000_0000, E820Kind::Ram),
            (0xe000_0000, 0xf000_0000, E820Kind::Reserved),
            (1 << 32, 2 << 32, E820Kind::Ram),
        ];
        let got: Vec<_> = l.e820().into_iter().map(|e| (e.range.start, e.range.end, e.kind)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn reserved_ranges_cut_ram() {
        let l = Layout::new(
            vec![0..0x1000_0000],
            vec![0x400_0000..0x500_0000, 0x480_0000..0x600_0000, 0xfff_f000..0x1000_1000],
        );
        let usable: Vec<_> = l.usable().collect();
        assert_eq!(usable, [0x10_0000..0x400_0000, 0x600_0000..0xfff_f000]);
        assert!(l.require_usable("x", 0x3ff_f000, 0x400_0001).is_err());
        assert!(l.require_usable("x", 0x3ff_f000, 0x400_0000).is_ok());
        let map = l.e820();
        assert!(map.windows(2).all(|w| w[0].range.end <= w[1].range.start));
    }

    #[test]
    fn broken_layouts_are_refused() {
        let bad = |ram, reserved| Layout::new(ram, reserved).validate().unwrap_err().to_string();
        assert!(bad(vec![], vec![]).contains("start at 0"));
        assert!(bad(vec![0..0x10_0000], vec![]).contains("1 MiB"));
        assert!(bad(vec![0x1000..0x20_0000], vec![]).contains("start at 0"));
        assert!(bad(vec![0..0x20_0800], vec![]).contains("whole pages"));
        assert!(bad(vec![0..0x20_0000, 0x1f_f000..0x30_0000], vec![]).contains("overlaps"));
        assert!(bad(vec![0..0x20_0000], vec![0x1000..0x2000]).contains("below 1 MiB"));
        let mut l = Layout::new(vec![0..0x20_0000], vec![]);
        l.nvs = 0xe_0000..0xe_1000;
        assert!(l.validate().is_err());
        let many = (0..200).map(|i| 0x1_0000_0000 + i * 0x2000..0x1_0000_1000 + i * 0x2000).collect();
        assert!(bad(vec![0..0x20_0000], many).contains("128"));
    }
}
