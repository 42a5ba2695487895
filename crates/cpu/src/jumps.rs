//! The ways from block to block, each shorter than the index of the cache:
//!
//! * a block's *links*, to two blocks of its own page, need no look at the
//!   translation, which the block has proved;
//! * the *jump cache* leads from a physical address to a block. It serves indirect
//!   branches, returns and branches to other pages, through the translations of
//!   fetches in the TLB; so a block is found in every address space, and a change
//!   of translations is none of its business.
//!
//! They are taken in the branch's own handler (`Cpu::onward`), a bounded number
//! of times: a chain of handlers may be as deep a chain of calls ([`crate::chain`]).
//!
//! Ways are entered only to code that no processor can write unnoticed, and
//! forgotten with the block (`Cache::remove`), which happens between chains.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use arch::paging::PAGE_MASK;

use crate::Cpu;
use crate::cache::{Block, BlockRef, Kind, Mode};
use crate::chain::Chain;

/// Instructions after which a chain comes back to the engine at the end of a block.
pub(crate) const CHAIN: u64 = 256;

/// The links of a block: offsets in its page, and the blocks there.
#[derive(Debug)]
pub struct Links([Cell<(u64, BlockRef)>; 2]);

impl Default for Links {
    fn default() -> Self {
        Links([NO_LINK; 2].map(Cell::new))
    }
}

/// With an offset that no two places have: they are canonical, so less than 2⁴⁹ apart.
const NO_LINK: (u64, BlockRef) = (1 << 63, BlockRef::NONE);

impl Links {
    /// The block at `offset` in the page.
    #[inline(always)]
    fn get(&self, offset: u64) -> Option<BlockRef> {
        let [first, second] = &self.0;
        let (first, second) = (first.get(), second.get());
        if first.0 == offset {
            Some(first.1)
        } else if second.0 == offset {
            Some(second.1)
        } else {
            None
        }
    }

    /// Enters a link if there is room.
    fn add(&self, offset: u64, to: BlockRef) {
        if let Some(free) = self.0.iter().find(|link| link.get() == NO_LINK) {
            free.set((offset, to));
        }
    }

    /// Forgets the links.
    pub fn clear(&self) {
        self.0.iter().for_each(|link| link.set(NO_LINK));
    }
}

/// Entries of the jump cache; a power of two.
const SIZE: usize = 1 << 13;

/// The jump cache: direct-mapped, by the keys of the cache's index (`Kind::key`).
pub struct JumpCache(Box<[(u64, BlockRef); SIZE]>);

const NO_JUMP: (u64, BlockRef) = (u64::MAX, BlockRef::NONE);

impl Default for JumpCache {
    fn default() -> Self {
        JumpCache(vec![NO_JUMP; SIZE].into_boxed_slice().try_into().expect("length"))
    }
}

impl JumpCache {
    /// Blocks of one page, mostly, do not share entries.
    #[inline(always)]
    fn slot(key: u64) -> usize {
        ((key >> 3) ^ (key >> 10)) as usize & (SIZE - 1)
    }

    #[inline(always)]
    fn get(&self, key: u64) -> Option<BlockRef> {
        let jump = self.0[Self::slot(key)];
        (jump.0 == key).then_some(jump.1)
    }

    /// Enters a block of one page.
    pub fn set(&mut self, key: u64, block: BlockRef) {
        self.0[Self::slot(key)] = (key, block);
    }

    /// Forgets a block.
    pub fn forget(&mut self, key: u64) {
        let jump = &mut self.0[Self::slot(key)];
        if jump.0 == key {
            *jump = NO_JUMP;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.fill(NO_JUMP);
    }
}

impl Cpu {
    /// Executes a block, and those that follow it until `end` instructions have
    /// retired; those of the last, [`Cpu::block`], are counted only if it came through.
    ///
    /// # Safety
    /// The cache of this processor's engine keeps the block.
    #[inline(always)]
    pub(crate) unsafe fn run_chain(&mut self, block: BlockRef, end: u64) -> Chain {
        self.chain_end = end.min(self.retired + CHAIN);
        // SAFETY: the caller's promise.
        unsafe {
            self.s.regs.set_page_ip(self.s.rip.wrapping_sub(block.get().gpa & !PAGE_MASK));
            self.enter(block)
        }
    }

    /// Goes on to the block at RIP, after all instructions of [`Cpu::block`]; or
    /// ends the chain there, if anything is to be looked at.
    ///
    /// # Safety
    /// [`Cpu::block`] is kept by the cache of this processor's engine.
    #[inline(always)]
    pub(crate) unsafe fn onward(&mut self) -> Chain {
        // SAFETY: the caller's promise.
        let block = unsafe { self.block.get() };
        self.retired += block.count;
        if self.retired >= self.chain_end || self.shared.pending.load(Ordering::Relaxed) != 0 {
            return Chain::Through;
        }
        match block.links.get(self.s.rip.wrapping_sub(self.s.regs.page_ip())) {
            // SAFETY: links lead to blocks that the cache keeps.
            Some(to) => unsafe { self.enter(to) },
            // SAFETY: as for the block.
            None => unsafe { self.onward_by_jump() },
        }
    }

    #[inline(never)]
    unsafe fn onward_by_jump(&mut self) -> Chain {
        // SAFETY: the caller's promise; the jump cache leads to blocks that the
        // cache keeps.
        unsafe {
            match self.jump(self.block.get()) {
                Some(to) => self.enter(to),
                None => Chain::Through,
            }
        }
    }

    /// Executes a block; what RIP-relative addresses go by is set already.
    ///
    /// # Safety
    /// The cache keeps it.
    #[inline(always)]
    pub(crate) unsafe fn enter(&mut self, to: BlockRef) -> Chain {
        self.block = to;
        // SAFETY: the caller's promise.
        unsafe { to.get().ops.run(self) }
    }

    /// The block at RIP that follows `block`, if the jump cache leads to one.
    fn jump(&mut self, block: &Block) -> Option<BlockRef> {
        if !block.linkable || block.kind.mode != Mode::Bits64 {
            return self.jump_anew();
        }
        let rip = self.s.rip;
        let offset = rip.wrapping_sub(self.s.regs.page_ip());
        let inside = offset < 0x1000;
        let page = if inside { block.gpa & PAGE_MASK } else { self.tlb.fetch(rip, self.s.cpl == 3)? };
        let to = self.jumps.get(block.kind.key(page | rip & !PAGE_MASK))?;
        if inside {
            block.links.add(offset, to);
        } else {
            self.s.regs.set_page_ip(rip & PAGE_MASK);
        }
        Some(to)
    }

    /// The same after a block whose end may have changed flags, privilege level, mode
    /// or translations: what the engine looks at between such blocks is looked at here.
    fn jump_anew(&mut self) -> Option<BlockRef> {
        if self.unsettled() || self.mode() != Mode::Bits64 {
            return None;
        }
        let to = self.known_block(self.s.rip, Kind { mode: Mode::Bits64, single: false })?;
        self.s.regs.set_page_ip(self.s.rip & PAGE_MASK);
        Some(to)
    }

    /// The block of that kind at linear address `la`, if the jump cache leads to it.
    #[inline]
    pub(crate) fn known_block(&self, la: u64, kind: Kind) -> Option<BlockRef> {
        let page = self.tlb.fetch(la, self.s.cpl == 3)?;
        self.jumps.get(kind.key(page | la & !PAGE_MASK))
    }
}
