//! What the processor keeps of each enclave whose SECS is in the EPC, beside
//! the SECS page itself: its children and the tracking of its threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::epcm::EpcPage;

/// Tracking of the logical processors inside an enclave (*SDM vol. 3D,
/// ETRACK*; *"EPC and Management of EPC Pages", "OS Management of EPC Pages"*).
///
/// Each ETRACK begins an epoch. A processor inside belongs to the epoch in
/// which it entered; the cycle that an ETRACK began is complete when everyone
/// of earlier epochs has left. An entry can flush nothing that was cached
/// before it, so whoever entered since holds no old translation.
#[derive(Debug, Default)]
pub struct Tracking {
    epoch: u64,
    /// Processors inside that entered in this epoch.
    current: u32,
    /// Processors inside that entered in earlier epochs.
    earlier: u32,
}

impl Tracking {
    /// A processor enters; gives the epoch it belongs to.
    pub fn enter(&mut self) -> u64 {
        self.current += 1;
        self.epoch
    }

    /// A processor that entered in `epoch` leaves.
    pub fn leave(&mut self, epoch: u64) {
        let count = if epoch == self.epoch { &mut self.current } else { &mut self.earlier };
        *count = count.saturating_sub(1);
    }

    /// Logical processors inside.
    pub fn inside(&self) -> u32 {
        self.current + self.earlier
    }

    /// The epoch: what EBLOCK, EMODPR and EMODT note in the EPCM.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// ETRACK; false if the previous cycle is not complete.
    pub fn begin_cycle(&mut self) -> bool {
        if self.earlier != 0 {
            return false;
        }
        self.earlier = std::mem::take(&mut self.current);
        self.epoch += 1;
        true
    }

    /// True if no processor can hold a translation made before `epoch` was noted:
    /// a cycle has begun since, and is complete.
    pub fn tracked_since(&self, epoch: u64) -> bool {
        self.epoch > epoch + 1 || (self.epoch > epoch && self.earlier == 0)
    }
}

/// The changing part of an enclave's bookkeeping.
#[derive(Debug, Default)]
pub struct State {
    /// Pages whose ENCLAVESECS is this enclave's, the SECS not counted.
    pub children: u64,
    /// Its threads.
    pub tracking: Tracking,
}

/// An enclave whose SECS is in the EPC.
#[derive(Debug)]
pub struct Enclave {
    /// Its SECS.
    pub secs: EpcPage,
    state: Mutex<State>,
}

impl Enclave {
    /// Its bookkeeping, in one step.
    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The enclaves of a machine, by SECS.
#[derive(Debug, Default)]
pub struct Enclaves(Mutex<HashMap<EpcPage, Arc<Enclave>>>);

impl Enclaves {
    fn map(&self) -> std::sync::MutexGuard<'_, HashMap<EpcPage, Arc<Enclave>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A SECS has come into the EPC.
    pub fn add(&self, secs: EpcPage) -> Arc<Enclave> {
        let enclave = Arc::new(Enclave { secs, state: Mutex::default() });
        self.map().insert(secs, enclave.clone());
        enclave
    }

    /// The enclave of a SECS.
    pub fn get(&self, secs: EpcPage) -> Option<Arc<Enclave>> {
        self.map().get(&secs).cloned()
    }

    /// A SECS has left the EPC.
    pub fn remove(&self, secs: EpcPage) {
        self.map().remove(&secs);
    }

    /// All enclaves are gone.
    pub fn clear(&self) {
        self.map().clear();
    }

    /// All enclaves, by SECS.
    pub fn all(&self) -> Vec<Arc<Enclave>> {
        let mut all: Vec<_> = self.map().values().cloned().collect();
        all.sort_by_key(|enclave| enclave.secs);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::Tracking;

    #[test]
    fn a_cycle_is_complete_when_those_who_were_inside_have_left() {
        let mut t = Tracking::default();
        let first = t.enter();
        let blocked = t.epoch();
        assert!(!t.tracked_since(blocked), "no cycle has begun");
        assert!(t.begin_cycle());
        assert!(!t.tracked_since(blocked), "one is still inside");
        assert!(!t.begin_cycle(), "and so the next cycle may not begin");
        let second = t.enter();
        t.leave(second);
        assert!(!t.tracked_since(blocked));
        t.leave(first);
        assert!(t.tracked_since(blocked));
        assert!(t.begin_cycle() && t.inside() == 0);
    }
}
