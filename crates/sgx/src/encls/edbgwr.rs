//! EDBGWR: writes to a debug enclave (*SDM vol. 3D, EDBGWR*).

use arch::regs::gpr;
use sgx_abi::{PageType, Status, Tcs};

use super::edbgrd::{Common, word};
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EDBGWR {
    WORD_ALIGNED: Gp, "DS:RCX is aligned to the size of the access";
    WORD_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    PAGE_VALID: Pf, "the EPC page is in use";
    PAGE_TYPE: Pf, "the page is PT_REG, PT_TCS or PT_TRIM";
    DEBUGGABLE: (Status::PageNotDebuggable), "the page is neither PENDING nor MODIFIED";
    DEBUG: Gp, "the enclave is a debug enclave";
    TCS_FLAGS_ONLY: Gp, "of a TCS only the word of FLAGS is written";
}}

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
    let la = leaf.rcx();
    let word = word(leaf, &rules, Access::Write)?;
    PAGE_TYPE.check_at(word.page_type != PageType::Va, la)?;
    let flags = word.page_type != PageType::Tcs || word.offset as u64 & !7 == Tcs::FLAGS_OFFSET;
    TCS_FLAGS_ONLY.check(flags)?;
    let value = leaf.port.gpr(gpr::RBX).to_le_bytes();
    leaf.package.dram.write(word.page.0, word.offset, &value[..word.size])?;
    Ok(Done::Success)
}
