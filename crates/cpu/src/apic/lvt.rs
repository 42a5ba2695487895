//! Local vector table (*SDM vol. 3A §10.5.1*) and the sources behind it.

use super::{Apic, Delivery, SVR_ENABLE, Signal};

pub(super) const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
/// Delivery status and remote IRR: writes leave them alone.
const READ_ONLY: u32 = 1 << 12 | REMOTE_IRR;

/// LVT register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lvt {
    /// Corrected machine check.
    Cmci,
    /// Timer.
    Timer,
    /// Thermal sensor.
    Thermal,
    /// Performance counters.
    Performance,
    /// LINT0 pin.
    Lint0,
    /// LINT1 pin.
    Lint1,
    /// APIC error.
    Error,
}

impl Lvt {
    pub(super) const COUNT: usize = 7;

    /// All, in the order of their numbers.
    pub(super) const ALL: [Lvt; Lvt::COUNT] =
        [Lvt::Cmci, Lvt::Timer, Lvt::Thermal, Lvt::Performance, Lvt::Lint0, Lvt::Lint1, Lvt::Error];

    /// By offset in the xAPIC page.
    pub(super) fn at(offset: u32) -> Option<Self> {
        Some(match offset {
            0x2f0 => Lvt::Cmci,
            0x320 => Lvt::Timer,
            0x330 => Lvt::Thermal,
            0x340 => Lvt::Performance,
            0x350 => Lvt::Lint0,
            0x360 => Lvt::Lint1,
            0x370 => Lvt::Error,
            _ => return None,
        })
    }

    /// Bits that software sets (*figure 10-8*).
    fn writable(self, tsc_deadline: bool) -> u32 {
        match self {
            Lvt::Timer if tsc_deadline => 0x7_00ff,
            Lvt::Timer => 0x3_00ff,
            Lvt::Cmci | Lvt::Thermal | Lvt::Performance => 0x1_07ff,
            Lvt::Lint0 | Lvt::Lint1 => 0x1_a7ff,
            Lvt::Error => 0x1_00ff,
        }
    }
}

impl Apic {
    /// Bits of an LVT register whose setting is a fault in x2APIC mode.
    pub(super) fn lvt_reserved(&self, lvt: Lvt) -> u32 {
        let mut known = lvt.writable(self.config.tsc_deadline) | 1 << 12;
        if matches!(lvt, Lvt::Lint0 | Lvt::Lint1) {
            known |= REMOTE_IRR;
        }
        !known
    }

    /// Whether an LVT register can hold this value.
    pub(super) fn is_lvt(&self, lvt: Lvt, value: u32) -> bool {
        let mut bits = lvt.writable(self.config.tsc_deadline);
        if bits & LEVEL != 0 && value & LEVEL != 0 {
            bits |= REMOTE_IRR;
        }
        value & !bits == 0 && (self.svr & SVR_ENABLE != 0 || value & MASKED != 0)
    }

    pub(super) fn write_lvt(&mut self, lvt: Lvt, value: u32, now: u64) {
        if lvt == Lvt::Timer {
            self.settle_timer(now);
        }
        let old = self.lvt[lvt as usize];
        let mut new = value & lvt.writable(self.config.tsc_deadline) | old & READ_ONLY;
        // While software-disabled, the mask bits stay set (§10.4.7.2).
        if self.svr & SVR_ENABLE == 0 {
            new |= MASKED;
        }
        if new & LEVEL == 0 {
            new &= !REMOTE_IRR;
        }
        self.lvt[lvt as usize] = new;
        match lvt {
            Lvt::Timer => self.timer_mode_changed(old, new),
            // A level that has been waiting for its mask bit to go.
            Lvt::Lint0 | Lvt::Lint1 => {
                self.sample_lint(lvt as usize - Lvt::Lint0 as usize, false);
            }
            _ => {}
        }
    }

    pub(super) fn mask_all_lvt(&mut self) {
        for lvt in &mut self.lvt {
            *lvt |= MASKED;
        }
    }

    /// An event of a local source: thermal sensor, performance counter
    /// overflow or corrected machine check. A performance interrupt masks its
    /// own LVT entry (*SDM vol. 3B*, performance monitoring, "Generating an interrupt on overflow"). The timer, the error entry
    /// and the pins have their own ways in and do nothing here.
    pub fn local_event(&mut self, lvt: Lvt) -> Option<Signal> {
        if !matches!(lvt, Lvt::Thermal | Lvt::Performance | Lvt::Cmci) {
            return None;
        }
        let entry = self.lvt[lvt as usize];
        if entry & MASKED != 0 {
            return None;
        }
        if lvt == Lvt::Performance {
            self.lvt[lvt as usize] |= MASKED;
        }
        self.deliver(Delivery::from_bits(entry >> 8)?, entry as u8, false)
    }

    /// Drives LINT0 (`pin` 0) or LINT1 (any other); `asserted` is after
    /// polarity. Returns what the core must take now.
    pub fn set_lint(&mut self, pin: usize, asserted: bool) -> Option<Signal> {
        let pin = pin.min(1);
        let rising = asserted && !self.lint[pin];
        self.lint[pin] = asserted;
        self.sample_lint(pin, rising)
    }

    /// Whether an unmasked pin in ExtINT mode is asserted: the 8259 has a
    /// vector for this processor. A disabled APIC passes LINT0 through as INTR
    /// (*§10.4.3*).
    #[must_use]
    pub fn extint(&self) -> bool {
        if self.mode() == super::Mode::Disabled {
            return self.lint[0];
        }
        [Lvt::Lint0, Lvt::Lint1].iter().zip(self.lint).any(|(l, asserted)| {
            let entry = self.lvt[*l as usize];
            asserted && entry & MASKED == 0 && entry >> 8 & 7 == 7
        })
    }

    fn sample_lint(&mut self, pin: usize, rising: bool) -> Option<Signal> {
        let index = Lvt::Lint0 as usize + pin;
        let entry = self.lvt[index];
        if entry & MASKED != 0 || !self.lint[pin] {
            return None;
        }
        let mode = Delivery::from_bits(entry >> 8)?;
        // The trigger bit counts for fixed mode only; NMI, SMI and INIT are
        // always edge triggered, ExtINT is always level (§10.5.1).
        let level = mode == Delivery::Fixed && entry & LEVEL != 0;
        if level {
            if entry & REMOTE_IRR == 0 && self.accept(entry as u8, true) {
                self.lvt[index] |= REMOTE_IRR;
            }
            return None;
        }
        if !rising {
            return None;
        }
        self.deliver(mode, entry as u8, false)
    }

    /// A level-triggered vector is done: the pins may raise it again.
    pub(super) fn lint_eoi(&mut self, vector: u8) {
        for pin in 0..2 {
            let entry = &mut self.lvt[Lvt::Lint0 as usize + pin];
            if *entry & REMOTE_IRR != 0 && *entry as u8 == vector {
                *entry &= !REMOTE_IRR;
                self.sample_lint(pin, false);
            }
        }
    }
}
