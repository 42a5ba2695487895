//! A local APIC in a snapshot: a form of its own, apart from the live structure,
//! and checked against what the registers can hold when it is taken over.

use serde::{Deserialize, Serialize};

use super::bits::Bits256;
use super::ipi::ICR_LOW_WRITABLE;
use super::regs::SVR_FOCUS;
use super::timer::{Timer, TimerState};
use super::{Apic, Lvt, Mode, error};

/// What a snapshot keeps of a local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApicState {
    base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: [u32; 8],
    tmr: [u32; 8],
    irr: [u32; 8],
    esr: u32,
    errors: u32,
    icr: u64,
    lvt: [u32; Lvt::COUNT],
    lint: [bool; 2],
    timer: TimerState,
}

impl Apic {
    /// The state, for a snapshot.
    #[must_use]
    pub fn save(&self) -> ApicState {
        let Apic { config: _, base, tpr, ldr, dfr, svr, isr, tmr, irr, esr, errors, icr, lvt, lint, timer } =
            self;
        ApicState {
            base: *base,
            tpr: *tpr,
            ldr: *ldr,
            dfr: *dfr,
            svr: *svr,
            isr: isr.words(),
            tmr: tmr.words(),
            irr: irr.words(),
            esr: *esr,
            errors: *errors,
            icr: *icr,
            lvt: *lvt,
            lint: *lint,
            timer: timer.save(),
        }
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// The name of the register whose value no APIC of this kind can have; the
    /// APIC is then unchanged.
    pub fn load(&mut self, state: &ApicState) -> Result<(), &'static str> {
        let check = |good: bool, name: &'static str| if good { Ok(()) } else { Err(name) };
        let mut new = Apic { base: state.base, tpr: state.tpr, svr: state.svr, ..Apic::new(self.config) };
        check(new.is_base(state.base), "IA32_APIC_BASE")?;
        check(state.svr & !(new.svr_writable() | SVR_FOCUS) == 0, "SVR")?;
        check(state.ldr & 0x00ff_ffff == 0, "LDR")?;
        check(!state.dfr & 0x0fff_ffff == 0, "DFR")?;
        check((state.esr | state.errors) & !error::ALL == 0, "ESR")?;
        let high = if new.mode() == Mode::X2Apic { u64::MAX } else { 0xff00_0000_ffff_ffff };
        check(state.icr as u32 & !ICR_LOW_WRITABLE == 0 && state.icr & !high == 0, "ICR")?;
        for (lvt, value) in Lvt::ALL.into_iter().zip(state.lvt) {
            check(new.is_lvt(lvt, value), "LVT")?;
        }
        new.isr = Bits256::from_words(state.isr).ok_or("ISR")?;
        new.tmr = Bits256::from_words(state.tmr).ok_or("TMR")?;
        new.irr = Bits256::from_words(state.irr).ok_or("IRR")?;
        new.timer = Timer::restore(&state.timer, state.lvt[Lvt::Timer as usize]).ok_or("timer")?;
        (new.ldr, new.dfr, new.icr) = (state.ldr, state.dfr, state.icr);
        (new.esr, new.errors, new.lvt, new.lint) = (state.esr, state.errors, state.lvt, state.lint);
        *self = new;
        Ok(())
    }
}
