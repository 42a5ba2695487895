//! The software TLB.
//!
//! A tag is a page's linear address with, in its low twelve bits, the number
//! of a *context* (one for each address space in use) and [`SLOW`]. So a hit is
//! one comparison, changing address spaces changes one number, and flushing an
//! address space gives it a new number. Entries that every access must be
//! looked at — devices, pages with decoded code, watched pages — carry
//! [`SLOW`], which no fast comparison matches.
//!
//! Each context spreads its pages over the tables in an order of its own (its
//! *salt*), so that two of them that take turns do not drive out each other's.

use arch::paging::PAGE_MASK;

/// Entries for each kind of rights; a power of two.
const SIZE: usize = 1024;
/// Tag bit: valid translation, but not for the fast path.
pub const SLOW: u64 = 1 << 11;
/// For [`Tlb::set_rights`]: a table without entries, so that every access is looked at.
pub const NO_FAST_PATH: u8 = 3;
/// Contexts in use at a time; 0 is never used, so zeroed entries match nothing.
const CONTEXTS: u64 = 1 << 11;
/// Entries of the look-aside of instruction fetches.
const FETCH_SIZE: usize = 256;

/// Orders in which contexts spread their pages over a table; a power of two.
const SALTS: usize = 8;

/// Where a table of `size` has the page of `la` for contexts of that salt.
#[inline(always)]
const fn slot(la: u64, salt: usize, size: usize) -> usize {
    ((la >> 12) as usize & (size - 1)) ^ (salt * (size / SALTS))
}

/// A data translation.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(32))]
pub struct Entry {
    /// Tag that allows reads.
    pub read: u64,
    /// Tag that allows writes.
    pub write: u64,
    /// Host address minus linear address; meaningless for devices.
    pub addend: u64,
    /// Physical address of the page.
    pub gpa: u64,
}

/// A fetch translation.
#[derive(Clone, Copy, Default, Debug)]
struct Fetch {
    tag: u64,
    gpa: u64,
}

/// Range of linear addresses, by half of the address space, that large pages
/// may have left entries for.
#[derive(Clone, Copy, Debug)]
struct LargeRange {
    first: u64,
    last: u64,
}

const NO_RANGE: LargeRange = LargeRange { first: u64::MAX, last: 0 };

/// The TLB of one logical processor.
pub struct Tlb {
    /// One table for each kind of rights, and one that stays empty.
    entries: Box<[Entry; 4 * SIZE]>,
    fetch: Box<[Fetch; 2 * FETCH_SIZE]>,
    /// Context number of the current address space.
    context: u64,
    /// The context's salt.
    salt: usize,
    /// Rights in force.
    rights: usize,
    /// First entry of the table for them, with the salt in the bits below.
    base: usize,
    next_context: u64,
    /// Context of each PCID, 0 if flushed.
    by_pcid: Box<[u16; 4096]>,
    large: [LargeRange; 2],
}

impl Default for Tlb {
    fn default() -> Self {
        let mut tlb = Tlb {
            entries: vec![Entry::default(); 4 * SIZE].into_boxed_slice().try_into().expect("length"),
            fetch: vec![Fetch::default(); 2 * FETCH_SIZE].into_boxed_slice().try_into().expect("length"),
            context: 0,
            salt: 0,
            rights: 0,
            base: 0,
            next_context: 1,
            by_pcid: vec![0u16; 4096].into_boxed_slice().try_into().expect("length"),
            large: [NO_RANGE; 2],
        };
        tlb.select(0, true);
        tlb
    }
}

impl Tlb {
    /// The tag a fast access to `la` must find.
    #[inline(always)]
    pub fn tag(&self, la: u64) -> u64 {
        la & PAGE_MASK | self.context
    }

    /// Chooses the table for the rights in force (0, 1, 2), or [`NO_FAST_PATH`].
    #[inline(always)]
    pub fn set_rights(&mut self, rights: u8) {
        self.rights = (rights as usize).min(3);
        self.base = (self.rights * SIZE) | slot(0, self.salt, SIZE);
    }

    fn set_context(&mut self, context: u16) {
        self.context = u64::from(context);
        self.salt = usize::from(context) % SALTS;
        self.set_rights(self.rights as u8);
    }

    /// The entry for `la` with the rights in force.
    #[inline(always)]
    pub fn entry(&self, la: u64) -> &Entry {
        // `base` is below 4 * SIZE; the mask tells the compiler.
        &self.entries[(self.base ^ slot(la, 0, SIZE)) & (4 * SIZE - 1)]
    }

    /// The entry for `la` with given rights.
    #[inline]
    pub fn entry_for(&self, la: u64, rights: u8) -> &Entry {
        &self.entries[(rights as usize).min(2) * SIZE + slot(la, self.salt, SIZE)]
    }

    /// The same, to be changed.
    #[inline]
    pub fn entry_mut(&mut self, la: u64, rights: u8) -> &mut Entry {
        &mut self.entries[(rights as usize).min(2) * SIZE + slot(la, self.salt, SIZE)]
    }

    /// Physical page of a fetch translation.
    #[inline]
    pub fn fetch(&self, la: u64, user: bool) -> Option<u64> {
        let entry = &self.fetch[usize::from(user) * FETCH_SIZE + slot(la, self.salt, FETCH_SIZE)];
        (entry.tag == self.tag(la)).then_some(entry.gpa)
    }

    /// Enters a fetch translation.
    pub fn fill_fetch(&mut self, la: u64, user: bool, gpa: u64) {
        let tag = self.tag(la);
        self.fetch[usize::from(user) * FETCH_SIZE + slot(la, self.salt, FETCH_SIZE)] =
            Fetch { tag, gpa: gpa & PAGE_MASK };
    }

    /// Notes that `la` is mapped by a large page, of which more entries may follow.
    pub fn note_large(&mut self, la: u64) {
        let range = &mut self.large[(la >> 63) as usize];
        // 1 GiB around covers either size of large page.
        range.first = range.first.min(la & !0x3fff_ffff);
        range.last = range.last.max(la | 0x3fff_ffff);
    }

    /// INVLPG: forgets the page of `la` in every address space; everything, if a
    /// large page may be concerned.
    pub fn invalidate_page(&mut self, la: u64) {
        let range = self.large[(la >> 63) as usize];
        if (range.first..=range.last).contains(&la) {
            return self.flush_all();
        }
        for salt in 0..SALTS {
            for table in 0..3 {
                let entry = &mut self.entries[table * SIZE + slot(la, salt, SIZE)];
                if (entry.read ^ la) & PAGE_MASK == 0 || (entry.write ^ la) & PAGE_MASK == 0 {
                    *entry = Entry::default();
                }
            }
            for table in 0..2 {
                let entry = &mut self.fetch[table * FETCH_SIZE + slot(la, salt, FETCH_SIZE)];
                if (entry.tag ^ la) & PAGE_MASK == 0 {
                    *entry = Fetch::default();
                }
            }
        }
    }

    /// Makes `pcid` the current address space, forgetting its translations if `flush`.
    pub fn select(&mut self, pcid: u16, flush: bool) {
        let pcid = usize::from(pcid & 0xfff);
        if flush || self.by_pcid[pcid] == 0 {
            self.by_pcid[pcid] = self.new_context();
        }
        self.set_context(self.by_pcid[pcid]);
    }

    /// Makes a context without translations the current one, for enclave mode;
    /// [`Tlb::select`] leaves it for good.
    pub fn select_enclave(&mut self) {
        let context = self.new_context();
        self.set_context(context);
    }

    /// Forgets the data translations of the current context to host addresses
    /// for which `gone` holds.
    pub fn drop_hosts(&mut self, gone: impl Fn(*const u8) -> bool) {
        let context = self.context;
        for entry in self.entries.iter_mut() {
            let host = entry.addend.wrapping_add(entry.read & PAGE_MASK);
            if entry.addend != 0 && entry.read & !PAGE_MASK & !SLOW == context && gone(host as *const u8) {
                *entry = Entry::default();
            }
        }
    }

    /// Forgets the translations of `pcid`, current or not.
    pub fn flush_pcid(&mut self, pcid: u16, current: u16) {
        self.by_pcid[usize::from(pcid & 0xfff)] = 0;
        self.select(current, false);
    }

    /// Forgets everything; `current` stays the address space.
    pub fn flush_all(&mut self) {
        let current = self.by_pcid.iter().position(|&c| u64::from(c) == self.context).unwrap_or(0);
        self.by_pcid.fill(0);
        self.large = [NO_RANGE; 2];
        self.select(current as u16, true);
    }

    fn new_context(&mut self) -> u16 {
        if self.next_context == CONTEXTS {
            self.entries.fill(Entry::default());
            self.fetch.fill(Fetch::default());
            self.by_pcid.fill(0);
            self.large = [NO_RANGE; 2];
            self.next_context = 1;
        }
        let context = self.next_context;
        self.next_context += 1;
        context as u16
    }

    /// Takes away the fast path of writes to pages for which `slow(gpa)` holds.
    pub fn slow_writes(&mut self, slow: impl Fn(u64) -> bool) {
        for entry in self.entries.iter_mut() {
            if entry.write != 0 && entry.write & SLOW == 0 && slow(entry.gpa) {
                entry.write |= SLOW;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LA: u64 = 0xffff_8000_0123_4000;

    fn fill(tlb: &mut Tlb, gpa: u64) {
        let tag = tlb.tag(LA);
        *tlb.entry_mut(LA, 1) = Entry { read: tag, write: tag, addend: 0, gpa };
        tlb.fill_fetch(LA, false, gpa);
    }

    /// What the current context knows of the page, for data and fetches.
    fn known(tlb: &Tlb) -> (Option<u64>, Option<u64>) {
        let entry = tlb.entry(LA);
        ((entry.read == tlb.tag(LA)).then_some(entry.gpa), tlb.fetch(LA, false))
    }

    #[test]
    fn contexts_keep_a_page_each_until_it_is_invalidated() {
        let mut tlb = Tlb::default();
        tlb.set_rights(1);
        for pcid in 1..=SALTS as u16 {
            tlb.select(pcid, true);
            fill(&mut tlb, u64::from(pcid) << 12);
        }
        for pcid in 1..=SALTS as u16 {
            tlb.select(pcid, false);
            let gpa = Some(u64::from(pcid) << 12);
            assert_eq!(known(&tlb), (gpa, gpa));
        }
        tlb.invalidate_page(LA + 0x1000);
        assert!(known(&tlb).0.is_some(), "another page");
        tlb.invalidate_page(LA + 0xfff);
        for pcid in 1..=SALTS as u16 {
            tlb.select(pcid, false);
            assert_eq!(known(&tlb), (None, None), "pcid {pcid}");
        }
    }
}
