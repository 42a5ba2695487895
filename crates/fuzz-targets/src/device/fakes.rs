//! The board's side of a device.

use devices::ioapic::{ApicMessage, InterruptSink};
use devices::qemu::ExitSink;
use devices::{Clock, IrqLine, MsiSink, PowerSink};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes whatever a device sends, and checks what can be checked of it.
pub(super) struct Board;

impl IrqLine for Board {
    fn set(&self, _level: bool) {}
}
impl MsiSink for Board {
    fn send(&self, _address: u64, _data: u32) {}
}
impl PowerSink for Board {
    fn power_off(&self) {}
    fn reset(&self) {}
}
impl ExitSink for Board {
    fn exit(&self, _status: u32) {}
}
impl InterruptSink for Board {
    fn deliver(&self, message: ApicMessage) {
        assert!(matches!(message.delivery_mode, 0 | 1 | 2 | 4 | 5 | 7), "{message:?}");
    }
}

/// Guest time that goes when told.
#[derive(Default)]
pub(super) struct Time {
    ns: AtomicU64,
    wall: AtomicU64,
}

impl Time {
    pub(super) fn new() -> Arc<Self> {
        let time = Self::default();
        time.wall.store(1_709_251_190, Ordering::Relaxed);
        Arc::new(time)
    }

    /// Lets time pass, up to some 146 years in all.
    pub(super) fn advance(&self, ns: u64) {
        let now = self.now_ns().saturating_add(ns).min(1 << 62);
        self.ns.store(now, Ordering::Relaxed);
    }

    /// The host's clock is set.
    pub(super) fn set_wall(&self, seconds: u64) {
        self.wall.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now_ns(&self) -> u64 {
        self.ns.load(Ordering::Relaxed)
    }
    fn wall(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }
}
