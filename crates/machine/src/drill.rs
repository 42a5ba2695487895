//! Drills for operators: what an attacker with the memory bus in hands does to
//! the EPC, and what a bus master sees of the machine.

use std::time::{Duration, Instant};

use cpu::shared::request;
use mee::{Drill, TamperError, TamperReport};
use sgx::EpcPage;
use sgx_abi::PageType;

use crate::running::Running;

/// How long processors may take to let go of a page.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of one look at the bus.
pub const MAX_BUS_BYTES: usize = 1 << 20;

/// Why a drill was not done.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Nothing to attack.
    #[error("no enclave has a page in the EPC now: start one first, or name a page")]
    NoEnclave,
    /// As the store says.
    #[error(transparent)]
    Tamper(#[from] TamperError),
}

impl Running {
    /// Attacks an EPC page in DRAM: `page`, or the first regular page of an enclave.
    /// Where processors hold its plaintext, they are made to let go of it first.
    ///
    /// # Errors
    /// [`DrillError`]; nothing was changed then.
    pub fn tamper(&self, drill: Drill, page: Option<u32>) -> Result<TamperReport, DrillError> {
        let package = self.sgx();
        let regular = || package.epcm.valid().find(|(_, entry)| entry.page_type == PageType::Reg);
        let EpcPage(page) =
            page.map(EpcPage).or_else(|| regular().map(|(page, _)| page)).ok_or(DrillError::NoEnclave)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match package.dram.tamper(drill, page) {
                Err(TamperError::InUse { .. }) if Instant::now() < deadline => {
                    self.request_all(request::EPC);
                    std::thread::sleep(Duration::from_millis(1));
                }
                done => {
                    package.dram.spare();
                    return Ok(done?);
                }
            }
        }
    }

    /// Loses the EPC's content, as a power transition (S3, hibernation) does.
    pub fn lose_epc(&self) {
        self.sgx().dram.lose();
    }

    /// What a bus master reads at `address`, up to [`MAX_BUS_BYTES`] bytes: RAM's
    /// bytes, ones in the EPC, and ones where there is no memory.
    pub fn bus_read(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len.min(MAX_BUS_BYTES)];
        self.memory().read_or_ones(address, &mut bytes);
        bytes
    }
}
