//! EDBGRD: reads from a debug enclave (*SDM vol. 3D, EDBGRD*).

use arch::regs::gpr;
use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secs, Status};

use crate::claim::{Claim, Lane, Mode};
use crate::epcm::EpcPage;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::{Rule, Stop, rules};

rules! { EDBGRD {
    WORD_ALIGNED: Gp, "DS:RCX is aligned to the size of the access";
    WORD_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    PAGE_VALID: Pf, "the EPC page is in use";
    PAGE_TYPE: Pf, "the page is PT_REG, PT_TCS, PT_TRIM or PT_VA";
    DEBUGGABLE: (Status::PageNotDebuggable), "the page is neither PENDING nor MODIFIED";
    DEBUG: Gp, "the enclave is a debug enclave";
}}

/// The rules that EDBGRD and EDBGWR share.
pub(super) struct Common {
    pub(super) aligned: &'static Rule,
    pub(super) in_epc: &'static Rule,
    pub(super) no_conflict: &'static Rule,
    pub(super) valid: &'static Rule,
    pub(super) page_type: &'static Rule,
    pub(super) debuggable: &'static Rule,
    pub(super) debug: &'static Rule,
}

/// A word of a debug enclave's page, claimed.
pub(super) struct Word<'a> {
    pub(super) page: EpcPage,
    pub(super) page_type: PageType,
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) _claim: Claim<'a>,
}

/// Finds the word at DS:RCX.
pub(super) fn word<'a>(leaf: &mut Leaf<'a>, rules: &Common, access: Access) -> Result<Word<'a>, Stop> {
    let size = if leaf.port.control().long64 { 8 } else { 4 };
    let rcx = leaf.rcx();
    rules.aligned.check(rcx.is_multiple_of(size))?;
    let la = leaf.port.linear(rcx, size)?;
    let page = leaf.resolve(la, access)?;
    let page = rules.in_epc.some_at(page, la)?;
    let claim = leaf.package.claims.claim(page, Lane::Base, Mode::Shared);
    let claim = rules.no_conflict.some(claim)?;
    let entry = leaf.entry(page);
    rules.valid.check_at(entry.valid(), la)?;
    rules.page_type.check_at(entry.page_type != PageType::Secs, la)?;
    if entry.page_type != PageType::Va {
        rules.debuggable.check(!entry.unaccepted())?;
        let secs: Secs = leaf.package.read(entry.secs, 0)?;
        rules.debug.check(secs.attributes.flags.contains(AttributeFlags::DEBUG))?;
    }
    let offset = (la % PAGE_SIZE as u64) as usize;
    Ok(Word { page, page_type: entry.page_type, offset, size: size as usize, _claim: claim })
}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let rules = Common {
        aligned: &WORD_ALIGNED,
        in_epc: &WORD_IN_EPC,
        no_conflict: &NO_CONFLICT,
        valid: &PAGE_VALID,
        page_type: &PAGE_TYPE,
        debuggable: &DEBUGGABLE,
        debug: &DEBUG,
    };
    let word = word(leaf, &rules, Access::Read)?;
    // A version array keeps its versions: software sees which slots are in use.
    let mut bytes = [0; 8];
    leaf.package.dram.read(word.page.0, word.offset, &mut bytes[..word.size])?;
    let mut value = u64::from_le_bytes(bytes);
    if word.page_type == PageType::Va {
        value = if value == 0 { 0 } else { u64::MAX >> (64 - 8 * word.size) };
    }
    leaf.port.set_gpr(gpr::RBX, value);
    Ok(Done::Success)
}
