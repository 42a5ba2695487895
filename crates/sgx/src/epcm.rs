//! The enclave page cache map: one entry for each EPC page (*SDM vol. 3D,
//! "Enclave Page Cache Map (EPCM)"*). Sparse: chunks appear when touched.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bitflags::bitflags;
use sgx_abi::PageType;

/// Number of an EPC page: its offset in the EPC divided by 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpcPage(pub u32);

bitflags! {
    /// The one-bit fields of an entry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// VALID
        const VALID = 1 << 0;
        /// R: the enclave may read
        const R = 1 << 1;
        /// W: the enclave may write
        const W = 1 << 2;
        /// X: the enclave may execute
        const X = 1 << 3;
        /// PENDING: added by EAUG, not yet accepted
        const PENDING = 1 << 4;
        /// MODIFIED: type changed by EMODT, not yet accepted
        const MODIFIED = 1 << 5;
        /// BLOCKED by EBLOCK: no new translations
        const BLOCKED = 1 << 6;
        /// PR: permissions restricted by EMODPR, not yet accepted
        const PR = 1 << 7;
    }
}

impl Flags {
    /// R, W and X.
    pub const RWX: Flags = Flags::R.union(Flags::W).union(Flags::X);
}

/// An EPCM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The one-bit fields.
    pub flags: Flags,
    /// PT: page type.
    pub page_type: PageType,
    /// ENCLAVESECS: the page's SECS; its own number for a SECS; meaningless for a VA page.
    pub secs: EpcPage,
    /// ENCLAVEADDRESS: linear address of the page in its enclave; 0 for SECS and VA.
    pub address: u64,
    /// Tracking epoch of the enclave when the page was blocked, restricted or retyped
    /// (see [`crate::enclave::Tracking`]).
    pub epoch: u64,
}

impl Entry {
    /// The entry of an unused page.
    pub const FREE: Entry =
        Entry { flags: Flags::empty(), page_type: PageType::Secs, secs: EpcPage(0), address: 0, epoch: 0 };

    /// VALID.
    pub fn valid(&self) -> bool {
        self.flags.contains(Flags::VALID)
    }
    /// BLOCKED.
    pub fn blocked(&self) -> bool {
        self.flags.contains(Flags::BLOCKED)
    }
    /// PENDING or MODIFIED: not usable until accepted.
    pub fn unaccepted(&self) -> bool {
        self.flags.intersects(Flags::PENDING.union(Flags::MODIFIED))
    }
    /// Valid and of that type.
    pub fn is(&self, page_type: PageType) -> bool {
        self.valid() && self.page_type == page_type
    }
}

const CHUNK: usize = 512;
type Chunk = Option<Box<[Entry; CHUNK]>>;

/// The map.
pub struct Epcm {
    pages: u32,
    chunks: Box<[Mutex<Chunk>]>,
}

impl std::fmt::Debug for Epcm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Epcm({} pages)", self.pages)
    }
}

impl Epcm {
    /// A map of `pages` unused pages.
    pub fn new(pages: u32) -> Self {
        let chunks = (pages as usize).div_ceil(CHUNK);
        Epcm { pages, chunks: (0..chunks).map(|_| Mutex::new(None)).collect() }
    }

    /// Number of EPC pages.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    fn chunk(&self, page: EpcPage) -> Option<(MutexGuard<'_, Chunk>, usize)> {
        let (chunk, at) = (page.0 as usize / CHUNK, page.0 as usize % CHUNK);
        let chunk = self.chunks.get(chunk)?;
        Some((chunk.lock().unwrap_or_else(PoisonError::into_inner), at))
    }

    /// The entry of `page`, read at once; unused beyond the EPC.
    pub fn get(&self, page: EpcPage) -> Entry {
        self.chunk(page).and_then(|(chunk, at)| chunk.as_ref().map(|c| c[at])).unwrap_or(Entry::FREE)
    }

    /// Replaces the entry of `page`.
    pub fn set(&self, page: EpcPage, entry: Entry) {
        self.update(page, |old| *old = entry);
    }

    /// Changes the entry of `page` in one step, and gives it back as it is then.
    pub fn update(&self, page: EpcPage, change: impl FnOnce(&mut Entry)) -> Entry {
        let Some((mut chunk, at)) = self.chunk(page) else { return Entry::FREE };
        let mut entry = chunk.as_ref().map_or(Entry::FREE, |c| c[at]);
        let before = entry;
        change(&mut entry);
        if entry != before {
            chunk.get_or_insert_with(|| Box::new([Entry::FREE; CHUNK]))[at] = entry;
        }
        entry
    }

    /// Marks every page unused: loss of power, or reset.
    pub fn clear(&self) {
        for chunk in &self.chunks {
            *chunk.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// All valid entries, in order; each read at its own time.
    pub fn valid(&self) -> impl Iterator<Item = (EpcPage, Entry)> + '_ {
        self.chunks.iter().enumerate().flat_map(|(i, chunk)| {
            let chunk = chunk.lock().unwrap_or_else(PoisonError::into_inner);
            let entries: Vec<_> = chunk.as_ref().map_or_else(Vec::new, |c| {
                let all = c.iter().enumerate().filter(|(_, e)| e.valid());
                all.map(|(at, e)| (EpcPage((i * CHUNK + at) as u32), *e)).collect()
            });
            entries
        })
    }
}
