//! RESET, INIT and start-up (*SDM vol. 3A §8.4, §9.1, table 9-1*).

use arch::regs::{Cr0, gpr};

use crate::shared::lock;
use crate::state::State;
use crate::{Activity, Cpu};

impl Cpu {
    /// RESET: as after power-up. The bootstrap processor (number 0) begins at
    /// the reset vector, the others wait for a start-up interrupt.
    ///
    /// The EPC's content is the package's to reset ([`sgx::Package::reset`]),
    /// while no processor executes.
    pub fn reset(&mut self) {
        self.stale_code = self.sgx.is_some();
        self.s = State::reset();
        self.power_up();
        lock(&self.shared.apic).reset();
        self.after_reset();
        self.update_apic();
        self.shared.pending.fetch_and(
            !(crate::shared::request::NMI | crate::shared::request::INIT | crate::shared::request::SIPI),
            std::sync::atomic::Ordering::SeqCst,
        );
    }

    /// What of the state after RESET depends on the model.
    pub(crate) fn power_up(&mut self) {
        self.s.regs.set(gpr::RDX, u64::from(self.model.signature));
        self.s.msr.misc_enable = crate::msr::MISC_ENABLE_RESET;
        self.s.msr.microcode = crate::msr::MICROCODE_REVISION;
    }

    /// INIT (*table 9-1*): x87, vector and model-specific registers, the
    /// caches' mode and the time-stamp counter stay.
    pub(crate) fn init(&mut self) {
        self.exit_for_interrupt(0);
        let fresh = State::reset();
        let old = &self.s;
        let kept = Cr0::CD | Cr0::NW;
        let cr0 = (fresh.cr0 & !kept) | (old.cr0 & kept);
        let s = State {
            cr0,
            xcr0: old.xcr0,
            mxcsr: old.mxcsr,
            x87: old.x87,
            vec: old.vec,
            opmask: old.opmask,
            msr: old.msr.clone(),
            ..fresh
        };
        self.s = s;
        self.s.regs.set(gpr::RDX, u64::from(self.model.signature));
        lock(&self.shared.apic).init();
        self.after_reset();
        self.update_apic();
    }

    /// To be called after [`Cpu::s`] was changed from outside (to enter a
    /// kernel directly, to restore a snapshot): what follows from it is made anew.
    pub fn state_changed(&mut self) {
        self.flush_all();
        self.update_rights();
        self.control_changed();
        self.update_apic();
    }

    fn after_reset(&mut self) {
        self.activity = if self.id == 0 { Activity::Active } else { Activity::WaitForSipi };
        self.shadow = false;
        self.nmi_blocked = false;
        self.pending_db = 0;
        self.monitor = None;
        self.flush_all();
        self.update_rights();
        self.control_changed();
        self.stop_block();
    }

    /// A start-up interrupt: real mode at `vector << 12`. Ignored unless the
    /// processor waits for it.
    pub(crate) fn start_up(&mut self, vector: u8) {
        if self.activity != Activity::WaitForSipi {
            return;
        }
        let code = &mut self.s.seg[1];
        code.selector = u16::from(vector) << 8;
        code.base = u64::from(vector) << 12;
        self.s.rip = 0;
        self.activity = Activity::Active;
    }
}
