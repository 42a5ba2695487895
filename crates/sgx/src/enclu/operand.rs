//! Operands of leaves that run inside an enclave: memory of that enclave, looked
//! at through its EPCM entry.

use sgx_abi::{PAGE_SIZE, PageType};

use crate::epcm::{Entry, EpcPage, Flags};
use crate::leaf::Leaf;
use crate::port::Access;
use crate::rule::{Rule, Stop};

/// Rows of a leaf's table about an operand; rows the SDM combines are the same.
pub(crate) struct OperandRules {
    pub place: &'static Rule,
    pub in_epc: &'static Rule,
    pub valid: &'static Rule,
    pub unblocked: &'static Rule,
    pub usable: &'static Rule,
}

/// The running enclave, as far as operands need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// CR_ACTIVE_SECS.
    pub secs: EpcPage,
    base: u64,
    size: u64,
}

impl Running {
    /// The enclave that the processor executes.
    pub(crate) fn of(leaf: &Leaf<'_>) -> Result<Running, Stop> {
        let thread = super::INSIDE.some(leaf.port.thread())?;
        Ok(Running { secs: thread.secs(), base: thread.base, size: thread.size })
    }

    /// True if `la` lies in CR_ELRANGE. Operands are aligned to more than their
    /// size, so their last byte is there with the first.
    pub(crate) fn has(&self, la: u64) -> bool {
        la.wrapping_sub(self.base) < self.size
    }

    /// True if a page is a regular one of the enclave in its place, ready for use,
    /// with the permissions `needed`.
    pub(crate) fn may_use(&self, entry: &Entry, la: u64, needed: Flags) -> bool {
        entry.is(PageType::Reg)
            && entry.secs == self.secs
            && !entry.unaccepted()
            && entry.address == page_address(la)
            && entry.flags.contains(needed)
    }
}

/// Address of the page of `la`.
pub(crate) fn page_address(la: u64) -> u64 {
    la & !(PAGE_SIZE as u64 - 1)
}

/// Offset of `la` in its page.
pub(crate) fn page_offset(la: u64) -> usize {
    la as usize % PAGE_SIZE
}

/// An operand at DS:`offset`, which is to be aligned to `align` and which the
/// enclave is to be allowed to read or write: its EPC page and its offset in it.
pub(crate) fn operand(
    leaf: &mut Leaf<'_>,
    running: &Running,
    offset: u64,
    align: u64,
    access: Access,
    rules: &OperandRules,
) -> Result<(EpcPage, usize), Stop> {
    let la = leaf.port.linear(offset, align)?;
    rules.place.check(la.is_multiple_of(align) && running.has(la))?;
    let page = rules.in_epc.some_at(leaf.resolve(la, access)?, la)?;
    let entry = leaf.entry(page);
    rules.valid.check_at(entry.valid(), la)?;
    rules.unblocked.check_at(!entry.blocked(), la)?;
    let needed = if access == Access::Write { Flags::W } else { Flags::R };
    rules.usable.check_at(running.may_use(&entry, la, needed), la)?;
    Ok((page, page_offset(la)))
}
