//! Access control of the EPC (*SDM vol. 3D, "Access-control Requirements"*): what
//! an access leads to that paging has allowed. Asked where a translation is
//! formed; the TLB then repeats the answer until the enclave is left.

use sgx_abi::PageType;

use crate::epcm::{EpcPage, Flags};
use crate::package::Package;
use crate::port::Access;
use crate::thread::Thread;

/// What becomes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on; the rights that a translation of the page may have.
    Allow(Flags),
    /// Abort page: reads give ones, writes are dropped.
    AbortPage,
    /// `#PF` with the SGX bit.
    PageFault,
    /// `#GP(0)`: an enclave fetches instructions outside its range.
    GeneralProtection,
}

/// Judges an access to linear address `la`, which paging leads to EPC page
/// `page`, or elsewhere; `thread` is the processor's, in enclave mode.
pub fn check(
    package: &Package,
    thread: Option<&Thread>,
    la: u64,
    page: Option<EpcPage>,
    access: Access,
) -> Verdict {
    let outside = if page.is_some() { Verdict::AbortPage } else { Verdict::Allow(Flags::RWX) };
    let Some(thread) = thread else { return outside };
    if !thread.in_elrange(la) {
        return if access == Access::Fetch { Verdict::GeneralProtection } else { outside };
    }
    let Some(page) = page else { return Verdict::PageFault };
    let entry = package.epcm.get(page);
    let needed = match access {
        Access::Read => Flags::R,
        Access::Write => Flags::W,
        Access::Fetch => Flags::X,
    };
    let usable = entry.is(PageType::Reg) && !entry.blocked() && !entry.unaccepted();
    let own = entry.secs == thread.secs() && entry.address == la & !0xfff;
    if usable && own && entry.flags.contains(needed) {
        Verdict::Allow(entry.flags & Flags::RWX)
    } else {
        Verdict::PageFault
    }
}
