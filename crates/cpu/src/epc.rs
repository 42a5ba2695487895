//! The EPC as a logical processor reaches it: where it lies, what an access
//! leads to, and the processor's part in giving plaintext slots back.
//!
//! # Access
//!
//! Every translation is formed in `mmu/fill.rs`, which asks here after paging
//! has allowed the access. Enclave mode has translations of its own: a fresh
//! context at each entry, so that entering flushes, as on silicon, and nothing
//! outside an enclave ever has a host address of EPC memory. What the EPC's
//! access control turns away without a fault goes to the *abort page*, a
//! physical address that no memory has.
//!
//! # Eviction
//!
//! [`mee::Dram`] keeps plaintext in a bounded number of slots, and takes a slot
//! back only when no processor has its address. Nothing waits:
//!
//! 1. A fill that leaves few slots, or finds none, raises [`request::EPC`] on
//!    this processor; in the latter case the instruction ends without effect
//!    and is executed again.
//! 2. At the next instruction boundary it begins a batch and raises the request
//!    on everyone.
//! 3. Each processor, at its own next boundary, reads the epoch, drops the
//!    leaving translations of its enclave context, acknowledges, and tries to
//!    finish; the last to come frees the slots.
//!
//! A processor that executes nothing ([`crate::Shared`] is idle) need not answer:
//! before it executes again it looks whether an eviction has begun since its
//! last answer, and if so takes a fresh enclave context, which has no EPC
//! translation. Fences on both sides make sure that either it sees the new epoch
//! or whoever finishes sees that it is not idle. Outside enclave mode there is none to drop in the first place:
//! contexts of enclaves that were left are never selected again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arch::Exception;
use arch::paging::{PAGE_MASK, pf};
use sgx::access::Verdict;
use sgx::epcm::Flags;
use sgx::{EpcPage, Package};

use crate::Cpu;
use crate::mmu::walk::{Access, Rights};
use crate::shared::request;

/// Physical address of the page that stands for every access the EPC's access
/// control turns away: reads give ones, writes are dropped. Above every real
/// address, so nothing else is ever there.
pub(crate) const ABORT_PAGE: u64 = 1 << 52;

/// The processor's SGX part.
#[derive(Clone)]
pub struct Sgx {
    /// What all processors of the machine share.
    pub package: Arc<Package>,
    /// Physical address of the EPC's first page.
    pub first: u64,
    /// Bytes of the EPC.
    pub bytes: u64,
}

impl Sgx {
    /// The EPC page at a physical address.
    #[inline]
    pub fn page(&self, gpa: u64) -> Option<EpcPage> {
        let offset = gpa.wrapping_sub(self.first);
        (offset < self.bytes).then_some(EpcPage((offset >> 12) as u32))
    }

    /// Physical address of an EPC page.
    pub fn gpa(&self, page: EpcPage) -> u64 {
        self.first + (u64::from(page.0) << 12)
    }
}

/// What lies behind a translation that paging allows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// RAM or a device, as without SGX.
    Outside,
    /// An EPC page that the enclave may access, and how.
    Epc(EpcPage, Flags),
    /// [`ABORT_PAGE`].
    Abort,
}

/// The kind of access as the SGX crate names it.
fn kind(access: Access) -> sgx::port::Access {
    match access {
        Access::Read => sgx::port::Access::Read,
        Access::Write => sgx::port::Access::Write,
        Access::Fetch => sgx::port::Access::Fetch,
    }
}

impl Cpu {
    /// Gives the processor SGX: `package` is the machine's, with its EPC at
    /// physical address `first`. Before the processor runs.
    ///
    /// # Panics
    /// If the code map of [`Cpu::ram`] does not reach the EPC's end
    /// ([`mem::Ram::with_top`]), or `first` is not aligned to a page.
    pub fn set_sgx(&mut self, package: Arc<Package>, first: u64) {
        let bytes = package.epc_bytes();
        assert!(first & !PAGE_MASK == 0, "the EPC begins at a page");
        assert!(self.ram.code().covers(first + bytes - 1), "the code map reaches the EPC's end");
        package.set_epc_base(first);
        let (shared, weak) = (self.shared.clone(), Arc::downgrade(&package));
        package.dram.on_loss(move |loss| {
            let Some(package) = weak.upgrade() else { return };
            package.lose();
            shared.request(request::EPC);
            if loss != mee::Loss::Power {
                shared.request(request::MACHINE_CHECK);
            }
        });
        self.sgx = Some(Sgx { package, first, bytes });
    }

    /// The EPC page at a physical address, if the processor has SGX.
    #[inline]
    pub(crate) fn epc_page(&self, gpa: u64) -> Option<EpcPage> {
        self.sgx.as_ref()?.page(gpa)
    }

    /// What an access leads to that paging allows, by the EPC's access control
    /// (*SDM vol. 3D, "Access Control Requirements"*).
    #[inline]
    pub(crate) fn target(
        &mut self,
        la: u64,
        gpa: u64,
        access: Access,
        rights: Rights,
    ) -> Result<Target, Exception> {
        match &self.sgx {
            None => Ok(Target::Outside),
            Some(sgx) => match sgx.page(gpa) {
                None if self.s.enclave.is_none() => Ok(Target::Outside),
                page => self.checked_target(la, page, access, rights),
            },
        }
    }

    fn checked_target(
        &mut self,
        la: u64,
        page: Option<EpcPage>,
        access: Access,
        rights: Rights,
    ) -> Result<Target, Exception> {
        let Some(sgx) = &self.sgx else { return Ok(Target::Outside) };
        let verdict = sgx::access::check(&sgx.package, self.s.enclave.as_deref(), la, page, kind(access));
        match (verdict, page) {
            (Verdict::Allow(allowed), Some(page)) => Ok(Target::Epc(page, allowed)),
            (Verdict::Allow(_), None) => Ok(Target::Outside),
            (Verdict::AbortPage, _) => Ok(Target::Abort),
            (Verdict::PageFault, _) => {
                sgx.package.trace.epcm_fault();
                Err(self.sgx_page_fault(la, access, rights))
            }
            (Verdict::GeneralProtection, _) => Err(Exception::GP0),
        }
    }

    /// A page fault that paging does not give but SGX: with the SGX bit.
    pub(crate) fn sgx_page_fault(&mut self, la: u64, access: Access, rights: Rights) -> Exception {
        self.page_fault_for(la, access, rights, pf::P | pf::SGX)
    }

    /// Host address of an EPC page's plaintext.
    pub(crate) fn plaintext(
        &mut self,
        page: EpcPage,
        la: u64,
        access: Access,
        rights: Rights,
    ) -> Result<*mut u8, Exception> {
        let Some(sgx) = &self.sgx else { return Err(Exception::GP0) };
        match sgx.package.dram.fill(page.0, self.id) {
            Ok(Some(host)) => {
                if sgx.package.dram.want_evict() {
                    self.shared.request(request::EPC);
                }
                Ok(host)
            }
            Ok(None) => {
                self.shared.request(request::EPC);
                self.retry = true;
                Err(Exception::UD)
            }
            Err(mee::Lost) => {
                sgx.package.lose();
                Err(self.sgx_page_fault(la, access, rights))
            }
        }
    }

    /// True if breakpoints at `la` are suppressed: in ELRANGE, after an entry
    /// that did not opt in to debugging (*SDM vol. 3D, "Breakpoint Suppression"*).
    #[inline]
    pub(crate) fn hides_breakpoint(&self, la: u64) -> bool {
        let hides = |thread: &sgx::Thread| !thread.debug_opt_in && thread.in_elrange(la);
        self.s.enclave.as_deref().is_some_and(hides) && !sgx::planted!(Breakpoints)
    }

    /// True once after an instruction that gave an exception only to be
    /// executed again: the exception is not to be raised.
    pub(crate) fn take_retry(&mut self) -> bool {
        let retry = std::mem::take(&mut self.retry);
        if retry {
            // Others may have to come to a boundary first.
            std::thread::yield_now();
        }
        retry
    }

    /// Forgets the translations of enclave mode, if the processor is in it.
    pub(crate) fn forget_enclave_translations(&mut self) {
        if self.s.enclave.is_some() && !sgx::planted!(EntryFlush) {
            self.tlb.select_enclave();
        }
    }

    /// Before executing after having been idle: others did not wait for this
    /// processor's answers.
    pub(crate) fn wake_epc(&mut self) {
        let (Some(sgx), true) = (&self.sgx, self.s.enclave.is_some()) else { return };
        let package = sgx.package.clone();
        if package.dram.epoch() != self.shared.epc_seen.load(Ordering::SeqCst) {
            // Slots that left may be in use for other pages already.
            self.forget_enclave_translations();
            self.acknowledge_epc(&package);
        }
    }

    /// Attends to [`request::EPC`], at an instruction boundary.
    pub(crate) fn attend_epc(&mut self) {
        let Some(sgx) = &self.sgx else { return };
        let package = sgx.package.clone();
        if package.is_lost() {
            // The slots are wiped; the next access shall find no EPCM entry.
            self.forget_enclave_translations();
        }
        self.acknowledge_epc(&package);
        let shared = self.shared.clone();
        if package.dram.want_evict() && package.dram.begin_evict().is_some() {
            shared.others().for_each(|peer| peer.request(request::EPC));
            self.acknowledge_epc(&package);
        }
        let quiet = |epoch| shared.peers().all(|peer| peer.epc_quiet(epoch));
        if package.dram.finish_evict(quiet).is_err() {
            package.lose();
        }
    }

    fn acknowledge_epc(&mut self, package: &Package) {
        let epoch = package.dram.epoch();
        if self.s.enclave.is_some() {
            self.tlb.drop_hosts(|host| package.dram.is_leaving(host));
        }
        package.dram.acknowledge(self.id, epoch);
        self.shared.epc_seen.fetch_max(epoch, Ordering::SeqCst);
    }

    /// An EPC page's content changed other than by this processor's stores:
    /// code decoded from it is void.
    pub(crate) fn epc_written(&self, page: EpcPage) {
        if let Some(sgx) = &self.sgx {
            self.ram.code().written(sgx.gpa(page), arch::paging::PAGE_SIZE);
        }
    }

    /// Clears what an enclave may have left in the host's registers and in this
    /// processor's working memory.
    pub(crate) fn scrub(&mut self) {
        self.thunks.scratch.0 = [0; 64];
        mem::secret::scrub_registers();
    }
}

#[cfg(test)]
mod tests;
