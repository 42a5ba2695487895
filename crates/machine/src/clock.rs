//! Guest time: host monotonic time since the machine started.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct GuestClock {
    start: Instant,
    tsc_hz: u64,
}

impl GuestClock {
    pub(crate) fn new(tsc_hz: u64) -> Self {
        Self { start: Instant::now(), tsc_hz }
    }

    /// Time-stamp counter: guest nanoseconds at the model's frequency.
    pub(crate) fn tsc(&self) -> u64 {
        (u128::from(devices::Clock::now_ns(self)) * u128::from(self.tsc_hz) / 1_000_000_000) as u64
    }

    /// Nanoseconds from now until the counter reaches `tsc`.
    pub(crate) fn until_tsc(&self, tsc: u64) -> u64 {
        let ticks = tsc.saturating_sub(self.tsc());
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.tsc_hz);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

impl devices::Clock for GuestClock {
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn wall(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}
