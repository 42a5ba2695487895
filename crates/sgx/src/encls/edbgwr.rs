//! EDBGWR: writes RBX to a word of a debug enclave's page, whatever the page's
//! permissions (*SDM vol. 3D, EDBGWR*): 8 bytes in 64-bit mode, else 4. Of a TCS only
//! FLAGS can be written: that is how a debugger opts a thread in. EENTER looks at what
//! it wrote there.

use sgx_abi::{PAGE_SIZE, PageType, Status, Tcs};

use super::edbgrd::{is_debug, word_size};
use crate::claim::{Lane, Mode};
use crate::epcm::EpcPage;
use crate::leaf::{Done, Leaf, Ran};
use crate::package::Package;
use crate::port::Access;
use crate::rule::{Stop, rules};

rules! { EDBGWR {
    ALIGNED: Gp, "RCX is aligned to 8 bytes in 64-bit mode, else to 4";
    PAGE_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf changes the page's entry";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_TYPE: Pf, "the page is a regular one or a TCS";
    DEBUGGABLE: (Status::PageNotDebuggable), "the page is neither PENDING nor MODIFIED";
    IN_TCS_FLAGS: Gp, "in a TCS, the word is in FLAGS";
    DEBUG_ENCLAVE: Gp, "the page's enclave is a debug enclave";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let size = word_size(leaf);
    let la = leaf.port.linear(leaf.rcx(), size as u64)?;
    ALIGNED.check(la.is_multiple_of(size as u64))?;
    let page = PAGE_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let value = leaf.rbx().to_le_bytes();
    write(leaf.package, page, la, &value[..size])?;
    Ok(Done::Success)
}

/// Writes an aligned word, of 8 bytes or 4, at linear address `la`, which leads to `page`.
pub(crate) fn write(package: &Package, page: EpcPage, la: u64, word: &[u8]) -> Result<(), Stop> {
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = package.epcm.get(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    PAGE_TYPE.check_at(matches!(entry.page_type, PageType::Reg | PageType::Tcs), la)?;
    DEBUGGABLE.check(!entry.unaccepted())?;
    let offset = la as usize % PAGE_SIZE;
    let in_flags = offset as u64 & !7 == Tcs::FLAGS_OFFSET;
    IN_TCS_FLAGS.check(entry.page_type != PageType::Tcs || in_flags)?;
    DEBUG_ENCLAVE.check(is_debug(package, entry.secs)?)?;
    package.dram.write(page.0, offset, word)?;
    Ok(())
}
