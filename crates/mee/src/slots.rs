//! The plaintext pages on the processor.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
};

use mem::{
    raw,
    secret::{Region, SecretError},
};

use crate::PAGE;

/// The slots' memory, and which of them are leaving; used without the lock.
#[derive(Debug)]
pub(crate) struct SlotMemory {
    region: Region,
    leaving: Box<[AtomicBool]>,
}

impl SlotMemory {
    pub(crate) fn new(slots: u32) -> Result<Self, SecretError> {
        let region = Region::new(slots as usize * PAGE)?;
        Ok(Self { region, leaving: (0..slots).map(|_| AtomicBool::new(false)).collect() })
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    /// A slot's first byte.
    pub(crate) fn address(&self, slot: u32) -> *mut u8 {
        assert!((slot as usize) < self.leaving.len());
        // SAFETY: the slot is inside the region.
        unsafe { self.region.as_ptr().add(slot as usize * PAGE) }
    }

    /// The slot an address is in.
    fn slot(&self, address: *const u8) -> Option<usize> {
        let offset = (address as usize).checked_sub(self.region.as_ptr() as usize)?;
        (offset < self.leaving.len() * PAGE).then_some(offset / PAGE)
    }

    pub(crate) fn is_leaving(&self, address: *const u8) -> bool {
        self.slot(address).is_some_and(|slot| self.leaving[slot].load(Ordering::Acquire))
    }

    fn mark(&self, slot: u32, leaving: bool) {
        self.leaving[slot as usize].store(leaving, Ordering::Release);
    }

    /// Copies out of a slot. `offset` and length are within it.
    pub(crate) fn load(&self, slot: u32, offset: usize, to: &mut [u8]) {
        assert!(offset <= PAGE && to.len() <= PAGE - offset);
        // SAFETY: inside the slot, by the assertion; races are the guest's.
        unsafe { raw::copy(self.address(slot).add(offset), to.as_mut_ptr(), to.len()) };
    }

    /// Copies into a slot, likewise.
    pub(crate) fn store(&self, slot: u32, offset: usize, from: &[u8]) {
        assert!(offset <= PAGE && from.len() <= PAGE - offset);
        // SAFETY: inside the slot, by the assertion; races are the guest's.
        unsafe { raw::copy(from.as_ptr(), self.address(slot).add(offset), from.len()) };
    }

    /// Fills a slot with zeros.
    pub(crate) fn zero(&self, slot: u32) {
        static ZERO: [u8; PAGE] = [0; PAGE];
        self.store(slot, 0, &ZERO);
    }

    /// Fills all slots that were ever used with zeros.
    pub(crate) fn wipe(&self) {
        self.region.wipe();
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SlotState {
    #[default]
    Free,
    Live,
    /// On its way out since this epoch.
    Leaving(u64),
}

/// What is known of a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    pub(crate) page: u32,
    pub(crate) state: SlotState,
    /// Processors that may have its address: bit n for those with n modulo 64.
    pub(crate) holders: u64,
    /// Used since the clock's hand last came by.
    used: bool,
    /// Its page was discarded: reads as zeros, needs no write-back.
    pub(crate) discarded: bool,
    /// Stands in `unheld`.
    queued: bool,
}

/// Which page is in which slot, and which slot goes next.
#[derive(Debug)]
pub(crate) struct SlotTable {
    pub(crate) slots: Vec<Slot>,
    pages: HashMap<u32, u32>,
    free: Vec<u32>,
    /// Slots no processor holds, oldest first, among others that one does by now.
    unheld: VecDeque<u32>,
    /// How many slots are live and unheld.
    live_unheld: usize,
    leaving: usize,
    /// Held slots whose pages were discarded: the best victims.
    discarded: Vec<u32>,
    hand: usize,
}

impl SlotTable {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots: vec![Slot::default(); slots as usize],
            pages: HashMap::with_capacity(slots as usize),
            free: (0..slots).rev().collect(),
            unheld: VecDeque::new(),
            live_unheld: 0,
            leaving: 0,
            discarded: Vec::new(),
            hand: 0,
        }
    }

    /// Forgets all pages.
    pub(crate) fn clear(&mut self, memory: &SlotMemory) {
        for slot in 0..self.slots.len() as u32 {
            memory.mark(slot, false);
        }
        *self = Self::new(self.slots.len() as u32);
    }

    pub(crate) fn get(&self, page: u32) -> Option<u32> {
        self.pages.get(&page).copied()
    }

    pub(crate) fn total(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn leaving(&self) -> usize {
        self.leaving
    }

    /// Slots that can be had at once.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.live_unheld
    }

    pub(crate) fn take_free(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Puts back a slot got from [`Self::take_free`] and not used.
    pub(crate) fn untake(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// An unheld slot not used lately; still live, with its page.
    pub(crate) fn unheld_victim(&mut self) -> Option<u32> {
        while let Some(index) = self.unheld.pop_front() {
            let slot = &mut self.slots[index as usize];
            slot.queued = false;
            if slot.state != SlotState::Live || slot.holders != 0 {
                continue;
            }
            if !slot.used || slot.discarded {
                return Some(index);
            }
            slot.used = false;
            slot.queued = true;
            self.unheld.push_back(index);
        }
        None
    }

    /// A page moves in, unheld.
    pub(crate) fn insert(&mut self, index: u32, page: u32) {
        let slot = &mut self.slots[index as usize];
        let queued = slot.queued;
        *slot = Slot { page, state: SlotState::Live, used: true, queued: true, ..Slot::default() };
        self.live_unheld += 1;
        self.pages.insert(page, index);
        if !queued {
            self.unheld.push_back(index);
        }
    }

    /// A page moves out; the slot is free, and wiped.
    pub(crate) fn remove(&mut self, index: u32, memory: &SlotMemory) {
        let slot = &mut self.slots[index as usize];
        match slot.state {
            SlotState::Free => return,
            SlotState::Live if slot.holders == 0 => self.live_unheld -= 1,
            SlotState::Live => {}
            SlotState::Leaving(_) => self.leaving -= 1,
        }
        self.pages.remove(&slot.page);
        *slot = Slot { queued: slot.queued, ..Slot::default() };
        memory.mark(index, false);
        memory.zero(index);
        self.free.push(index);
    }

    /// The page is used: its content is made good if it was discarded.
    pub(crate) fn touch(&mut self, index: u32, memory: &SlotMemory) {
        let slot = &mut self.slots[index as usize];
        slot.used = true;
        if std::mem::take(&mut slot.discarded) {
            memory.zero(index);
        }
    }

    /// Processor `cpu` gets the address; a leaving slot stays.
    pub(crate) fn hold(&mut self, index: u32, cpu: usize, memory: &SlotMemory) {
        let slot = &mut self.slots[index as usize];
        if let SlotState::Leaving(_) = slot.state {
            slot.state = SlotState::Live;
            self.leaving -= 1;
            memory.mark(index, false);
        } else if slot.holders == 0 {
            self.live_unheld -= 1;
        }
        slot.holders |= 1 << (cpu % 64);
    }

    /// The page's content is given up; the slot too, unless a processor holds it.
    pub(crate) fn discard(&mut self, index: u32, memory: &SlotMemory) {
        let slot = &mut self.slots[index as usize];
        if slot.holders == 0 {
            return self.remove(index, memory);
        }
        memory.zero(index);
        let listed = std::mem::replace(&mut slot.discarded, true) || slot.state != SlotState::Live;
        // Entries that no longer hold stay in the list until it is used; a page
        // discarded over and over must not let it grow.
        if !listed && self.discarded.len() < self.slots.len() {
            self.discarded.push(index);
        }
    }

    /// Marks a live, held slot as leaving; false if it is not that.
    pub(crate) fn leave(&mut self, index: u32, epoch: u64, memory: &SlotMemory) -> bool {
        let slot = &mut self.slots[index as usize];
        let leaves = slot.state == SlotState::Live && slot.holders != 0;
        if leaves {
            slot.state = SlotState::Leaving(epoch);
            self.leaving += 1;
            memory.mark(index, true);
        }
        leaves
    }

    /// Makes up to `count` held slots leave: discarded ones, then by second chance.
    pub(crate) fn choose(&mut self, count: usize, epoch: u64, memory: &SlotMemory) -> Vec<u32> {
        let mut chosen = Vec::new();
        while chosen.len() < count
            && let Some(index) = self.discarded.pop()
        {
            if self.slots[index as usize].discarded && self.leave(index, epoch, memory) {
                chosen.push(index);
            }
        }
        for _ in 0..2 * self.slots.len() {
            if chosen.len() >= count {
                break;
            }
            let index = self.hand as u32;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[index as usize].used) && self.leave(index, epoch, memory) {
                chosen.push(index);
            }
        }
        chosen
    }
}
