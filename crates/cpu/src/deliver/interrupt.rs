//! The processor's side of its local APIC (*SDM vol. 3A chapter 10*): register
//! accesses, acknowledge, timer and interprocessor interrupts.

use arch::Exception;

use crate::Cpu;
use crate::apic::{Apic, Config, Effect, Mode, Ratio};
use crate::cpuid;
use crate::epc::ABORT_PAGE;
use crate::shared::{self, lock};

/// [`Cpu::apic_page`] when the registers are in no page.
const NO_PAGE: u64 = u64::MAX;

impl Cpu {
    /// A local APIC for processor `id` of the model.
    pub(crate) fn new_apic(&self) -> Apic {
        let crystal = cpuid::crystal_hz(&self.model);
        let (tsc, bus) = cpuid::ratio(self.model.tsc_hz, crystal);
        Apic::new(Config {
            id: self.id as u32,
            bsp: self.id == 0,
            x2apic: true,
            tsc_deadline: true,
            eoi_suppression: false,
            maxphyaddr: self.model.phys_bits as u8,
            timer: Ratio { tsc, bus },
        })
    }

    /// Notes where the register page is, after it may have moved.
    pub(crate) fn update_apic(&mut self) {
        let shared = self.shared.clone();
        let apic = lock(&shared.apic);
        self.apic_page = apic.mmio_base().unwrap_or(NO_PAGE);
        shared.refresh(&apic);
    }

    /// True if IA32_APIC_BASE enables the local APIC.
    pub(crate) fn has_apic(&self) -> bool {
        lock(&self.shared.apic).mode() != Mode::Disabled
    }

    /// This processor's time-stamp counter.
    pub fn tsc(&self) -> u64 {
        self.bus.tsc().wrapping_add(self.s.msr.tsc_adjust)
    }

    /// Value of the *machine's* time-stamp counter ([`crate::Bus::tsc`]) at
    /// which the APIC timer is due, if it runs: the machine then calls
    /// [`Cpu::poll_timer`].
    pub fn timer_deadline(&self) -> Option<u64> {
        let deadline = lock(&self.shared.apic).deadline()?;
        let adjust = self.s.msr.tsc_adjust as i64;
        Some(if adjust >= 0 {
            deadline.saturating_sub(adjust as u64)
        } else {
            deadline.saturating_add(adjust.unsigned_abs())
        })
    }

    /// Raises the timer interrupt if it is due; true if it was.
    pub fn poll_timer(&mut self) -> bool {
        let now = self.tsc();
        let mut apic = lock(&self.shared.apic);
        let due = apic.expire(now);
        self.shared.refresh(&apic);
        due
    }

    /// The interrupt to be taken now: the APIC's, else the external controller's.
    pub(crate) fn acknowledge_interrupt(&mut self) -> Option<u8> {
        let mut apic = lock(&self.shared.apic);
        if apic.pending().is_some() {
            let vector = apic.ack();
            self.shared.refresh(&apic);
            return Some(vector);
        }
        let external = apic.extint();
        self.shared.refresh(&apic);
        // Not with the APIC held: the controller's line changes in the call.
        drop(apic);
        external.then(|| self.bus.ext_int_ack())
    }

    /// Carries out what a register write asks of the rest of the machine.
    fn apic_effect(&mut self, effect: Option<Effect>) {
        match effect {
            Some(Effect::Send(ipi)) => {
                let peers: Vec<_> = self.shared.peers().collect();
                shared::send(&peers, ipi.source, ipi.dest, ipi.mode, ipi.vector, false);
                self.stop_block();
            }
            Some(Effect::Eoi(vector)) => self.bus.eoi(self.id, vector),
            Some(Effect::BaseChanged) => self.update_apic(),
            None => {}
        }
    }

    /// RDMSR of an APIC register.
    pub(crate) fn read_apic_msr(&mut self, index: u32) -> Result<u64, Exception> {
        let now = self.tsc();
        let mut apic = lock(&self.shared.apic);
        let value = apic.rdmsr(index, now).map_err(|_| Exception::GP0);
        self.shared.refresh(&apic);
        value
    }

    /// WRMSR of an APIC register.
    pub(crate) fn write_apic_msr(&mut self, index: u32, value: u64) -> Result<(), Exception> {
        let now = self.tsc();
        let mut apic = lock(&self.shared.apic);
        let effect = apic.wrmsr(index, value, now).map_err(|_| Exception::GP0)?;
        self.shared.refresh(&apic);
        drop(apic);
        self.apic_effect(effect);
        Ok(())
    }

    /// CR8.
    pub fn read_cr8(&self) -> u64 {
        u64::from(lock(&self.shared.apic).cr8())
    }

    /// MOV to CR8.
    pub(crate) fn write_cr8(&mut self, value: u64) -> Result<(), Exception> {
        let mut apic = lock(&self.shared.apic);
        apic.set_cr8(value).map_err(|_| Exception::GP0)?;
        self.shared.refresh(&apic);
        Ok(())
    }

    /// Reads device memory, the APIC's page included; naturally aligned, at most 8 bytes.
    pub(crate) fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        if gpa & !0xfff != self.apic_page {
            if gpa >= ABORT_PAGE {
                return data.fill(0xff);
            }
            return self.bus.mmio_read(self.id, gpa, data);
        }
        let now = self.tsc();
        let mut apic = lock(&self.shared.apic);
        // 32-bit registers on 16-byte boundaries; between them all is zero (§10.4.1.2).
        let (register, byte) = (gpa as u32 & 0xff0, (gpa & 15) as usize);
        let value = if byte < 4 { apic.read(register, now) } else { 0 };
        self.shared.refresh(&apic);
        let bytes = u128::from(value).to_le_bytes();
        for (i, to) in data.iter_mut().enumerate() {
            *to = bytes.get(byte + i).copied().unwrap_or(0);
        }
    }

    /// Writes device memory; the APIC takes aligned writes of 32 bits or more.
    pub(crate) fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        if gpa & !0xfff != self.apic_page {
            if gpa >= ABORT_PAGE {
                return;
            }
            return self.bus.mmio_write(self.id, gpa, data);
        }
        let (Some(&low), 0) = (data.first_chunk::<4>(), gpa & 15) else { return };
        let now = self.tsc();
        let mut apic = lock(&self.shared.apic);
        let effect = apic.write(gpa as u32 & 0xff0, u32::from_le_bytes(low), now);
        self.shared.refresh(&apic);
        drop(apic);
        self.apic_effect(effect);
        self.stop_block();
    }
}
