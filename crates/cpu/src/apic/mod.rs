//! The local APIC (*SDM vol. 3A ch. 10*) as a state machine without a bus, a
//! clock or a thread.
//!
//! The owner forwards register accesses ([`Apic::read`] and [`Apic::write`] for
//! the xAPIC page, [`Apic::rdmsr`] and [`Apic::wrmsr`] for MSRs 0x1b, 0x6e0 and
//! 0x800–0x8ff), carries out the returned [`Effect`], and brings messages in
//! by [`Apic::deliver`]. Time is the value of the TSC, passed in; the owner
//! calls [`Apic::expire`] once the TSC reaches [`Apic::deadline`]. The
//! processor asks [`Apic::pending`] and takes an interrupt by [`Apic::ack`].
//!
//! Model choices, where the SDM leaves them open: the APIC ID is read-only;
//! focus checking does not exist; interrupts sent by IPI are edge triggered;
//! `PPR[3:0]` is `TPR[3:0]` when both classes are equal; delivery status always
//! reads idle, as every message arrives at once.

mod base;
mod bits;
mod ipi;
mod lvt;
mod msr;
mod regs;
mod state;
mod timer;

#[cfg(test)]
mod tests;

pub use base::Mode;
pub use ipi::{Delivery, Destination, Ipi, lowest_priority, x2apic_ldr};
pub use lvt::Lvt;
pub use state::ApicState;
pub use timer::Ratio;

use bits::Bits256;
use timer::Timer;

/// General protection fault with error code 0, for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gp;

/// What a register write makes the rest of the machine do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send an interprocessor interrupt to every APIC that
    /// [matches](Apic::matches).
    Send(Ipi),
    /// Broadcast the end of a level-triggered interrupt to the I/O APICs.
    Eoi(u8),
    /// `IA32_APIC_BASE` changed: the page may have moved or vanished
    /// ([`Apic::mmio_base`]), the mode may be another one ([`Apic::mode`]).
    BaseChanged,
}

/// What a delivered message asks of the processor core, besides what
/// [`Apic::pending`] will say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Non-maskable interrupt.
    Nmi,
    /// System management interrupt.
    Smi,
    /// INIT: the core resets and waits for a SIPI; it calls [`Apic::init`].
    Init,
    /// Start-up at physical address `vector << 12`.
    StartUp(u8),
    /// External interrupt: the vector comes from the 8259.
    ExtInt,
}

/// What is fixed when the machine is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// APIC ID; the xAPIC shows its low 8 bits.
    pub id: u32,
    /// Bootstrap processor.
    pub bsp: bool,
    /// x2APIC supported (CPUID.01H:ECX\[21\]).
    pub x2apic: bool,
    /// TSC-deadline timer supported (CPUID.01H:ECX\[24\]).
    pub tsc_deadline: bool,
    /// EOI-broadcast suppression supported (version register bit 24).
    pub eoi_suppression: bool,
    /// Physical address width in bits, at most 52.
    pub maxphyaddr: u8,
    /// Clock of the timer before its divider, against the TSC.
    pub timer: Ratio,
}

/// One local APIC.
#[derive(Clone, Debug, PartialEq)]
pub struct Apic {
    config: Config,
    /// IA32_APIC_BASE.
    base: u64,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: Bits256,
    tmr: Bits256,
    irr: Bits256,
    /// What reads of the ESR show, and what the next write of it latches.
    esr: u32,
    errors: u32,
    icr: u64,
    lvt: [u32; Lvt::COUNT],
    /// LINT0 and LINT1 as last driven; true is asserted.
    lint: [bool; 2],
    timer: Timer,
}

const SVR_ENABLE: u32 = 1 << 8;
const SVR_EOI_SUPPRESS: u32 = 1 << 12;

/// ESR bits (*§10.5.3*).
mod error {
    pub(super) const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(super) const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
    pub(super) const ALL: u32 = SEND_ILLEGAL_VECTOR | RECEIVE_ILLEGAL_VECTOR | ILLEGAL_REGISTER;
}

impl Apic {
    /// An APIC after power-up (*§10.4.7.1*): enabled in xAPIC mode at
    /// 0xfee0_0000, software-disabled.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Apic {
            config,
            base: base::reset(config.bsp),
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: Bits256::default(),
            tmr: Bits256::default(),
            irr: Bits256::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [lvt::MASKED; Lvt::COUNT],
            lint: [false; 2],
            timer: Timer::default(),
        }
    }

    /// Power-up or RESET#: everything but the state of the LINT pins.
    pub fn reset(&mut self) {
        *self = Apic { lint: self.lint, ..Apic::new(self.config) };
    }

    /// INIT: as [`reset`](Self::reset), but `IA32_APIC_BASE` stays, and with it
    /// mode and address (*§10.4.7.3, §10.12.5.1*).
    pub fn init(&mut self) {
        let base = self.base;
        self.reset();
        self.base = base;
    }

    /// Whether SVR bit 8 and `IA32_APIC_BASE`\[11\] let it accept fixed
    /// interrupts (*§10.4.3, §10.4.7.2*).
    #[must_use]
    pub fn accepts_fixed(&self) -> bool {
        self.mode() != Mode::Disabled && self.svr & SVR_ENABLE != 0
    }

    /// Puts a fixed interrupt into the IRR (*§10.8.4*); `level` is its trigger
    /// mode. Returns whether it was accepted: not when the APIC is disabled,
    /// and not with a vector below 16, which is recorded as an error.
    pub fn accept(&mut self, vector: u8, level: bool) -> bool {
        if !self.accepts_fixed() {
            return false;
        }
        if vector < 16 {
            self.raise_error(error::RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        self.irr.set(vector);
        self.tmr.assign(vector, level);
        true
    }

    /// Takes a message that is addressed to this APIC.
    pub fn deliver(&mut self, mode: Delivery, vector: u8, level: bool) -> Option<Signal> {
        if self.mode() == Mode::Disabled {
            return None;
        }
        match mode {
            Delivery::Fixed | Delivery::LowestPriority => {
                self.accept(vector, level);
                None
            }
            // These reach a software-disabled APIC, too (§10.4.7.2).
            Delivery::Smi => Some(Signal::Smi),
            Delivery::Nmi => Some(Signal::Nmi),
            Delivery::Init => Some(Signal::Init),
            Delivery::StartUp => Some(Signal::StartUp(vector)),
            Delivery::ExtInt => Some(Signal::ExtInt),
        }
    }

    /// The highest vector that may interrupt now: its class is above that of
    /// the processor priority (*§10.8.3.1*).
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        if self.mode() == Mode::Disabled {
            return None;
        }
        self.irr.highest().filter(|v| v >> 4 > self.ppr() >> 4)
    }

    /// The interrupt acknowledge: moves the pending vector from IRR to ISR and
    /// returns it, or the spurious vector when there is none any more (*§10.9*).
    pub fn ack(&mut self) -> u8 {
        match self.pending() {
            Some(v) => {
                self.irr.clear(v);
                self.isr.set(v);
                v
            }
            None => self.svr as u8,
        }
    }

    /// Processor priority register (*§10.8.3.1*).
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let isrv = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= isrv >> 4 { self.tpr } else { isrv & 0xf0 }
    }

    /// CR8: `TPR[7:4]` (*§10.8.6*).
    #[must_use]
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// MOV to CR8.
    ///
    /// # Errors
    /// [`Gp`] when a bit above 3 is set.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), Gp> {
        if value > 15 {
            return Err(Gp);
        }
        self.tpr = (value as u8) << 4; // TPR[3:0] is cleared
        Ok(())
    }

    /// End of interrupt (*§10.8.5*): the highest in-service vector is done.
    fn eoi(&mut self) -> Option<Effect> {
        let vector = self.isr.highest()?;
        self.isr.clear(vector);
        if !self.tmr.get(vector) {
            return None;
        }
        self.lint_eoi(vector);
        (self.svr & SVR_EOI_SUPPRESS == 0).then_some(Effect::Eoi(vector))
    }

    /// Records an error and raises the error interrupt (*§10.5.3*).
    fn raise_error(&mut self, bit: u32) {
        self.errors |= bit;
        let lvt = self.lvt[Lvt::Error as usize];
        if lvt & lvt::MASKED != 0 {
            return;
        }
        // An illegal vector here is an error of its own; it must not raise
        // itself again.
        match lvt as u8 {
            0..16 => self.errors |= error::RECEIVE_ILLEGAL_VECTOR,
            vector => {
                self.accept(vector, false);
            }
        }
    }
}
