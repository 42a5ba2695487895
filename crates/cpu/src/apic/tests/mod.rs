//! Tests by section of *SDM vol. 3A ch. 10*.

mod interrupts;
mod ipi;
mod registers;
mod state;
mod timer;

use super::*;

pub(super) fn config(id: u32) -> Config {
    Config {
        id,
        bsp: id == 0,
        x2apic: true,
        tsc_deadline: true,
        eoi_suppression: true,
        maxphyaddr: 46,
        timer: Ratio { tsc: 10, bus: 1 },
    }
}

/// Enabled in xAPIC mode.
pub(super) fn xapic(id: u32) -> Apic {
    let mut a = Apic::new(config(id));
    a.write(0xf0, 0x1ff, 0);
    a
}

/// Enabled in x2APIC mode.
pub(super) fn x2apic(id: u32) -> Apic {
    let mut a = xapic(id);
    a.wrmsr(0x1b, a.base_msr() | 1 << 10, 0).unwrap();
    a
}

/// A small generator of test input (xorshift64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
