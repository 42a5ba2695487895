//! Devices: sequences of accesses, host events and snapshots, decoded from the
//! input.

mod apic;
mod chips;
mod fakes;
mod pci;
mod registers;
pub mod sockets;
pub mod virtio;

use crate::Target;

const fn target(run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name: "", run, seeds, cases: 15_000, max_len: 768 }
}

/// Devices of a few registers: UART, RTC, PIT, PIC, I/O APIC, PM, keyboard
/// controller, local APIC, PCI bus, QEMU's devices.
pub(crate) const SMALL: &[Target] = &[
    target(chips::serial, Vec::new),
    target(chips::rtc, Vec::new),
    target(chips::pit, Vec::new),
    target(chips::pic, Vec::new),
    target(chips::ioapic, Vec::new),
    target(chips::pm, Vec::new),
    target(chips::i8042, Vec::new),
    target(apic::apic, Vec::new),
    target(pci::pci, Vec::new),
    target(chips::qemu, Vec::new),
];

/// virtio devices, by the rings in memory.
pub(crate) const VIRTIO: &[Target] = &[
    target(virtio::blk, virtio::seeds),
    target(virtio::rng, virtio::seeds),
    target(virtio::console, virtio::seeds),
    target(virtio::fs, virtio::seeds),
    target(sockets::vsock, sockets::seeds),
    target(virtio::net, virtio::seeds),
];
