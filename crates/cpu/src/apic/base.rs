//! `IA32_APIC_BASE` and the modes (*SDM vol. 3A §10.4.3, §10.12.1, §10.12.5*).

use super::{Apic, Effect, Gp};

const BSP: u64 = 1 << 8;
const EXTD: u64 = 1 << 10;
const EN: u64 = 1 << 11;
const DEFAULT_BASE: u64 = 0xfee0_0000;

/// Operating mode of a local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Globally disabled, as if there were none.
    Disabled,
    /// Registers in a 4 KiB page.
    XApic,
    /// Registers in MSRs.
    X2Apic,
}

pub(super) fn reset(bsp: bool) -> u64 {
    DEFAULT_BASE | EN | if bsp { BSP } else { 0 }
}

impl Apic {
    /// Operating mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        mode(self.base)
    }

    /// Physical address of the register page, in xAPIC mode.
    #[must_use]
    pub fn mmio_base(&self) -> Option<u64> {
        (self.mode() == Mode::XApic).then_some(self.base & !0xfff)
    }

    /// The value of `IA32_APIC_BASE`.
    #[must_use]
    pub fn base_msr(&self) -> u64 {
        self.base
    }

    /// Whether `IA32_APIC_BASE` can have this value.
    pub(super) fn is_base(&self, value: u64) -> bool {
        let width = u32::from(self.config.maxphyaddr.clamp(32, 52));
        let mut allowed = BSP | EN | ((1 << width) - 1) & !0xfff;
        if self.config.x2apic {
            allowed |= EXTD;
        }
        value & !allowed == 0 && value & (EN | EXTD) != EXTD
    }

    /// WRMSR to `IA32_APIC_BASE`. Legal transitions (*figure 10-27*): disabled
    /// to xAPIC, xAPIC to x2APIC, either to disabled.
    pub(super) fn write_base(&mut self, value: u64) -> Result<Option<Effect>, Gp> {
        if !self.is_base(value) {
            return Err(Gp);
        }
        match (self.mode(), mode(value)) {
            (Mode::Disabled, Mode::X2Apic) | (Mode::X2Apic, Mode::XApic) => return Err(Gp),
            (Mode::XApic, Mode::X2Apic) => {
                // All state is kept but what has another form (§10.12.5.1):
                // the LDR reads as made from the ID, ICR[63:32] is cleared.
                self.icr &= 0xffff_ffff;
            }
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => {
                // Enabled again, it is as after power-up (§10.4.3). Pending
                // interrupts are lost.
                self.reset();
            }
            _ => {}
        }
        let changed = self.base != value;
        self.base = value;
        Ok(changed.then_some(Effect::BaseChanged))
    }
}

fn mode(base: u64) -> Mode {
    match (base & EN != 0, base & EXTD != 0) {
        (false, _) => Mode::Disabled,
        (true, false) => Mode::XApic,
        (true, true) => Mode::X2Apic,
    }
}
