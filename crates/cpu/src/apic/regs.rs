//! The register page of the xAPIC (*SDM vol. 3A table 10-1*).
//!
//! Registers are 32 bits wide at multiples of 16 bytes; the owner turns other
//! accesses into aligned ones or drops them (*§10.4.1*).

use super::ipi::ICR_LOW_WRITABLE;
use super::{Apic, Effect, Lvt, Mode, SVR_ENABLE, SVR_EOI_SUPPRESS, error};

/// Version 0x15 (integrated), seven LVT entries.
const VERSION: u32 = 0x0006_0015;
const VERSION_EOI_SUPPRESSION: u32 = 1 << 24;
pub(super) const SVR_FOCUS: u32 = 1 << 9;

impl Apic {
    /// Reads the register at `offset` in the page; `now` is the TSC. Reserved
    /// offsets read as zero and count as an error; when the APIC is not in
    /// xAPIC mode, all read as zero.
    pub fn read(&mut self, offset: u32, now: u64) -> u32 {
        if self.mode() != Mode::XApic {
            return 0;
        }
        self.settle_timer(now);
        match offset {
            0x020 => self.config.id << 24,
            0x0d0 => self.ldr,
            0x0e0 => self.dfr,
            0x0b0 => 0, // EOI is write-only
            0x300 => self.icr as u32,
            0x310 => (self.icr >> 32) as u32,
            _ => match self.common(offset, now) {
                Some(value) => value,
                None => {
                    self.raise_error(error::ILLEGAL_REGISTER);
                    0
                }
            },
        }
    }

    /// Writes the register at `offset` in the page. Bits that cannot be set
    /// are ignored; so are read-only registers. Reserved offsets count as an
    /// error.
    pub fn write(&mut self, offset: u32, value: u32, now: u64) -> Option<Effect> {
        if self.mode() != Mode::XApic {
            return None;
        }
        match offset {
            0x080 => self.tpr = value as u8,
            0x0b0 => return self.eoi(),
            0x0d0 => self.ldr = value & 0xff00_0000,
            0x0e0 => self.dfr = value | 0x0fff_ffff,
            0x0f0 => self.write_svr(value, now),
            0x280 => self.latch_errors(),
            0x300 => {
                self.icr = self.icr & !0xffff_ffff | u64::from(value & ICR_LOW_WRITABLE);
                return self.send();
            }
            0x310 => {
                self.icr = u64::from(value & 0xff00_0000) << 32 | self.icr & 0xffff_ffff;
            }
            0x380 => self.write_initial_count(value, now),
            0x3e0 => self.write_divide(value, now),
            _ => match Lvt::at(offset) {
                Some(lvt) => self.write_lvt(lvt, value, now),
                None if offset == 0x020 || self.common(offset, now).is_some() => {}
                None => self.raise_error(error::ILLEGAL_REGISTER),
            },
        }
        None
    }

    /// Registers that read the same in both modes.
    pub(super) fn common(&self, offset: u32, now: u64) -> Option<u32> {
        Some(match offset {
            0x030 if self.config.eoi_suppression => VERSION | VERSION_EOI_SUPPRESSION,
            0x030 => VERSION,
            0x080 => u32::from(self.tpr),
            0x0a0 => u32::from(self.ppr()),
            0x0f0 => self.svr,
            0x100..0x180 if offset & 15 == 0 => self.isr.word(offset >> 4),
            0x180..0x200 if offset & 15 == 0 => self.tmr.word(offset >> 4),
            0x200..0x280 if offset & 15 == 0 => self.irr.word(offset >> 4),
            0x280 => self.esr,
            0x380 => self.initial_count(),
            0x390 => self.current_count(now),
            0x3e0 => self.divide_register(),
            _ => self.lvt[Lvt::at(offset)? as usize],
        })
    }

    /// Bits of the SVR that software sets (*figure 10-23*).
    pub(super) fn svr_writable(&self) -> u32 {
        let suppress = if self.config.eoi_suppression { SVR_EOI_SUPPRESS } else { 0 };
        0xff | SVR_ENABLE | suppress
    }

    pub(super) fn write_svr(&mut self, value: u32, now: u64) {
        self.settle_timer(now);
        self.svr = value & (self.svr_writable() | SVR_FOCUS);
        if self.svr & SVR_ENABLE == 0 {
            // IRR and ISR are held (§10.4.7.2).
            self.mask_all_lvt();
        }
    }

    /// A write to the ESR, of any value, makes the errors since the last one
    /// readable (*§10.5.3*).
    pub(super) fn latch_errors(&mut self) {
        self.esr = self.errors;
        self.errors = 0;
    }
}
