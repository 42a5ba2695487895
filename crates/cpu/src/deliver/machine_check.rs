//! Machine checks (*SDM vol. 3B, "Machine-Check Architecture"*). There is one
//! source: the memory of the EPC did not verify. The one bank is the memory
//! controller's, seen at processor 0; the exception goes to all processors.
//!
//! The report is that of a patrol scrubber (an uncorrected error that nobody has
//! consumed, *"Software Recoverable Action Optional"*): enclaves are gone, and
//! everything else goes on.

use arch::regs::Cr4;
use arch::{Exception, Vector};

use crate::{Activity, Cpu};

/// IA32_MCG_CAP: one bank; MCG_SER_P, recoverable errors are told apart.
pub(crate) const CAPABILITIES: u64 = 1 | 1 << 24;

/// IA32_MCG_STATUS: the interrupted program can go on; a machine check is in progress.
const RIPV: u64 = 1 << 0;
const MCIP: u64 = 1 << 2;

/// IA32_MC0_STATUS: valid, uncorrected, enabled, signalled; and with an address.
const SIGNALLED: u64 = 1 << 63 | 1 << 61 | 1 << 60 | 1 << 56;
const ADDRESSED: u64 = 1 << 59 | 1 << 58;
/// Compound code of a memory controller: scrubbing, channel not known.
const SCRUB: u64 = 0x00cf;
/// IA32_MC0_MISC: a physical address, good to the page.
const PAGE_ADDRESS: u64 = 2 << 6 | 12;

impl Cpu {
    /// The memory of the EPC did not verify; true if that was raised. Without
    /// CR4.MCE it is not: unlike silicon, the machine keeps running then too.
    pub(crate) fn machine_check(&mut self) -> bool {
        let waits = matches!(self.activity, Activity::WaitForSipi | Activity::Shutdown);
        if waits || !self.s.cr4.contains(Cr4::MCE) {
            return false;
        }
        if self.s.msr.mcg_status & MCIP != 0 {
            self.activity = Activity::Shutdown;
            return true;
        }
        self.s.msr.mcg_status = RIPV | MCIP;
        if self.id == 0 {
            self.log_epc_error();
        }
        self.activity = Activity::Active;
        self.raise(Exception::new(Vector::MachineCheck, 0));
        true
    }

    fn log_epc_error(&mut self) {
        let Some(sgx) = &self.sgx else { return };
        let [_, status, address, misc] = &mut self.s.msr.mc0;
        *status = SIGNALLED | SCRUB;
        if let Some(mee::Loss::Page { page }) = sgx.package.dram.loss() {
            *status |= ADDRESSED;
            *address = sgx.package.physical(sgx::EpcPage(page));
            *misc = PAGE_ADDRESS;
        }
    }
}
