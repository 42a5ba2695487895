//! The timer (*SDM vol. 3A §10.5.4*): one-shot, periodic and TSC-deadline.
//!
//! The count is not decremented; it is computed from the TSC when someone
//! looks. Expiries are exact multiples, so a late host causes no drift;
//! periods that passed unnoticed give one interrupt.

use serde::{Deserialize, Serialize};

use super::{Apic, Lvt, lvt::MASKED};

/// Bits of the divide configuration register.
const DIVIDE: u32 = 0b1011;

/// Ratio of two clocks: `bus` ticks of the timer's input clock take as long as
/// `tsc` ticks of the TSC. Zeros count as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// TSC ticks.
    pub tsc: u32,
    /// Timer input clock ticks.
    pub bus: u32,
}

/// Count-down state. The first expiry is `first` counts after `start`, each
/// following one `initial` counts later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timer {
    initial: u32,
    first: u32,
    /// TSC at which `first` began to run.
    start: u64,
    /// Expiries since then.
    expired: u64,
    running: bool,
    divide: u32,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    tsc_deadline: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    Reserved,
}

fn mode(lvt: u32) -> TimerMode {
    match lvt >> 17 & 3 {
        0 => TimerMode::OneShot,
        1 => TimerMode::Periodic,
        2 => TimerMode::TscDeadline,
        _ => TimerMode::Reserved,
    }
}

impl Timer {
    /// Divide configuration register (*figure 10-10*): bits 3, 1 and 0.
    fn divisor(&self) -> u128 {
        let code = self.divide >> 1 & 4 | self.divide & 3;
        1 << ((code + 1) & 7)
    }

    /// TSC ticks a count takes, as a fraction.
    fn ticks(&self, ratio: Ratio) -> (u128, u128) {
        (self.divisor() * u128::from(ratio.tsc.max(1)), u128::from(ratio.bus.max(1)))
    }

    /// Counts that have passed since `start`.
    fn counts(&self, ratio: Ratio, now: u64) -> u128 {
        let (num, den) = self.ticks(ratio);
        u128::from(now.saturating_sub(self.start)) * den / num
    }

    /// Counts from `start` to the next expiry.
    fn target(&self) -> u128 {
        u128::from(self.first) + u128::from(self.expired) * u128::from(self.initial)
    }

    /// TSC of the next expiry.
    fn next(&self, ratio: Ratio) -> u64 {
        let (num, den) = self.ticks(ratio);
        // 96 bits of counts times 39 bits might not fit.
        let ticks = self.target().saturating_mul(num).div_ceil(den);
        u64::try_from(ticks).map_or(u64::MAX, |t| self.start.saturating_add(t))
    }

    fn load(&mut self, count: u32, now: u64) {
        self.first = count;
        self.start = now;
        self.expired = 0;
        self.running = count != 0;
    }
}

/// What a snapshot keeps of the timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TimerState {
    initial: u32,
    first: u32,
    start: u64,
    expired: u64,
    running: bool,
    divide: u32,
    tsc_deadline: u64,
}

impl Timer {
    pub(super) fn save(&self) -> TimerState {
        let &Timer { initial, first, start, expired, running, divide, tsc_deadline } = self;
        TimerState { initial, first, start, expired, running, divide, tsc_deadline }
    }

    /// The timer of a snapshot under that LVT register; `None` if it cannot be.
    pub(super) fn restore(state: &TimerState, lvt: u32) -> Option<Timer> {
        let &TimerState { initial, first, start, expired, running, divide, tsc_deadline } = state;
        let possible = match mode(lvt) {
            TimerMode::TscDeadline => !running,
            _ => tsc_deadline == 0,
        };
        (possible && divide & !DIVIDE == 0).then_some(Timer {
            initial,
            first,
            start,
            expired,
            running,
            divide,
            tsc_deadline,
        })
    }
}

impl Apic {
    fn timer_mode(&self) -> TimerMode {
        mode(self.lvt[Lvt::Timer as usize])
    }

    /// TSC value at which the timer raises its interrupt; `None` when it is
    /// stopped or masked. The owner then calls [`expire`](Self::expire).
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        if self.lvt[Lvt::Timer as usize] & MASKED != 0 {
            return None;
        }
        match self.timer_mode() {
            TimerMode::TscDeadline => Some(self.timer.tsc_deadline).filter(|d| *d != 0),
            TimerMode::OneShot | TimerMode::Periodic => {
                self.timer.running.then(|| self.timer.next(self.config.timer))
            }
            TimerMode::Reserved => None,
        }
    }

    /// Raises the timer interrupt if its time has come by `now`; returns
    /// whether it has. Harmless at any time.
    pub fn expire(&mut self, now: u64) -> bool {
        self.settle_timer(now)
    }

    /// Accounts for the expiries up to `now`, masked or not.
    pub(super) fn settle_timer(&mut self, now: u64) -> bool {
        let ratio = self.config.timer;
        let t = &mut self.timer;
        let due = match mode(self.lvt[Lvt::Timer as usize]) {
            TimerMode::TscDeadline => {
                let due = t.tsc_deadline != 0 && now >= t.tsc_deadline;
                if due {
                    t.tsc_deadline = 0;
                }
                due
            }
            TimerMode::OneShot => {
                let due = t.running && now >= t.next(ratio);
                if due {
                    t.running = false;
                }
                due
            }
            TimerMode::Periodic => {
                let due = t.running && now >= t.next(ratio);
                if due && t.initial == 0 {
                    t.running = false;
                } else if due {
                    let past = t.counts(ratio, now).saturating_sub(u128::from(t.first));
                    let expired = past / u128::from(t.initial) + 1;
                    t.expired = u64::try_from(expired).unwrap_or(u64::MAX);
                }
                due
            }
            TimerMode::Reserved => false,
        };
        let lvt = self.lvt[Lvt::Timer as usize];
        if !due || lvt & MASKED != 0 {
            return false;
        }
        self.accept(lvt as u8, false);
        true
    }

    /// Going to or from TSC-deadline mode disarms the timer (*§10.5.4.1*).
    pub(super) fn timer_mode_changed(&mut self, old: u32, new: u32) {
        let (old, new) = (mode(old), mode(new));
        if old != new && (old == TimerMode::TscDeadline || new == TimerMode::TscDeadline) {
            self.timer.running = false;
            self.timer.tsc_deadline = 0;
        }
    }

    /// Initial count; a write of 0 stops the timer. Ignored in TSC-deadline
    /// mode.
    pub(super) fn write_initial_count(&mut self, value: u32, now: u64) {
        if self.timer_mode() == TimerMode::TscDeadline {
            return;
        }
        self.settle_timer(now);
        self.timer.initial = value;
        self.timer.load(value, now);
    }

    pub(super) fn initial_count(&self) -> u32 {
        if self.timer_mode() == TimerMode::TscDeadline { 0 } else { self.timer.initial }
    }

    /// Current count; 0 when stopped and in TSC-deadline mode. The caller has
    /// settled the timer at `now`.
    pub(super) fn current_count(&self, now: u64) -> u32 {
        let t = &self.timer;
        if !t.running {
            return 0;
        }
        let left = t.target().saturating_sub(t.counts(self.config.timer, now));
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    pub(super) fn divide_register(&self) -> u32 {
        self.timer.divide
    }

    /// A new divisor takes effect from the current count on.
    pub(super) fn write_divide(&mut self, value: u32, now: u64) {
        self.settle_timer(now);
        let count = self.current_count(now);
        self.timer.divide = value & DIVIDE;
        if self.timer.running {
            self.timer.load(count, now);
        }
    }

    pub(super) fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline
    }

    /// `IA32_TSC_DEADLINE`; ignored in the other modes (*§10.5.4.1*).
    pub(super) fn write_tsc_deadline(&mut self, value: u64, now: u64) {
        if self.timer_mode() != TimerMode::TscDeadline {
            return;
        }
        self.settle_timer(now);
        self.timer.tsc_deadline = value;
        // A deadline that is already past fires at once.
        self.settle_timer(now);
    }
}
