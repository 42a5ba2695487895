//! Giving slots back; the crate's description says why it is sound.

use std::{ops::Range, sync::atomic::Ordering};

use crate::{Dram, Lost, PAGE, slots::SlotState, state::State};

/// Slots that began to leave together.
#[derive(Debug)]
pub(crate) struct Batch {
    epoch: u64,
    slots: Vec<u32>,
}

impl Batch {
    /// Those of its slots that were not rescued since.
    fn leaving<'a>(&'a self, state: &'a State) -> impl Iterator<Item = u32> {
        let leaves = SlotState::Leaving(self.epoch);
        self.slots.iter().copied().filter(move |i| state.table.slots[*i as usize].state == leaves)
    }
}

impl Dram {
    /// There are few slots to be had: a batch should begin. Cheap; takes no lock.
    pub fn want_evict(&self) -> bool {
        self.in_prospect.load(Ordering::Relaxed) < self.low_water
    }

    /// Begins a batch, if one is wanted: chooses victims, marks them as leaving
    /// and raises the epoch, which is returned. Processors must then be made to
    /// come to an instruction boundary and look.
    pub fn begin_evict(&self) -> Option<u64> {
        let begin = |state: &mut State| {
            let prospect = state.table.available() + state.table.leaving();
            if prospect >= self.low_water {
                return Ok(None);
            }
            let epoch = state.epoch + 1;
            let slots = state.table.choose(2 * self.low_water - prospect, epoch, &self.slots);
            Ok(self.begin(state, epoch, slots))
        };
        self.with(begin).unwrap_or(None)
    }

    /// Makes one page's slot leave. The epoch at which it does, or did already;
    /// `None` if no processor holds it.
    pub(crate) fn begin_evict_slot(&self, state: &mut State, index: u32) -> Option<u64> {
        if let SlotState::Leaving(epoch) = state.table.slots[index as usize].state {
            return Some(epoch);
        }
        let epoch = state.epoch + 1;
        let slots = if state.table.leave(index, epoch, &self.slots) { vec![index] } else { Vec::new() };
        self.begin(state, epoch, slots)
    }

    fn begin(&self, state: &mut State, epoch: u64, slots: Vec<u32>) -> Option<u64> {
        if slots.is_empty() {
            return None;
        }
        state.epoch = epoch;
        state.batches.push_back(Batch { epoch, slots });
        // After the marks: who sees the epoch sees them.
        self.epoch.store(epoch, Ordering::Release);
        Some(epoch)
    }

    /// The last epoch begun. A processor compares it with the last it
    /// acknowledged, at instruction boundaries. Cheap; takes no lock.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// An address from [`Dram::fill`] (or one inside that page) is on its way out:
    /// drop the translation. False for addresses outside [`Dram::plaintext_range`].
    /// Takes no lock.
    pub fn is_leaving(&self, address: *const u8) -> bool {
        self.slots.is_leaving(address)
    }

    /// Host addresses in which all plaintext lies.
    pub fn plaintext_range(&self) -> Range<usize> {
        let region = self.slots.region();
        region.as_ptr() as usize..region.as_ptr() as usize + region.len() / PAGE * PAGE
    }

    /// Processor `cpu` has, since it read `epoch` from [`Dram::epoch`], dropped
    /// every translation that was leaving, and filled none. Takes no lock.
    pub fn acknowledge(&self, cpu: usize, epoch: u64) {
        // After its last access through what it dropped.
        self.acknowledged[cpu].fetch_max(epoch, Ordering::Release);
    }

    /// Finishes the batches that all holders have acknowledged, or of whose epoch
    /// `quiescent` says that every processor has seen it or is idle (and will drop
    /// all EPC translations before it executes again): writes the pages back and
    /// frees their slots, whose number is returned. `quiescent` is called with no
    /// lock held, and not at all when there is nothing to finish.
    ///
    /// # Errors
    /// [`Lost`] if the content is lost, or found to be.
    pub fn finish_evict(&self, mut quiescent: impl FnMut(u64) -> bool) -> Result<usize, Lost> {
        if self.pending.load(Ordering::Relaxed) == 0 {
            return Ok(0);
        }
        let epochs: Vec<u64> = self.lock().batches.iter().map(|batch| batch.epoch).collect();
        // Asked before the lock is taken again. What happens in between does no
        // harm: a fill rescues, and then the slot is not of the batch any more.
        let quiet: Vec<u64> = epochs.into_iter().filter(|epoch| quiescent(*epoch)).collect();
        self.with(|state| {
            let mut freed = 0;
            for batch in std::mem::take(&mut state.batches) {
                let holders =
                    batch.leaving(state).fold(0, |all, i| all | state.table.slots[i as usize].holders);
                if !quiet.contains(&batch.epoch) && !self.acknowledged_by(holders, batch.epoch) {
                    state.batches.push_back(batch);
                    continue;
                }
                let slots: Vec<u32> = batch.leaving(state).collect();
                for index in slots {
                    state.write_back(index, &self.slots)?;
                    freed += 1;
                }
            }
            Ok(freed)
        })
    }

    /// Every processor of the set (bit n: those with n modulo 64) has
    /// acknowledged the epoch.
    fn acknowledged_by(&self, holders: u64, epoch: u64) -> bool {
        let holds = |cpu: usize| holders >> (cpu % 64) & 1 == 1;
        self.acknowledged
            .iter()
            .enumerate()
            .all(|(cpu, seen)| !holds(cpu) || seen.load(Ordering::Acquire) >= epoch)
    }
}
