//! 8259A interrupt controller pair with the edge/level control registers
//! (*Intel 8259A data sheet 231468*; ELCR: *Intel 82371SB §2.5.9*).
//!
//! Offsets from port 20h: 0 and 1 the master, 80h and 81h the slave,
//! 4B0h and 4B1h the ELCR (ports 4D0h, 4D1h).
//!
//! The INTR output is a wire: to LINT0 of the boot processor or to pin 0 of
//! the I/O APIC, in ExtINT mode. Whoever takes the interrupt calls
//! [`Pic::ack`], the INTA cycle.
//!
//! | threat | guard |
//! |---|---|
//! | INTA with nothing pending, or the request gone | spurious IRQ 7 (or 15), as the chip does; no state change |
//! | half-finished initialisation | each step is a state; ICW1 starts over from any |

use crate::device::{Device, StateError};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SLAVE: u64 = 0x80;
const ELCR: u64 = 0x4b0;

/// IRQs that the ELCR cannot make level-triggered: timer, keyboard, cascade;
/// RTC and coprocessor.
const ELCR_FIXED: [u8; 2] = [0x07, 0x21];

/// One chip as a snapshot keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChipState {
    /// Interrupt request register.
    irr: u8,
    /// In-service register.
    isr: u8,
    /// Interrupt mask register.
    imr: u8,
    /// Levels of the eight wires.
    lines: u8,
    /// Inputs that are level-triggered.
    elcr: u8,
    /// ICW2: the vector of input 0.
    base: u8,
    /// Input of lowest priority; rotation moves it.
    lowest: u8,
    /// Which ICW comes next at the odd port; 0 when initialised.
    icw: u8,
    icw4_needed: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_mask: bool,
    special_fully_nested: bool,
    /// OCW3 chose ISR instead of IRR for the even port.
    read_isr: bool,
    poll: bool,
    /// ICW1's level-trigger bit.
    level_all: bool,
}

impl ChipState {
    fn fresh() -> Self {
        Self { lowest: 7, ..Self::default() }
    }

    fn set_line(&mut self, pin: u8, level: bool) {
        let bit = 1 << pin;
        let was = self.lines & bit != 0;
        self.lines = self.lines & !bit | if level { bit } else { 0 };
        if self.is_level(bit) {
            self.irr = self.irr & !bit | self.lines & bit;
        } else if level && !was {
            self.irr |= bit;
        } else if !level {
            // an edge must stay until acknowledged, or it turns spurious
            self.irr &= !bit;
        }
    }

    fn is_level(&self, bit: u8) -> bool {
        self.level_all || self.elcr & bit != 0
    }

    /// Position in the priority order of the first of `bits`; 8 if none.
    fn priority(&self, bits: u8) -> u8 {
        (0..8).find(|&n| bits & 1 << ((self.lowest + 1 + n) & 7) != 0).unwrap_or(8)
    }

    /// The input whose interrupt would be taken now.
    fn pending(&self, is_master: bool) -> Option<u8> {
        if self.icw != 0 {
            return None;
        }
        let request = self.priority(self.irr & !self.imr);
        if request == 8 {
            return None;
        }
        let mut serving = self.isr;
        if self.special_mask {
            serving &= !self.imr;
        }
        if self.special_fully_nested && is_master {
            // the slave may interrupt its own service
            serving &= !4;
        }
        (request < self.priority(serving)).then_some((self.lowest + 1 + request) & 7)
    }

    fn take(&mut self, pin: u8) {
        let bit = 1 << pin;
        if !self.is_level(bit) {
            self.irr &= !bit;
        }
        if self.auto_eoi {
            if self.rotate_on_auto_eoi {
                self.lowest = pin;
            }
        } else {
            self.isr |= bit;
        }
    }

    fn write_command(&mut self, v: u8) {
        if v & 0x10 != 0 {
            // ICW1: edge sense is cleared, IMR too, priority 7 is lowest
            let (lines, elcr) = (self.lines, self.elcr);
            *self = Self {
                lines,
                elcr,
                icw: 2,
                icw4_needed: v & 1 != 0,
                single: v & 2 != 0,
                level_all: v & 8 != 0,
                ..Self::fresh()
            };
            let level = if self.level_all { 0xff } else { elcr };
            self.irr = lines & level;
        } else if v & 8 != 0 {
            // OCW3
            if v & 0x40 != 0 {
                self.special_mask = v & 0x20 != 0;
            }
            self.poll = v & 4 != 0;
            if v & 2 != 0 {
                self.read_isr = v & 1 != 0;
            }
        } else {
            // OCW2
            let pin = v & 7;
            match v >> 5 {
                0 => self.rotate_on_auto_eoi = false,
                4 => self.rotate_on_auto_eoi = true,
                1 | 5 => {
                    let serving = if self.special_mask { self.isr & !self.imr } else { self.isr };
                    let n = self.priority(serving);
                    if n < 8 {
                        let pin = (self.lowest + 1 + n) & 7;
                        self.isr &= !(1 << pin);
                        if v >> 5 == 5 {
                            self.lowest = pin;
                        }
                    }
                }
                3 => self.isr &= !(1 << pin),
                7 => {
                    self.isr &= !(1 << pin);
                    self.lowest = pin;
                }
                6 => self.lowest = pin,
                _ => {} // 2: no operation
            }
        }
    }

    fn write_data(&mut self, v: u8) {
        match self.icw {
            2 => {
                self.base = v & 0xf8;
                self.icw = match (self.single, self.icw4_needed) {
                    (false, _) => 3,
                    (true, true) => 4,
                    (true, false) => 0,
                };
            }
            // the cascade is wired, whatever ICW3 says
            3 => self.icw = if self.icw4_needed { 4 } else { 0 },
            4 => {
                self.auto_eoi = v & 2 != 0;
                self.special_fully_nested = v & 0x10 != 0;
                self.icw = 0;
            }
            _ => self.imr = v,
        }
    }

    fn valid(&self) -> bool {
        self.lowest < 8 && self.base & 7 == 0 && matches!(self.icw, 0 | 2 | 3 | 4)
    }
}

/// What a snapshot keeps of the pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PicState {
    chips: [ChipState; 2],
}

struct Core {
    chips: [ChipState; 2],
    intr: Arc<dyn IrqLine>,
}

impl Core {
    fn update(&mut self) {
        let slave = self.chips[1].pending(false).is_some();
        // the slave's INT is the master's input 2
        self.chips[0].set_line(2, slave);
        self.intr.set(self.chips[0].pending(true).is_some());
    }

    fn ack(&mut self) -> u8 {
        let vector = match self.chips[0].pending(true) {
            Some(2) => {
                let vector = match self.chips[1].pending(false) {
                    Some(pin) => {
                        self.chips[1].take(pin);
                        self.chips[1].base | pin
                    }
                    None => self.chips[1].base | 7,
                };
                self.chips[0].take(2);
                vector
            }
            Some(pin) => {
                self.chips[0].take(pin);
                self.chips[0].base | pin
            }
            None => self.chips[0].base | 7,
        };
        // another request of the slave is a new edge on the cascade
        self.chips[0].set_line(2, false);
        self.update();
        vector
    }

    fn poll(&mut self, chip: usize) -> u8 {
        self.chips[chip].poll = false;
        let answer = match self.chips[chip].pending(chip == 0) {
            Some(pin) => {
                self.chips[chip].take(pin);
                0x80 | pin
            }
            None => 0,
        };
        self.update();
        answer
    }

    fn read(&mut self, offset: u64) -> u8 {
        match offset {
            ELCR => self.chips[0].elcr,
            o if o == ELCR + 1 => self.chips[1].elcr,
            _ => {
                let n = usize::from(offset >= SLAVE);
                if self.chips[n].poll {
                    return self.poll(n);
                }
                let c = &self.chips[n];
                match (offset & 1, c.read_isr) {
                    (1, _) => c.imr,
                    (_, true) => c.isr,
                    (_, false) => c.irr,
                }
            }
        }
    }

    fn write(&mut self, offset: u64, v: u8) {
        match offset {
            ELCR => self.chips[0].elcr = v & !ELCR_FIXED[0],
            o if o == ELCR + 1 => self.chips[1].elcr = v & !ELCR_FIXED[1],
            _ => {
                let chip = &mut self.chips[usize::from(offset >= SLAVE)];
                if offset & 1 == 0 {
                    chip.write_command(v);
                } else {
                    chip.write_data(v);
                }
            }
        }
        // an EOI of the slave with more to do must be a new edge
        self.chips[0].set_line(2, false);
        self.update();
    }
}

fn listens(offset: u64) -> bool {
    matches!(offset, 0 | 1 | 0x80 | 0x81 | 0x4b0 | 0x4b1)
}

/// A handle on the pair; clones are the same chips.
#[derive(Clone)]
pub struct Pic {
    core: Arc<Mutex<Core>>,
}

impl Pic {
    /// A pair whose INTR drives `intr`. `intr` is called with the chips
    /// locked and must not call back.
    pub fn new(intr: Arc<dyn IrqLine>) -> Self {
        Self { core: Arc::new(Mutex::new(Core { chips: [ChipState::fresh(), ChipState::fresh()], intr })) }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wire of ISA interrupt `irq` (0–15; 2 is the cascade and goes
    /// nowhere).
    pub fn line(&self, irq: u8) -> Arc<dyn IrqLine> {
        Arc::new(PicLine { pic: self.clone(), irq: irq & 15 })
    }

    /// The INTA cycle: takes the pending interrupt of highest priority and
    /// returns its vector. With nothing pending that is the spurious IRQ 7.
    pub fn ack(&self) -> u8 {
        self.core().ack()
    }

    /// Whether INTR is asserted.
    pub fn pending(&self) -> bool {
        self.core().chips[0].pending(true).is_some()
    }
}

struct PicLine {
    pic: Pic,
    irq: u8,
}

impl IrqLine for PicLine {
    fn set(&self, level: bool) {
        if self.irq == 2 {
            return;
        }
        let mut core = self.pic.core();
        core.chips[usize::from(self.irq >> 3)].set_line(self.irq & 7, level);
        core.update();
    }
}

impl Device for Pic {
    type State = PicState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if listens(offset)
            && let Some(first) = data.first_mut()
        {
            *first = self.core().read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if listens(offset)
            && let Some(&v) = data.first()
        {
            self.core().write(offset, v);
        }
    }

    fn reset(&mut self) {
        let mut core = self.core();
        core.chips = [ChipState::fresh(), ChipState::fresh()];
        core.update();
    }

    fn save(&self) -> PicState {
        PicState { chips: self.core().chips.clone() }
    }

    fn load(&mut self, state: PicState) -> Result<(), StateError> {
        if !state.chips.iter().all(ChipState::valid) {
            return Err(StateError::new("pic", "chip", "has no valid priority, base or step"));
        }
        let mut core = self.core();
        core.chips = state.chips;
        let pending = core.chips[0].pending(true).is_some();
        core.intr.set(pending);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestLine, inb, outb};

    fn raw() -> (Pic, Arc<TestLine>) {
        let intr = TestLine::new();
        (Pic::new(intr.clone()), intr)
    }

    /// Initialised as Linux does: vectors 30h and 38h, nothing masked.
    fn pic() -> (Pic, Arc<TestLine>) {
        let (mut p, intr) = raw();
        for (o, v) in [(0, 0x11), (1, 0x30), (1, 4), (1, 1)] {
            outb(&mut p, o, v);
        }
        for (o, v) in [(0x80, 0x11), (0x81, 0x38), (0x81, 2), (0x81, 1)] {
            outb(&mut p, o, v);
        }
        outb(&mut p, 1, 0);
        outb(&mut p, 0x81, 0);
        (p, intr)
    }

    device_tests!(every_device, || Fixture {
        device: raw().0,
        offsets: vec![0, 1, 0x80, 0x81, 0x4b0, 0x4b1],
        outside: vec![2, 0x82, 0x4b2, u64::MAX],
        disturb: Box::new(|d, n| {
            let line = d.line((n % 16) as u8);
            line.set(true);
            d.ack();
            line.set(false);
        }),
    });

    #[test]
    fn linux_probe_reads_the_mask_back() {
        let (mut p, _) = raw();
        outb(&mut p, 0x81, 0xff);
        outb(&mut p, 1, 0xfb);
        assert_eq!(inb(&mut p, 1), 0xfb);
    }

    #[test]
    fn edge_interrupt_is_delivered_once() {
        let (mut p, intr) = pic();
        let line = p.line(0);
        line.set(true);
        assert!(intr.level());
        assert_eq!(p.ack(), 0x30);
        assert!(!intr.level());
        outb(&mut p, 0, 0x60); // specific EOI of 0
        assert!(!intr.level());
        line.set(false);
        line.set(true);
        assert!(intr.level());
    }

    #[test]
    fn slave_interrupts_through_the_cascade() {
        let (mut p, intr) = pic();
        p.line(12).set(true);
        p.line(10).set(true);
        assert_eq!(p.ack(), 0x3a);
        outb(&mut p, 0x80, 0x20);
        outb(&mut p, 0, 0x62);
        assert!(intr.level());
        assert_eq!(p.ack(), 0x3c);
    }

    #[test]
    fn lower_priority_waits_for_eoi() {
        let (mut p, intr) = pic();
        p.line(1).set(true);
        assert_eq!(p.ack(), 0x31);
        p.line(4).set(true);
        assert!(!intr.level());
        p.line(0).set(true);
        assert!(intr.level());
        assert_eq!(p.ack(), 0x30);
        outb(&mut p, 0, 0x20);
        outb(&mut p, 0, 0x20);
        assert_eq!(p.ack(), 0x34);
    }

    #[test]
    fn masked_request_waits() {
        let (mut p, intr) = pic();
        outb(&mut p, 1, 0xff);
        p.line(4).set(true);
        assert!(!intr.level());
        outb(&mut p, 1, 0xef);
        assert!(intr.level());
    }

    #[test]
    fn vanished_request_is_spurious() {
        let (mut p, _) = pic();
        p.line(4).set(true);
        p.line(4).set(false);
        assert_eq!(p.ack(), 0x37);
        outb(&mut p, 0, 0x0b);
        assert_eq!(inb(&mut p, 0), 0, "no in-service bit");
    }

    #[test]
    fn level_interrupt_repeats_until_released() {
        let (mut p, intr) = pic();
        outb(&mut p, 0x4b0, 0xff);
        assert_eq!(inb(&mut p, 0x4b0), 0xf8, "0, 1 and 2 are always edge");
        let line = p.line(5);
        line.set(true);
        assert_eq!(p.ack(), 0x35);
        outb(&mut p, 0, 0x65);
        assert!(intr.level());
        line.set(false);
        assert!(!intr.level());
    }

    #[test]
    fn auto_eoi_leaves_nothing_in_service() {
        let (mut p, _) = pic();
        for (o, v) in [(0, 0x11), (1, 0x30), (1, 4), (1, 3)] {
            outb(&mut p, o, v);
        }
        p.line(3).set(true);
        assert_eq!(p.ack(), 0x33);
        outb(&mut p, 0, 0x0b);
        assert_eq!(inb(&mut p, 0), 0);
    }

    #[test]
    fn poll_command_acknowledges() {
        let (mut p, _) = pic();
        p.line(6).set(true);
        outb(&mut p, 0, 0x0c);
        assert_eq!(inb(&mut p, 0), 0x86);
        outb(&mut p, 0, 0x0b);
        assert_eq!(inb(&mut p, 0), 0x40);
    }

    #[test]
    fn rotation_moves_the_lowest() {
        let (mut p, _) = pic();
        outb(&mut p, 0, 0xc3); // set priority: 3 lowest, 4 highest
        p.line(1).set(true);
        p.line(4).set(true);
        assert_eq!(p.ack(), 0x34);
    }
}
