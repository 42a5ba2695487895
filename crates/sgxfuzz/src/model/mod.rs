//! The reference model: who may see what, written from the SDM and from nothing
//! else. It shares no code with the crates it judges.
//!
//! * [`walk`]: where the page tables lead
//! * [`access`]: what becomes of a load, store or fetch
//! * [`leaf`]: ENCLS with its operands; [`encls`], [`paging`]: what comes of it
//! * [`enclu`], [`entry`]: the leaves of enclaves and their hosts; asynchronous exits

pub mod access;
pub mod encls;
pub mod enclu;
pub mod entry;
pub mod leaf;
pub mod paging;
pub mod walk;

use std::collections::BTreeMap;

use crate::layout::*;
use crate::machine::PROCESSORS;
use crate::template::Trace;

/// Number of an enclave; never used twice.
pub type Id = u32;

/// What a page of the EPC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Free,
    Secs,
    Tcs,
    Reg,
    Va,
    Trim,
}

impl Kind {
    /// PT_* (*SDM vol. 3D, "Page Type"*).
    pub fn number(self) -> u64 {
        match self {
            Kind::Secs | Kind::Free => 0,
            Kind::Tcs => 1,
            Kind::Reg => 2,
            Kind::Va => 3,
            Kind::Trim => 4,
        }
    }
    /// Belongs to an enclave, other than as its SECS.
    pub fn is_child(self) -> bool {
        matches!(self, Kind::Tcs | Kind::Reg | Kind::Trim)
    }
}

/// A page of the EPC.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Page {
    pub kind: Kind,
    /// Its enclave; of a SECS the one it is of.
    pub owner: Option<Id>,
    /// Its linear address.
    pub la: u64,
    pub r: bool,
    pub w: bool,
    pub x: bool,
    pub pending: bool,
    pub modified: bool,
    pub blocked: bool,
    pub restricted: bool,
    /// Tracking cycle of its enclave when it was blocked, restricted or retyped.
    pub cycle: u64,
    /// Content of a child page.
    pub content: Vec<u8>,
    /// Slots of a version array: the eviction each stands for.
    pub slots: Vec<u64>,
}

impl Page {
    /// A page not in use.
    pub fn free() -> Page {
        Page {
            kind: Kind::Free,
            owner: None,
            la: 0,
            r: false,
            w: false,
            x: false,
            pending: false,
            modified: false,
            blocked: false,
            restricted: false,
            cycle: 0,
            content: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// PENDING or MODIFIED.
    pub fn unaccepted(&self) -> bool {
        self.pending || self.modified
    }

    /// A 64-bit word of the content.
    pub fn word(&self, offset: usize) -> u64 {
        let bytes = self.content.get(offset..offset + 8).and_then(|bytes| bytes.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    /// Changes a 64-bit word of the content.
    pub fn set_word(&mut self, offset: usize, value: u64) {
        if let Some(bytes) = self.content.get_mut(offset..offset + 8) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// An enclave.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Enclave {
    pub base: u64,
    pub flags: u64,
    /// MISCSELECT.EXINFO.
    pub exinfo: bool,
    pub init: bool,
    pub trace: Trace,
    /// Its SECS's page, while that is in the EPC.
    pub secs: Option<usize>,
    /// Tracking cycles begun.
    pub cycle: u64,
}

impl Enclave {
    /// True if `la` is in ELRANGE.
    pub fn has(&self, la: u64) -> bool {
        la.wrapping_sub(self.base) < ELRANGE
    }
    /// DEBUG.
    pub fn debug(&self) -> bool {
        self.flags & crate::template::DEBUG != 0
    }
}

/// A translation that a processor may still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Cached {
    pub la: u64,
    pub physical: u64,
    pub kind: access::Access,
}

/// A processor inside an enclave.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Inside {
    pub enclave: Id,
    /// Page of its TCS, and where that was entered.
    pub tcs: usize,
    pub tcs_la: u64,
    /// Page of the frame that an exit writes.
    pub frame: usize,
    pub aep: u64,
    /// RSP and RBP outside.
    pub outside_stack: [u64; 2],
    pub opt_in: bool,
    pub saved_tf: bool,
    /// Tracking cycle of the entry.
    pub cycle: u64,
    pub cache: Vec<Cached>,
}

/// What an instruction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// RAX has that code, 0 for success.
    Code(u64),
    /// It succeeds and reports nothing.
    Quiet,
    /// A fault other than a page fault.
    Fault(u8),
    /// A page fault at a linear address, by the EPCM: with the SGX bit if paging
    /// led to the EPC.
    PageFault(u64, bool),
    /// A page fault by paging, with its error code.
    Paging(u64, u32),
}

/// `#GP(0)`.
pub const GP: Answer = Answer::Fault(13);

/// The model.
pub struct Model {
    /// The EPC.
    pub pages: Vec<Page>,
    /// All enclaves there ever were.
    pub enclaves: BTreeMap<Id, Enclave>,
    /// Processors, if they are inside.
    pub inside: [Option<Inside>; PROCESSORS],
    /// Evicted pages, all versions.
    pub evicted: Vec<paging::Evicted>,
    /// Number of the paging key.
    pub key: u64,
    next_id: Id,
    next_version: u64,
}

impl Default for Model {
    fn default() -> Self {
        Model {
            pages: vec![Page::free(); EPC_PAGES as usize],
            enclaves: BTreeMap::new(),
            inside: Default::default(),
            evicted: Vec::new(),
            key: 0,
            next_id: 0,
            next_version: 0,
        }
    }
}

/// The kernel's linear address of an EPC page.
pub fn window(page: usize) -> u64 {
    EPC + page as u64 * PAGE
}

impl Model {
    /// The enclave of a page.
    pub fn enclave_of(&self, page: usize) -> Option<&Enclave> {
        self.enclaves.get(&self.pages[page].owner?)
    }

    /// Pages of an enclave in the EPC, its SECS not counted.
    pub fn children(&self, id: Id) -> usize {
        self.pages.iter().filter(|page| page.kind.is_child() && page.owner == Some(id)).count()
    }

    /// Processors inside an enclave.
    pub fn threads(&self, id: Id) -> impl Iterator<Item = &Inside> {
        self.inside.iter().flatten().filter(move |inside| inside.enclave == id)
    }

    /// True if nobody can hold a translation of a page of `id` made before `cycle`
    /// was noted (*SDM vol. 3D, ETRACK*).
    pub fn tracked(&self, id: Id, cycle: u64) -> bool {
        self.enclaves[&id].cycle > cycle && self.threads(id).all(|inside| inside.cycle > cycle)
    }

    /// The EPC page at a physical address.
    pub fn epc_page(&self, physical: u64) -> Option<usize> {
        let page = physical.wrapping_sub(EPC) / PAGE;
        (physical >= EPC && page < EPC_PAGES).then_some(page as usize)
    }

    /// The id of the enclave of a SECS page.
    pub fn secs(&self, page: usize) -> Option<Id> {
        self.pages[page].owner.filter(|_| self.pages[page].kind == Kind::Secs)
    }
}
