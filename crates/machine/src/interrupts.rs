//! From wires and messages to the local APICs.

use std::sync::Arc;

use cpu::Shared;
use devices::ioapic::{ApicMessage, InterruptSink};
use devices::{IrqLine, MsiSink};

/// The processors, as interrupt messages reach them.
pub(crate) struct ToApics(pub(crate) Arc<[Arc<Shared>]>);

impl InterruptSink for ToApics {
    fn deliver(&self, m: ApicMessage) {
        cpu::shared::deliver(&self.0, m.dest as u8, m.dest_mode_logical, m.delivery_mode, m.vector, m.level);
    }
}

impl MsiSink for ToApics {
    /// *SDM vol. 3A, "Message signalled interrupts"*: address bits 19–12 are
    /// the destination, bit 2 its mode; data bits 7–0 the vector, 10–8 the
    /// delivery mode, 15 the trigger mode. Other addresses are plain writes
    /// that reach no APIC.
    fn send(&self, address: u64, data: u32) {
        if address >> 20 != 0xfee {
            return;
        }
        let dest = (address >> 12) as u8;
        let mode = (data >> 8 & 7) as u8;
        let level = data & 1 << 15 != 0;
        cpu::shared::deliver(&self.0, dest, address & 4 != 0, mode, data as u8, level);
    }
}

/// The 8259's output, wired to LINT0 of the boot processor.
pub(crate) struct ExtInt(pub(crate) Arc<Shared>);

impl IrqLine for ExtInt {
    fn set(&self, level: bool) {
        self.0.set_intr(level);
    }
}
