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

/// A check, unless it is left out on purpose: see [`crate::planted!`].
#[inline(always)]
fn unless(left_out: bool, holds: bool) -> bool {
    left_out || holds
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
    let abort = page.is_some() && !crate::planted!(AbortPage);
    let outside = if abort { Verdict::AbortPage } else { Verdict::Allow(Flags::RWX) };
    let Some(thread) = thread else { return outside };
    if !thread.in_elrange(la) {
        return if access == Access::Fetch && !crate::planted!(FetchOutside) {
            Verdict::GeneralProtection
        } else {
            outside
        };
    }
    let Some(page) = page else {
        return if crate::planted!(RamInElrange) { Verdict::Allow(Flags::RWX) } else { Verdict::PageFault };
    };
    let entry = package.epcm.get(page);
    let needed = match access {
        Access::Read => Flags::R,
        Access::Write => Flags::W,
        Access::Fetch => Flags::X,
    };
    // These have no permissions anyway: with the check goes what else keeps them safe.
    let retyped = entry.flags.contains(Flags::MODIFIED) && crate::planted!(Modified);
    let tcs = entry.is(PageType::Tcs) && crate::planted!(Type);
    let kind = entry.is(PageType::Reg) || retyped || tcs;
    let ready = unless(crate::planted!(Blocked), !entry.blocked())
        && unless(crate::planted!(Pending), !entry.flags.contains(Flags::PENDING))
        && unless(retyped, !entry.flags.contains(Flags::MODIFIED));
    let own = unless(crate::planted!(Owner), entry.secs == thread.secs())
        && unless(crate::planted!(Address), entry.address == la & !0xfff);
    let mut allowed = entry.flags & Flags::RWX;
    allowed.set(Flags::R, allowed.contains(Flags::R) || retyped || tcs || crate::planted!(Read));
    allowed.set(Flags::W, allowed.contains(Flags::W) || crate::planted!(Write));
    allowed.set(Flags::X, allowed.contains(Flags::X) || crate::planted!(Execute));
    if kind && ready && own && allowed.contains(needed) {
        Verdict::Allow(allowed)
    } else {
        Verdict::PageFault
    }
}
