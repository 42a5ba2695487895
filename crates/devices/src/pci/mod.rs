//! PCI: one bus of single-function devices, reached by configuration
//! mechanism #1 and by ECAM, with MSI-X (*PCI Local Bus 3.0*, *PCI Express
//! Base 4.0 §7.2.2*).
//!
//! [`PciBus`] routes; [`ConfigPorts`] and [`Ecam`] are its two configuration
//! windows as devices; [`PciFunction`] is what sits in a slot. The board gives
//! every BAR an address before boot ([`ConfigSpace::place_bar`]) and forwards
//! its whole PCI MMIO window to [`PciBus::mmio_read`] and
//! [`PciBus::mmio_write`]: where a BAR is now is the bus's business.
//!
//! | threat | guard |
//! |---|---|
//! | BARs moved over RAM or other devices | the board asks the bus only for its PCI window |
//! | BARs overlapping each other | the lowest slot wins; no undefined state |
//! | base near 2^64 | ranges whose end overflows are not decoded |
//! | accesses across a BAR's end | not routed |
//! | configuration space past the function's | reads ones, writes dropped |

mod bus;
mod config;
mod host_bridge;
mod msix;
mod ports;

pub use bus::{BarRange, PciBus, PciFunction, SLOTS, SlotError};
pub use config::{BarKind, Class, ConfigError, ConfigSpace, ConfigState, Identity, command, reg};
pub use host_bridge::HostBridge;
pub use msix::{Msix, MsixState};
pub use ports::{ConfigPorts, ConfigPortsState, Ecam};
