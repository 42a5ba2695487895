//! Decoded blocks, by physical address and mode.
//!
//! A block is a run of instructions inside one page of RAM (or a single one
//! that crosses into a second page). The index leads to it by physical address;
//! [`crate::jumps`] has the shorter ways, from block to block.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::NonNull;

use mem::CodeMap;

use crate::chain::Sequence;
use crate::decode::Run;
use crate::jumps::{JumpCache, Links};

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
    #[inline(always)]
    pub(crate) fn key(self, gpa: u64) -> u64 {
        gpa << 3 | u64::from(self.single) << 2 | self.mode as u64
    }
}

/// Number of a block in the cache.
pub type BlockId = u32;

/// Leads to a block, for as long as the cache keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRef(Option<NonNull<Block>>);

// SAFETY: blocks move to another thread only with the engine that keeps them,
// and with it the processor, which alone follows references to them.
unsafe impl Send for BlockRef {}

impl BlockRef {
    /// To no block.
    pub const NONE: BlockRef = BlockRef(None);

    /// The block.
    ///
    /// # Safety
    /// It is not [`BlockRef::NONE`], and the cache still keeps the block.
    #[inline(always)]
    pub unsafe fn get<'a>(self) -> &'a Block {
        debug_assert!(self.0.is_some());
        // SAFETY: the caller's promise.
        unsafe { self.0.unwrap_unchecked().as_ref() }
    }
}

/// The cache's hold on a block.
struct Kept(NonNull<Block>);

// SAFETY: as for `BlockRef`.
unsafe impl Send for Kept {}

impl Kept {
    fn new(block: Block) -> Kept {
        Kept(NonNull::from(Box::leak(Box::new(block))))
    }

    fn reference(&self) -> BlockRef {
        BlockRef(Some(self.0))
    }

    fn get(&self) -> &Block {
        // SAFETY: from `new`, and freed by `drop` alone.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: from `new`; whoever drops this forgets the ways to the block.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

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
    /// What else names it.
    pub kind: Kind,
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
    /// Blocks of the same page that execution went on to.
    pub links: Links,
}

impl Block {
    /// A block that has not been entered anywhere.
    pub fn new(gpa: u64, second: Option<u64>, kind: Kind, source: Source, run: Run) -> Self {
        let Run { ops, len, linkable } = run;
        let count = ops.ops().len() as u64;
        Block { gpa, second, kind, len, source, ops, count, linkable, links: Links::default() }
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
    blocks: Vec<Option<Kept>>,
    free: Vec<BlockId>,
    index: Map<BlockId>,
    by_page: Map<Vec<BlockId>>,
    /// Pages other processors may still write unnoticed, with the epoch they must reach.
    unconfirmed: Map<u64>,
}

impl Cache {
    /// The block of that number, if it still exists.
    pub fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(id as usize)?.as_ref().map(Kept::get)
    }

    /// Index: the block of that kind decoded from physical address `gpa`.
    pub fn find(&self, gpa: u64, kind: Kind) -> Option<(BlockId, BlockRef)> {
        let id = *self.index.get(&kind.key(gpa))?;
        Some((id, self.blocks.get(id as usize)?.as_ref()?.reference()))
    }

    /// Adds a block; when full, forgets all others first.
    pub fn insert(&mut self, block: Block, jumps: &mut JumpCache) -> (BlockId, BlockRef) {
        if self.index.len() >= MAX_BLOCKS {
            jumps.clear();
            *self = Cache { unconfirmed: std::mem::take(&mut self.unconfirmed), ..Cache::default() };
        }
        let key = block.kind.key(block.gpa);
        let pages = [Some(block.gpa >> 12), block.second.map(|p| p >> 12)];
        let kept = Kept::new(block);
        let reference = kept.reference();
        let id = match self.free.pop() {
            Some(id) => {
                self.blocks[id as usize] = Some(kept);
                id
            }
            None => {
                self.blocks.push(Some(kept));
                (self.blocks.len() - 1) as BlockId
            }
        };
        if let Some(old) = self.index.insert(key, id) {
            self.remove(old, jumps);
        }
        for page in pages.into_iter().flatten() {
            self.by_page.entry(page).or_default().push(id);
        }
        (id, reference)
    }

    /// The bytes kept of all blocks.
    #[cfg(test)]
    pub(crate) fn sources(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().flatten().filter_map(|block| match &block.get().source {
            Source::Bytes(bytes) => Some(&**bytes),
            Source::Digest(_) => None,
        })
    }

    /// Drops a block, and all ways to it.
    pub fn remove(&mut self, id: BlockId, jumps: &mut JumpCache) {
        let Some(kept) = self.blocks.get_mut(id as usize).and_then(Option::take) else { return };
        let block = kept.get();
        let key = block.kind.key(block.gpa);
        if self.index.get(&key) == Some(&id) {
            self.index.remove(&key);
        }
        jumps.forget(key);
        for page in [Some(block.gpa >> 12), block.second.map(|p| p >> 12)].into_iter().flatten() {
            if let Some(ids) = self.by_page.get_mut(&page) {
                ids.retain(|&other| other != id);
            }
        }
        // Links are between blocks of one page.
        for &id in self.by_page.get(&(block.gpa >> 12)).into_iter().flatten() {
            if let Some(block) = self.block(id) {
                block.links.clear();
            }
        }
        self.free.push(id);
    }

    /// Drops the blocks decoded from `granules` of physical page `page`.
    pub fn invalidate(&mut self, page: u64, granules: u32, jumps: &mut JumpCache) {
        let hit: Vec<BlockId> = self
            .by_page
            .get(&page)
            .into_iter()
            .flatten()
            .copied()
            .filter(|&id| self.block(id).is_none_or(|b| b.granules(page) & granules != 0))
            .collect();
        for id in hit {
            self.remove(id, jumps);
        }
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
