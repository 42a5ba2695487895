//! Decoded blocks, by physical address and mode.
//!
//! A block is a run of instructions inside one page of RAM (or a single one
//! that crosses into a second page). Three ways lead to it, each shorter than
//! the next: the index by physical address, the jump cache ([`crate::jumps`]) by
//! linear address, a link from a block of the same page.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use mem::CodeMap;

use crate::chain::Sequence;
use crate::decode::Run;

/// Decoding mode: how CS makes the processor read instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Mode {
    Bits16 = 0,
    Bits32 = 1,
    Bits64 = 2,
}

/// What makes two blocks of the same bytes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Decoding mode.
    pub mode: Mode,
    /// One instruction only, to be executed by itself.
    pub single: bool,
}

impl Kind {
    /// Key of the block at `gpa` in the index.
    fn key(self, gpa: u64) -> u64 {
        gpa << 3 | u64::from(self.single) << 2 | self.mode as u64
    }
}

/// Number of a block in the cache.
pub type BlockId = u32;

/// No block.
pub const NONE: BlockId = u32::MAX;

/// What a block was decoded from, to see whether that has changed.
#[derive(Debug)]
pub enum Source {
    /// The bytes.
    Bytes(Box<[u8]>),
    /// Enclave code is not kept outside the processor: a keyed digest of it.
    Digest(u64),
}

/// A decoded block.
#[derive(Debug)]
pub struct Block {
    /// Physical address of its first byte.
    pub gpa: u64,
    /// Physical page of the second page, for an instruction that crosses.
    pub second: Option<u64>,
    kind: Kind,
    /// Bytes it takes.
    pub len: usize,
    /// What it was decoded from.
    pub source: Source,
    /// The instructions.
    pub ops: Sequence,
    /// How many they are.
    pub count: u64,
    /// Execution leaves it without any change of translation or mode, so that
    /// what follows in the same page needs no look-up.
    pub linkable: bool,
    /// Blocks of the same page that execution went on to: `(offset in page, block)`.
    pub links: [Cell<(u32, BlockId)>; 2],
}

impl Block {
    /// A block that has not been entered anywhere.
    pub fn new(gpa: u64, second: Option<u64>, kind: Kind, source: Source, run: Run) -> Self {
        let none = || Cell::new((u32::MAX, NONE));
        let Run { ops, len, linkable } = run;
        let count = ops.ops().len() as u64;
        Block { gpa, second, kind, len, source, ops, count, linkable, links: [none(), none()] }
    }

    /// True if `other` was decoded in the same mode and stays in its page.
    pub fn same_kind(&self, other: &Block) -> bool {
        self.linkable && self.kind == other.kind && self.second.is_none() && other.second.is_none()
    }

    /// Granules of `page` it was decoded from.
    fn granules(&self, page: u64) -> u32 {
        let offset = self.gpa & 0xfff;
        let len = self.len as u64;
        if self.gpa >> 12 == page {
            CodeMap::granules(offset, len)
        } else {
            CodeMap::granules(0, (offset + len).saturating_sub(0x1000))
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Source::Digest(_) = self.source {
            // Enclave code in its decoded form.
            self.ops.wipe();
        }
    }
}

/// Hashes one `u64` by multiplication.
#[derive(Default)]
pub struct U64Hasher(u64);
impl Hasher for U64Hasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let x = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 32);
    }
}
type Map<V> = HashMap<u64, V, BuildHasherDefault<U64Hasher>>;

/// Blocks kept before the cache starts afresh.
const MAX_BLOCKS: usize = 1 << 18;

/// The code cache of one processor.
#[derive(Default)]
pub struct Cache {
    blocks: Vec<Option<Box<Block>>>,
    free: Vec<BlockId>,
    index: Map<BlockId>,
    by_page: Map<Vec<BlockId>>,
    /// Pages other processors may still write unnoticed, with the epoch they must reach.
    unconfirmed: Map<u64>,
}

impl Cache {
    /// The block of that number, if it still exists.
    #[inline(always)]
    pub fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(id as usize)?.as_deref()
    }

    /// Index: the block of that kind decoded from physical address `gpa`.
    pub fn find(&self, gpa: u64, kind: Kind) -> Option<BlockId> {
        self.index.get(&kind.key(gpa)).copied()
    }

    /// Adds a block; when full, forgets all others first, and says so: the
    /// caller then clears the jump cache.
    pub fn insert(&mut self, block: Block) -> (BlockId, bool) {
        let full = self.index.len() >= MAX_BLOCKS;
        if full {
            *self = Cache { unconfirmed: std::mem::take(&mut self.unconfirmed), ..Cache::default() };
        }
        let key = block.kind.key(block.gpa);
        let pages = [Some(block.gpa >> 12), block.second.map(|p| p >> 12)];
        let id = match self.free.pop() {
            Some(id) => {
                self.blocks[id as usize] = Some(Box::new(block));
                id
            }
            None => {
                self.blocks.push(Some(Box::new(block)));
                (self.blocks.len() - 1) as BlockId
            }
        };
        if let Some(old) = self.index.insert(key, id) {
            self.remove(old);
        }
        for page in pages.into_iter().flatten() {
            self.by_page.entry(page).or_default().push(id);
        }
        (id, full)
    }

    /// The bytes kept of all blocks.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().flatten().filter_map(|block| match &block.source {
            Source::Bytes(bytes) => Some(&**bytes),
            Source::Digest(_) => None,
        })
    }

    fn remove(&mut self, id: BlockId) {
        let Some(block) = self.blocks.get_mut(id as usize).and_then(Option::take) else { return };
        let key = block.kind.key(block.gpa);
        if self.index.get(&key) == Some(&id) {
            self.index.remove(&key);
        }
        for page in [Some(block.gpa >> 12), block.second.map(|p| p >> 12)].into_iter().flatten() {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.retain(|&other| other != id);
            }
        }
        self.forget_links(block.gpa >> 12);
        self.free.push(id);
    }

    /// Forgets links inside `page`.
    fn forget_links(&mut self, page: u64) {
        for &id in self.by_page.get(&page).into_iter().flatten() {
            if let Some(block) = self.block(id) {
                block.links.iter().for_each(|link| link.set((u32::MAX, NONE)));
            }
        }
    }

    /// Drops the blocks decoded from `granules` of physical page `page`. The
    /// caller clears the jump cache.
    pub fn invalidate(&mut self, page: u64, granules: u32) {
        let hit: Vec<BlockId> = self
            .by_page
            .get(&page)
            .into_iter()
            .flatten()
            .copied()
            .filter(|&id| self.block(id).is_none_or(|b| b.granules(page) & granules != 0))
            .collect();
        for id in hit {
            self.remove(id);
        }
    }

    /// Drops one block. The caller clears the jump cache.
    pub fn drop_block(&mut self, id: BlockId) {
        self.remove(id);
    }

    /// Notes that `page` is trusted only when all processors have seen `epoch`.
    pub fn set_unconfirmed(&mut self, page: u64, epoch: u64) {
        self.unconfirmed.insert(page, epoch);
    }

    /// The epoch `page` waits for.
    pub fn unconfirmed(&self, page: u64) -> Option<u64> {
        self.unconfirmed.get(&page).copied()
    }

    /// `page` can be trusted.
    pub fn confirm(&mut self, page: u64) {
        self.unconfirmed.remove(&page);
    }
}
