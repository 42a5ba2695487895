//! Guest time: host monotonic time since the machine started, without the
//! time for which it was paused.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The machine's clock. Time-stamp counter, PIT, PM timer and the local APICs'
/// timers all follow from it, so none of them drifts against another.
#[derive(Debug)]
pub(crate) struct GuestClock {
    start: Instant,
    tsc_hz: u64,
    /// Twice a number of nanoseconds, plus one while time stands still: what the
    /// clock then shows; else what it is ahead of `start`. One word, so that
    /// no reader sees half a change.
    state: AtomicI64,
}

impl GuestClock {
    pub(crate) fn new(tsc_hz: u64) -> Self {
        Self { start: Instant::now(), tsc_hz, state: AtomicI64::new(0) }
    }

    fn host_ns(&self) -> i64 {
        self.start.elapsed().as_nanos() as i64
    }

    /// Time stands still from now on.
    pub(crate) fn stop(&self) {
        if self.state.load(Ordering::SeqCst) & 1 == 0 {
            self.set_stopped(devices::Clock::now_ns(self));
        }
    }

    /// Time stands still at `ns`.
    pub(crate) fn set_stopped(&self, ns: u64) {
        self.state.store((ns as i64) << 1 | 1, Ordering::SeqCst);
    }

    /// Time goes on from where it stood.
    pub(crate) fn go_on(&self) {
        let state = self.state.load(Ordering::SeqCst);
        if state & 1 != 0 {
            self.state.store(((state >> 1) - self.host_ns()) << 1, Ordering::SeqCst);
        }
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
        let state = self.state.load(Ordering::SeqCst);
        let ns = if state & 1 != 0 { state >> 1 } else { self.host_ns() + (state >> 1) };
        ns as u64
    }
    fn wall(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::Clock;
    use std::time::Duration;

    #[test]
    fn stopped_time_is_not_made_up_for() {
        let clock = GuestClock::new(2_000_000_000);
        let nap = Duration::from_millis(30);
        std::thread::sleep(nap);
        clock.stop();
        let (at, tsc) = (clock.now_ns(), clock.tsc());
        assert_eq!(tsc, 2 * at);
        std::thread::sleep(nap);
        clock.stop();
        assert_eq!((clock.now_ns(), clock.tsc()), (at, tsc));
        let before = Instant::now();
        clock.go_on();
        let now = clock.now_ns();
        assert!(now >= at && now - at <= before.elapsed().as_nanos() as u64, "{at} then {now}");
        std::thread::sleep(nap);
        clock.go_on();
        assert!(clock.now_ns() >= now + nap.as_nanos() as u64);
    }

    #[test]
    fn time_can_be_set_while_it_stands() {
        let clock = GuestClock::new(1_000_000_000);
        for ns in [0, 7, 1 << 60] {
            clock.stop();
            clock.set_stopped(ns);
            assert_eq!(clock.now_ns(), ns);
            clock.go_on();
            assert!((ns..ns + 60_000_000_000).contains(&clock.now_ns()));
        }
    }
}
