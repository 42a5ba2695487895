//! What a device is, and what it asks of the board.

use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

/// A register file: what the guest sees of a device at its ports or in its
/// MMIO window.
pub trait Device: Send {
    /// Everything `load` needs to continue where `save` stopped. Separate from
    /// the live structure, so that the latter may change freely.
    type State: Serialize + DeserializeOwned + PartialEq + Debug;

    /// Version of [`Device::State`]'s meaning; raise it with every change that
    /// an older reader would misunderstand.
    const STATE_VERSION: u16 = 1;

    /// Reads `data.len()` bytes at `offset` from the device's base.
    /// Any offset and any length is harmless; where nothing answers, all bits
    /// read as one, like an undriven bus.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset` from the device's base. Any offset and any
    /// length is harmless; where nothing listens the write is dropped.
    fn write(&mut self, offset: u64, data: &[u8]);

    /// Puts the device into the state it had when it was made.
    fn reset(&mut self);

    /// The device's state, for a snapshot.
    fn save(&self) -> Self::State;

    /// Takes over a saved state and drives the outgoing wires accordingly.
    ///
    /// # Errors
    /// [`StateError`] if the state cannot have come from `save` on a device
    /// made with the same arguments; the device is then unchanged.
    fn load(&mut self, state: Self::State) -> Result<(), StateError>;
}

/// A saved state that does not fit the device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{device}: saved {field} {why}; take a snapshot made by this version with the same devices")]
pub struct StateError {
    /// Name of the device.
    pub device: &'static str,
    /// The offending part of the state.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl StateError {
    pub(crate) fn new(device: &'static str, field: &'static str, why: impl Into<String>) -> Self {
        Self { device, field, why: why.into() }
    }
}

/// Guest time.
pub trait Clock: Send + Sync {
    /// Nanoseconds of guest time since some fixed point; never goes back.
    fn now_ns(&self) -> u64;
    /// Wall-clock time, seconds since 1970-01-01 00:00:00 UTC.
    fn wall(&self) -> u64;
}

/// Where message-signalled interrupts go: the write a function would do on
/// the bus (*PCI Local Bus 3.0 §6.8*).
///
/// Called with the sending device locked, so it must not call back into it.
pub trait MsiSink: Send + Sync {
    /// Delivers the message `data` written to physical `address`.
    fn send(&self, address: u64, data: u32);
}

/// Who is told that the guest switches the machine off or resets it.
///
/// Called with the reporting device locked: note the wish and act on it from
/// the machine's own loop.
pub trait PowerSink: Send + Sync {
    /// The guest entered the soft-off state (S5).
    fn power_off(&self);
    /// The guest asked for a hard reset.
    fn reset(&self);
}

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Ticks of a clock of `hz` in `ns` nanoseconds, rounded down.
pub(crate) fn ticks(ns: u64, hz: u64) -> u64 {
    (u128::from(ns) * u128::from(hz) / u128::from(SECOND)) as u64
}

/// The least number of nanoseconds after which `ticks` of `hz` have passed.
pub(crate) fn nanos(ticks: u64, hz: u64) -> u64 {
    let ns = (u128::from(ticks) * u128::from(SECOND)).div_ceil(u128::from(hz));
    u64::try_from(ns).unwrap_or(u64::MAX)
}
