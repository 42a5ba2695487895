//! The thread that ticks device timers when they are due.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use devices::Clock;

use crate::board::Board;
use crate::clock::GuestClock;
use crate::gate::Gate;

/// Wakes the thread when a deadline may have come closer.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    changed: Mutex<bool>,
    wake: Condvar,
}

impl Alarm {
    /// Deadlines have changed.
    pub(crate) fn ring(&self) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_one();
    }

    fn wait(&self, timeout: Duration) {
        let guard = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(guard, timeout, |changed| !*changed);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// Ticks the board's timers until the machine has ended or the board is gone;
/// not while the machine is paused.
pub(crate) fn run(board: Weak<Board>, gate: Arc<Gate>, alarm: Arc<Alarm>, clock: Arc<GuestClock>) {
    let tick = || {
        let board = board.upgrade()?;
        board.tick();
        Some(board.deadline())
    };
    while let Some(Some(deadline)) = gate.work(tick) {
        let left = deadline.map_or(u64::MAX, |at| at.saturating_sub(clock.now_ns()));
        // Come back now and then to see whether the board still exists.
        alarm.wait(Duration::from_nanos(left).min(Duration::from_millis(200)));
    }
}
