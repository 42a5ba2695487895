//! The jump cache: from linear addresses to blocks.

use crate::cache::BlockId;

/// Pages of the jump cache, and entries for each; powers of two.
const PAGES: usize = 128;
const SLOTS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Jump {
    la: u64,
    key: u64,
    block: BlockId,
}

const NO_JUMP: Jump = Jump { la: 0, key: u64::MAX, block: crate::cache::NONE };

/// Direct-mapped, with the entries of a page together so that a page can be forgotten.
pub struct JumpCache {
    jumps: Box<[Jump; PAGES * SLOTS]>,
    /// Part of each key, above those of [`JumpCache::get`]: what was entered
    /// under an earlier number is forgotten.
    generation: u64,
}

/// Bits of the keys that users of the cache make.
const KEY_BITS: u32 = 24;

impl Default for JumpCache {
    fn default() -> Self {
        let jumps = vec![NO_JUMP; PAGES * SLOTS].into_boxed_slice();
        JumpCache { jumps: jumps.try_into().expect("length"), generation: 0 }
    }
}

impl JumpCache {
    #[inline(always)]
    fn slot(la: u64) -> usize {
        let page = (la >> 12) as usize & (PAGES - 1);
        page * SLOTS + ((la ^ (la >> 6)) as usize & (SLOTS - 1))
    }

    /// The block at linear address `la`; `key` names address space, mode and
    /// rights, below 2²⁴.
    #[inline(always)]
    pub fn get(&self, la: u64, key: u64) -> Option<BlockId> {
        let jump = &self.jumps[Self::slot(la)];
        (jump.la == la && jump.key == key | self.generation).then_some(jump.block)
    }

    /// Enters a block.
    pub fn set(&mut self, la: u64, key: u64, block: BlockId) {
        debug_assert!(key < 1 << KEY_BITS);
        self.jumps[Self::slot(la)] = Jump { la, key: key | self.generation, block };
    }

    /// Forgets the page of `la`, whose translation changes; and the page
    /// before, whose last instruction may reach into it.
    pub fn forget_page(&mut self, la: u64) {
        for page in [la >> 12, (la >> 12).wrapping_sub(1)] {
            let first = (page as usize & (PAGES - 1)) * SLOTS;
            self.jumps[first..first + SLOTS].fill(NO_JUMP);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.generation += 1 << KEY_BITS;
        // A number that comes again would bring old entries with it.
        if self.generation >> 63 != 0 {
            self.generation = 0;
            self.jumps.fill(NO_JUMP);
        }
    }
}
