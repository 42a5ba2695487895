//! I/O APIC (*Intel 82093AA data sheet 290566*, with the EOI register of
//! version 20h, *Intel ICH9 data sheet §13.5*), at FEC00000h.
//!
//! | threat | guard |
//! |---|---|
//! | a level interrupt never acknowledged storms | remote IRR: one message until the EOI |
//! | register index out of range | reads zero, writes are dropped |
//! | reserved delivery modes | no message |
//! | re-entry from the sink | documented: the sink only queues |

use crate::bytes::{fill, value};
use crate::device::{Device, StateError};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Number of pins.
pub const PINS: u8 = 24;
/// Usual physical address of the first I/O APIC.
pub const IOAPIC_BASE: u64 = 0xfec0_0000;
/// Version with an EOI register; Linux looks for it.
const VERSION: u32 = 0x20;

const IOREGSEL: u64 = 0;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;
/// The window is 256 bytes.
const WINDOW: u64 = 0x100;

const RTE_REMOTE_IRR: u64 = 1 << 14;
const RTE_LEVEL: u64 = 1 << 15;
const RTE_MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR are the chip's own.
const RTE_READ_ONLY: u64 = 1 << 12 | RTE_REMOTE_IRR;
const RTE_WRITABLE: u64 = 0xff00_0000_0001_ffff & !RTE_READ_ONLY;

/// An interrupt message as it goes to the local APICs
/// (*SDM vol. 3A, "Interrupt message format"*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApicMessage {
    /// Destination: APIC ID, or a logical set.
    pub dest: u32,
    /// `dest` is logical.
    pub dest_mode_logical: bool,
    /// 0 fixed, 1 lowest priority, 2 SMI, 4 NMI, 5 INIT, 7 ExtINT.
    pub delivery_mode: u8,
    /// Vector; for ExtINT ask the PIC instead.
    pub vector: u8,
    /// Level-triggered: the local APIC's EOI must come back by
    /// [`IoApic::eoi`].
    pub level: bool,
}

/// Where interrupt messages go. Called with the sender locked, so it must not
/// call back; queue and return.
pub trait InterruptSink: Send + Sync {
    /// Delivers one message.
    fn deliver(&self, message: ApicMessage);
}

/// What a snapshot keeps of an I/O APIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApicState {
    id: u8,
    select: u8,
    table: [u64; PINS as usize],
    lines: u32,
}

struct Core {
    s: IoApicState,
    power_on_id: u8,
    sink: Arc<dyn InterruptSink>,
}

impl Core {
    fn fresh(id: u8) -> IoApicState {
        IoApicState { id: id & 0xf, select: 0, table: [RTE_MASKED; PINS as usize], lines: 0 }
    }

    /// Sends pin `n`'s message, if its entry allows.
    fn fire(&mut self, n: usize) {
        let entry = &mut self.s.table[n];
        if *entry & RTE_MASKED != 0 {
            return;
        }
        let delivery_mode = (*entry >> 8 & 7) as u8;
        if matches!(delivery_mode, 3 | 6) {
            return;
        }
        // only fixed and lowest priority can be level; the others are edges
        let level = *entry & RTE_LEVEL != 0 && delivery_mode <= 1;
        if level {
            if *entry & RTE_REMOTE_IRR != 0 {
                return;
            }
            *entry |= RTE_REMOTE_IRR;
        }
        let message = ApicMessage {
            dest: (*entry >> 56) as u32,
            dest_mode_logical: *entry & 1 << 11 != 0,
            delivery_mode,
            vector: *entry as u8,
            level,
        };
        self.sink.deliver(message);
    }

    fn is_level(&self, n: usize) -> bool {
        let entry = self.s.table[n];
        entry & RTE_LEVEL != 0 && entry >> 8 & 7 <= 1
    }

    fn service_level(&mut self, n: usize) {
        if self.is_level(n) && self.s.lines & 1 << n != 0 {
            self.fire(n);
        }
    }

    fn set_pin(&mut self, n: usize, level: bool) {
        let bit = 1u32 << n;
        let rose = level && self.s.lines & bit == 0;
        self.s.lines = self.s.lines & !bit | if level { bit } else { 0 };
        // an edge on a masked pin is lost (82093AA §3.2.4); a level is seen
        // again when the mask goes
        if rose || level && self.is_level(n) {
            self.fire(n);
        }
    }

    fn eoi(&mut self, vector: u8) {
        for n in 0..usize::from(PINS) {
            let entry = self.s.table[n];
            if entry & RTE_REMOTE_IRR != 0 && entry as u8 == vector {
                self.s.table[n] &= !RTE_REMOTE_IRR;
                self.service_level(n);
            }
        }
    }

    fn read_reg(&self) -> u32 {
        match self.s.select {
            0 | 2 => u32::from(self.s.id) << 24,
            1 => VERSION | u32::from(PINS - 1) << 16,
            r @ 0x10..0x40 => {
                let entry = self.s.table[usize::from(r - 0x10) / 2];
                (entry >> (32 * (r & 1))) as u32
            }
            _ => 0,
        }
    }

    fn write_reg(&mut self, v: u32) {
        match self.s.select {
            0 => self.s.id = (v >> 24) as u8 & 0xf,
            r @ 0x10..0x40 => {
                let n = usize::from(r - 0x10) / 2;
                let shift = 32 * (r & 1);
                let mask = (0xffff_ffff << shift) & RTE_WRITABLE;
                let entry = &mut self.s.table[n];
                *entry = *entry & !mask | u64::from(v) << shift & mask;
                // Linux clears a stuck remote IRR by switching to edge
                if *entry & RTE_LEVEL == 0 {
                    *entry &= !RTE_REMOTE_IRR;
                }
                self.service_level(n);
            }
            _ => {}
        }
    }
}

/// A handle on the I/O APIC; clones are the same chip.
#[derive(Clone)]
pub struct IoApic {
    core: Arc<Mutex<Core>>,
}

impl IoApic {
    /// An I/O APIC with APIC ID `id` (4 bits) at power-on, sending to `sink`.
    pub fn new(id: u8, sink: Arc<dyn InterruptSink>) -> Self {
        Self { core: Arc::new(Mutex::new(Core { s: Core::fresh(id), power_on_id: id, sink })) }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire into pin `pin`; none if there is no such pin.
    pub fn pin(&self, pin: u8) -> Option<Arc<dyn IrqLine>> {
        (pin < PINS).then(|| Arc::new(Pin { ioapic: self.clone(), pin }) as Arc<dyn IrqLine>)
    }

    /// A local APIC broadcast the EOI of a level-triggered `vector`.
    pub fn eoi(&self, vector: u8) {
        self.core().eoi(vector);
    }
}

struct Pin {
    ioapic: IoApic,
    pin: u8,
}

impl IrqLine for Pin {
    fn set(&self, level: bool) {
        self.ioapic.core().set_pin(usize::from(self.pin), level);
    }
}

impl Device for IoApic {
    type State = IoApicState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= WINDOW {
            data.fill(0xff);
            return;
        }
        let core = self.core();
        let v = match offset & !3 {
            IOREGSEL => u32::from(core.s.select),
            IOWIN => core.read_reg(),
            _ => 0,
        };
        fill(data, u64::from(v) >> (8 * (offset & 3)));
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Some(&low) = data.first() else { return };
        let mut core = self.core();
        match offset {
            IOREGSEL => core.s.select = low,
            // registers are written as double words only (82093AA §3.0)
            IOWIN if data.len() >= 4 => core.write_reg(value(&data[..4]) as u32),
            EOI => core.eoi(low),
            _ => {}
        }
    }

    fn reset(&mut self) {
        let mut core = self.core();
        core.s = Core::fresh(core.power_on_id);
    }

    fn save(&self) -> IoApicState {
        self.core().s.clone()
    }

    fn load(&mut self, state: IoApicState) -> Result<(), StateError> {
        let valid = state.table.iter().all(|e| e & !(RTE_WRITABLE | RTE_REMOTE_IRR) == 0);
        if !valid || state.lines >> PINS != 0 || state.id > 0xf {
            return Err(StateError::new("ioapic", "registers", "have reserved bits set"));
        }
        self.core().s = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, read, write};

    #[derive(Default)]
    struct Sink(Mutex<Vec<ApicMessage>>);
    impl InterruptSink for Sink {
        fn deliver(&self, message: ApicMessage) {
            self.0.lock().unwrap().push(message);
        }
    }
    impl Sink {
        fn take(&self) -> Vec<ApicMessage> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn ioapic() -> (IoApic, Arc<Sink>) {
        let sink = Arc::new(Sink::default());
        (IoApic::new(2, sink.clone()), sink)
    }

    device_tests!(every_device, || Fixture {
        device: ioapic().0,
        offsets: vec![0, 0, 0x10, 0x10, 0x40, 0x11, 0x20],
        outside: vec![0x100, 0xfff, u64::MAX],
        disturb: Box::new(|d, n| {
            for vector in 0..=255 {
                d.eoi(vector);
            }
            // released again, so that a reset machine has quiet wires
            let pin = d.pin((n % 24) as u8).unwrap();
            pin.set(true);
            pin.set(false);
        }),
    });

    fn set_reg(a: &mut IoApic, r: u64, v: u64) {
        write(a, 0, 4, r);
        write(a, 0x10, 4, v);
    }

    fn get_reg(a: &mut IoApic, r: u64) -> u64 {
        write(a, 0, 4, r);
        read(a, 0x10, 4)
    }

    fn route(a: &mut IoApic, pin: u64, low: u64, dest: u64) {
        set_reg(a, 0x11 + 2 * pin, dest << 24);
        set_reg(a, 0x10 + 2 * pin, low);
    }

    #[test]
    fn identifies_itself() {
        let (mut a, _) = ioapic();
        assert_eq!(get_reg(&mut a, 1), 0x0017_0020);
        assert_eq!(get_reg(&mut a, 0), 0x0200_0000);
        set_reg(&mut a, 0, 0x0900_0000);
        assert_eq!(get_reg(&mut a, 0), 0x0900_0000);
        assert_eq!(get_reg(&mut a, 2), 0x0900_0000);
        assert_eq!(get_reg(&mut a, 0x3e), 0x1_0000, "masked at power-on");
        assert_eq!(get_reg(&mut a, 0x40), 0);
    }

    #[test]
    fn edge_sends_one_message_per_rise() {
        let (mut a, sink) = ioapic();
        route(&mut a, 2, 0x0830, 3); // logical
        let pin = a.pin(2).unwrap();
        pin.set(true);
        pin.set(true);
        pin.set(false);
        let expected =
            ApicMessage { dest: 3, dest_mode_logical: true, delivery_mode: 0, vector: 0x30, level: false };
        assert_eq!(sink.take(), [expected]);
        pin.set(true);
        assert_eq!(sink.take().len(), 1);
    }

    #[test]
    fn masked_edge_is_lost_and_masked_level_waits() {
        let (mut a, sink) = ioapic();
        route(&mut a, 4, 0x1_0031, 0);
        a.pin(4).unwrap().set(true);
        set_reg(&mut a, 0x18, 0x31);
        assert!(sink.take().is_empty());
        route(&mut a, 5, 0x1_8032, 0);
        a.pin(5).unwrap().set(true);
        assert!(sink.take().is_empty());
        set_reg(&mut a, 0x1a, 0x8032);
        assert_eq!(sink.take().len(), 1);
    }

    #[test]
    fn level_repeats_after_eoi_while_asserted() {
        let (mut a, sink) = ioapic();
        route(&mut a, 9, 0x8041, 0);
        let pin = a.pin(9).unwrap();
        pin.set(true);
        assert!(sink.take()[0].level);
        assert_ne!(get_reg(&mut a, 0x22) & RTE_REMOTE_IRR, 0);
        pin.set(false);
        pin.set(true);
        assert!(sink.take().is_empty(), "remote IRR holds it back");
        a.eoi(0x40);
        assert!(sink.take().is_empty(), "another vector");
        a.eoi(0x41);
        assert_eq!(sink.take().len(), 1);
        pin.set(false);
        write(&mut a, 0x40, 4, 0x41); // the EOI register
        assert!(sink.take().is_empty());
        assert_eq!(get_reg(&mut a, 0x22) & RTE_REMOTE_IRR, 0);
    }

    #[test]
    fn switching_to_edge_clears_remote_irr() {
        let (mut a, _) = ioapic();
        route(&mut a, 9, 0x8041, 0);
        a.pin(9).unwrap().set(true);
        set_reg(&mut a, 0x22, 0x1_0041);
        assert_eq!(get_reg(&mut a, 0x22), 0x1_0041);
    }

    #[test]
    fn extint_passes_for_virtual_wire() {
        let (mut a, sink) = ioapic();
        route(&mut a, 0, 0x700, 0);
        a.pin(0).unwrap().set(true);
        assert_eq!(sink.take()[0].delivery_mode, 7);
        route(&mut a, 1, 0x300, 0); // reserved mode
        a.pin(1).unwrap().set(true);
        assert!(sink.take().is_empty());
        assert!(a.pin(24).is_none());
    }
}
