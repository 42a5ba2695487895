//! The engine's state under its lock: pages between slots and DRAM.

use std::collections::VecDeque;

use mem::secret::SecretSlice;

use crate::{
    Loss, MeeError, PAGE,
    cipher::{Checks, Cipher},
    evict::Batch,
    memory::{Memory, TAG},
    slots::{SlotMemory, SlotTable},
    tree::{Context, Tree, Word},
};

/// Counters since the last reset.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) fills: u64,
    pub(crate) rescues: u64,
    pub(crate) write_backs: u64,
    pub(crate) verified: u64,
    pub(crate) uncached: u64,
    /// Pages whose memory was ever written.
    pub(crate) stored: u64,
}

pub(crate) struct State {
    /// None once lost.
    pub(crate) cipher: Option<Cipher>,
    pub(crate) memory: Memory,
    pub(crate) tree: Tree,
    pub(crate) table: SlotTable,
    /// A page on its way between DRAM and a slot.
    scratch: SecretSlice<u8>,
    pub(crate) batches: VecDeque<Batch>,
    /// The last epoch begun.
    pub(crate) epoch: u64,
    pub(crate) lost: Option<Loss>,
    /// A page that a drill waits for: processors that let go of it get it no more
    /// until the drill is done.
    pub(crate) condemned: Option<u32>,
    /// Changes at each reset.
    pub(crate) generation: u64,
    pub(crate) counts: Counts,
    pub(crate) checks: Checks,
}

impl State {
    pub(crate) fn new(pages: u32, slots: u32, tree_nodes: u32) -> Result<Self, MeeError> {
        let memory = Memory::new(pages)?;
        Ok(Self {
            cipher: Some(Cipher::new()?),
            tree: Tree::new(&memory, tree_nodes)?,
            memory,
            table: SlotTable::new(slots),
            scratch: SecretSlice::new(PAGE)?,
            batches: VecDeque::new(),
            epoch: 0,
            lost: None,
            condemned: None,
            generation: 0,
            counts: Counts::default(),
            checks: Checks::ON,
        })
    }

    /// Everything empty, under new keys.
    pub(crate) fn reset(&mut self, slots: &SlotMemory) -> Result<(), MeeError> {
        // Keys first: without new ones, the old state stays lost.
        self.lock_down(Loss::Power, slots);
        let cipher = Cipher::new()?;
        self.memory.release()?;
        self.tree.clear();
        self.table.clear(slots);
        self.counts = Counts::default();
        self.generation += 1;
        self.cipher = Some(cipher);
        self.lost = None;
        self.condemned = None;
        Ok(())
    }

    /// Drops plaintext and keys. The slots keep their places: processors may
    /// still have their addresses.
    pub(crate) fn lock_down(&mut self, loss: Loss, slots: &SlotMemory) {
        self.lost.get_or_insert(loss);
        slots.wipe();
        self.scratch.fill(0);
        self.cipher = None;
        self.batches.clear();
    }

    fn parts(&mut self) -> Result<(&mut Cipher, &mut Memory, &mut Tree, &mut SecretSlice<u8>), Loss> {
        let cipher = self.cipher.as_mut().ok_or(Loss::Power)?;
        Ok((cipher, &mut self.memory, &mut self.tree, &mut self.scratch))
    }

    pub(crate) fn word(&mut self, page: u32) -> Result<Word, Loss> {
        let checks = self.checks;
        let (cipher, memory, tree, _) = self.parts()?;
        tree.word(&mut Context { cipher, memory, checks }, page)
    }

    fn set_word(&mut self, page: u32, word: Word) -> Result<(), Loss> {
        let checks = self.checks;
        let (cipher, memory, tree, _) = self.parts()?;
        tree.set_word(&mut Context { cipher, memory, checks }, page, word)
    }

    /// Sends the tree nodes above a page to DRAM.
    pub(crate) fn flush_nodes(&mut self, page: u32) -> Result<(), Loss> {
        let checks = self.checks;
        let (cipher, memory, tree, _) = self.parts()?;
        tree.flush(&mut Context { cipher, memory, checks }, page)
    }

    /// Fetches, verifies and decrypts a page into the scratch page.
    fn decrypt(&mut self, page: u32) -> Result<(), Loss> {
        let word = self.word(page)?;
        if !word.present() {
            self.scratch.fill(0);
            return Ok(());
        }
        let checks = self.checks;
        let (cipher, memory, _, scratch) = self.parts()?;
        let mut tag = [0; TAG];
        memory.fetch(memory.tag(page), &mut tag);
        memory.fetch(memory.page(page), scratch);
        if !cipher.open(page, word.version(), scratch, u128::from_le_bytes(tag), checks) {
            return Err(Loss::Page { page });
        }
        self.counts.verified += 1;
        Ok(())
    }

    /// Encrypts the scratch page as a page's next version and stores it.
    fn encrypt(&mut self, page: u32) -> Result<(), Loss> {
        let old = self.word(page)?;
        let word = old.next();
        self.set_word(page, word)?;
        let (cipher, memory, _, scratch) = self.parts()?;
        let tag = cipher.seal(page, word.version(), scratch);
        memory.store(memory.page(page), scratch);
        memory.store(memory.tag(page), &tag.to_le_bytes());
        self.counts.write_backs += 1;
        self.counts.stored += u64::from(!old.stored());
        Ok(())
    }

    /// Encrypts a slot no processor can reach any more and frees it.
    pub(crate) fn write_back(&mut self, index: u32, slots: &SlotMemory) -> Result<(), Loss> {
        let slot = self.table.slots[index as usize];
        if !slot.discarded {
            slots.load(index, 0, &mut self.scratch);
            self.encrypt(slot.page)?;
        }
        self.table.remove(index, slots);
        Ok(())
    }

    /// A page's slot, brought in if there is room; its content is good.
    pub(crate) fn slot(&mut self, page: u32, slots: &SlotMemory) -> Result<Option<u32>, Loss> {
        if let Some(index) = self.table.get(page) {
            self.table.touch(index, slots);
            return Ok(Some(index));
        }
        let mut free = self.table.take_free();
        if free.is_none()
            && let Some(victim) = self.table.unheld_victim()
        {
            self.write_back(victim, slots)?;
            free = self.table.take_free();
        }
        let Some(index) = free else { return Ok(None) };
        if let Err(loss) = self.decrypt(page) {
            self.table.untake(index);
            return Err(loss);
        }
        slots.store(index, 0, &self.scratch);
        self.table.insert(index, page);
        Ok(Some(index))
    }

    pub(crate) fn read(
        &mut self,
        page: u32,
        offset: usize,
        to: &mut [u8],
        slots: &SlotMemory,
    ) -> Result<(), Loss> {
        if let Some(index) = self.slot(page, slots)? {
            slots.load(index, offset, to);
            return Ok(());
        }
        self.counts.uncached += 1;
        self.decrypt(page)?;
        to.copy_from_slice(&self.scratch[offset..][..to.len()]);
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        page: u32,
        offset: usize,
        from: &[u8],
        slots: &SlotMemory,
    ) -> Result<(), Loss> {
        if let Some(index) = self.slot(page, slots)? {
            slots.store(index, offset, from);
            return Ok(());
        }
        self.counts.uncached += 1;
        self.decrypt(page)?;
        self.scratch[offset..][..from.len()].copy_from_slice(from);
        self.encrypt(page)
    }

    pub(crate) fn zero(&mut self, page: u32, slots: &SlotMemory) -> Result<(), Loss> {
        if let Some(index) = self.table.get(page) {
            self.table.touch(index, slots);
            slots.zero(index);
            return Ok(());
        }
        self.give_up(page)
    }

    pub(crate) fn discard(&mut self, page: u32, slots: &SlotMemory) -> Result<(), Loss> {
        if let Some(index) = self.table.get(page) {
            self.table.discard(index, slots);
        }
        self.give_up(page)
    }

    /// The page's memory counts as empty.
    fn give_up(&mut self, page: u32) -> Result<(), Loss> {
        let word = self.word(page)?;
        if word.present() { self.set_word(page, word.absent()) } else { Ok(()) }
    }

    /// Encrypts zeros for a page in no slot, so that its memory holds something.
    pub(crate) fn store_zeros(&mut self, page: u32) -> Result<(), Loss> {
        self.scratch.fill(0);
        self.encrypt(page)
    }

    /// Encrypts a page in no slot anew: same content, next version.
    pub(crate) fn renew(&mut self, page: u32) -> Result<(), Loss> {
        self.decrypt(page)?;
        self.encrypt(page)
    }
}
