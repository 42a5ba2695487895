//! The thread that ticks device timers when they are due.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use devices::Clock;

use crate::board::Board;
use crate::clock::GuestClock;

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

/// Ticks the board's timers until the board is gone.
pub(crate) fn run(board: Weak<Board>, alarm: Arc<Alarm>, clock: Arc<GuestClock>) {
    loop {
        let deadline = {
            let Some(board) = board.upgrade() else { return };
            board.tick();
            board.deadline()
        };
        let left = deadline.map_or(u64::MAX, |at| at.saturating_sub(clock.now_ns()));
        // Come back now and then to see whether the board still exists.
        alarm.wait(Duration::from_nanos(left).min(Duration::from_millis(200)));
    }
}
