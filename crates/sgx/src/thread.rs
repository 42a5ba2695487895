//! A logical processor in enclave mode: the CR_* registers of *SDM vol. 3D,
//! "Internal CREGs"*.

use std::sync::Arc;

use crate::enclave::Enclave;
use crate::epcm::EpcPage;
use crate::port::Segment;

/// State of a logical processor while it executes an enclave. Lives with the
/// processor's registers.
#[derive(Clone, Debug)]
pub struct Thread {
    /// CR_ACTIVE_SECS, with the enclave's bookkeeping.
    pub enclave: Arc<Enclave>,
    /// CR_ELRANGE: first linear address.
    pub base: u64,
    /// CR_ELRANGE: size, a power of two.
    pub size: u64,
    /// SECS.ATTRIBUTES.FLAGS.
    pub attributes: u64,
    /// SECS.ATTRIBUTES.XFRM.
    pub xfrm: u64,
    /// SECS.MISCSELECT.
    pub miscselect: u32,
    /// SECS.SSAFRAMESIZE, in pages.
    pub ssa_frame_size: u32,
    /// CR_TCS_PA.
    pub tcs: EpcPage,
    /// CR_TCS_LA.
    pub tcs_address: u64,
    /// TCS.FLAGS at entry.
    pub tcs_flags: u64,
    /// The pages of the current SSA frame that an exit writes: those of the XSAVE area in
    /// order (CR_XSAVE_PAGE_n), then the one with EXINFO and GPRSGX (CR_GPR_PA), all present.
    pub ssa: Vec<Option<EpcPage>>,
    /// Linear address of the current SSA frame.
    pub ssa_address: u64,
    /// The asynchronous exit pointer of this entry.
    pub aep: u64,
    /// Tracking epoch of the entry.
    pub epoch: u64,
    /// RSP and RBP of the host: the frame's URSP and URBP, should the frame be lost.
    pub outside_stack: [u64; 2],
    /// CR_SAVE_FS, CR_SAVE_GS.
    pub saved_fs_gs: [Segment; 2],
    /// CR_SAVE_XCR0, if CR4.OSXSAVE was set.
    pub saved_xcr0: Option<u64>,
    /// CR_SAVE_TF, on opt-out entry.
    pub saved_tf: bool,
    /// CR_DBGOPTIN: the entry opted in to debugging.
    pub debug_opt_in: bool,
}

impl Thread {
    /// True if `la` lies in ELRANGE.
    pub fn in_elrange(&self, la: u64) -> bool {
        la.wrapping_sub(self.base) < self.size
    }
    /// The enclave's SECS.
    pub fn secs(&self) -> EpcPage {
        self.enclave.secs
    }
}
