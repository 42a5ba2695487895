//! Threads of the enclave that sleep until another wakes them.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest sleep: then the enclave looks for itself, also whether it has ended meanwhile.
const LONGEST: Duration = Duration::from_secs(1);

/// One place for each thread.
pub(crate) struct Park(Vec<Place>);

#[derive(Default)]
struct Place {
    woken: Mutex<bool>,
    change: Condvar,
}

impl Park {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Place::default()).collect())
    }

    /// Sleeps until thread `number` is woken; false if there is none of this number.
    pub(crate) fn sleep(&self, number: u64) -> bool {
        let Some(place) = usize::try_from(number).ok().and_then(|n| self.0.get(n)) else { return false };
        let woken = place.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = place.change.wait_timeout_while(woken, LONGEST, |woken| !*woken);
        *wait.unwrap_or_else(PoisonError::into_inner).0 = false;
        true
    }

    /// Wakes thread `number`, now or when it next sleeps.
    pub(crate) fn wake(&self, number: u64) -> bool {
        let Some(place) = usize::try_from(number).ok().and_then(|n| self.0.get(n)) else { return false };
        *place.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        place.change.notify_one();
        true
    }
}
