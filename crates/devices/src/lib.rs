//! The board's devices as pure state machines.
//!
//! A device here is a register file with `read`, `write`, `reset`, `save` and
//! `load` ([`Device`]); its interrupt wire, clock, guest memory and host back
//! end are constructor arguments. No device owns a thread or looks at a host
//! clock: whoever has a timer says when it wants [`tick`](pit::Pit::tick) by a
//! `deadline()` in guest nanoseconds.
//!
//! | module | device | address on a PC |
//! |---|---|---|
//! | [`serial`] | 16550A UART | ports 3F8h–3FFh, IRQ 4 |
//! | [`rtc`] | MC146818 clock and CMOS | ports 70h–71h, IRQ 8 |
//! | [`pit`] | i8254 timer and port 61h | ports 40h–43h, 61h, IRQ 0 |
//! | [`pic`] | 8259A pair and ELCR | ports 20h, A0h, 4D0h |
//! | [`ioapic`] | I/O APIC | FEC00000h |
//! | [`pm`] | ACPI PM1 block, PM timer, reset register | board's choice, CF9h |
//! | [`i8042`] | keyboard controller without keyboard | ports 60h, 64h |
//! | [`port92`] | system control port A | port 92h |
//! | [`pci`] | bus, configuration ports, ECAM, MSI-X | ports CF8h–CFFh, MCFG |
//! | [`qemu`] | debug exit, fw_cfg, test device | ports F4h, 510h, E0h and 2000h |
//! | [`virtio`] | modern virtio-pci; block, entropy, console, sockets, file system | PCI BARs |
//!
//! Everything a guest can write is hostile input: each guest-facing module
//! has a table of what could go wrong and what stops it.
#![forbid(unsafe_code)]

#[cfg(test)]
#[macro_use]
mod testing;

mod bytes;
pub mod device;
pub mod i8042;
pub mod ioapic;
pub mod irq;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod port92;
pub mod qemu;
pub mod rtc;
pub mod serial;
pub mod virtio;

pub use device::{Clock, Device, MsiSink, PowerSink, StateError};
pub use irq::{IrqLine, WiredOr};
