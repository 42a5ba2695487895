//! EEXTEND: measures 256 bytes of a page of an enclave that is being built
//! (*SDM vol. 3D, EEXTEND*).

use sgx_abi::page::EEXTEND_CHUNK;
use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secs};

use crate::claim::{Lane, Mode};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::rules;

rules! { EEXTEND {
    SECS_ALIGNED: Gp, "DS:RBX is aligned to 4096 bytes";
    SECS_IN_EPC: Pf, "DS:RBX leads to the EPC";
    CHUNK_ALIGNED: Gp, "DS:RCX is aligned to 256 bytes";
    CHUNK_IN_EPC: Pf, "DS:RCX leads to the EPC";
    NO_CONFLICT: Gp, "no other leaf uses the EPC page";
    PAGE_VALID: Pf, "the EPC page is in use";
    PAGE_TYPE: Pf, "the page is PT_REG or PT_TCS";
    SECS_NO_CONFLICT: Gp, "no other leaf that excludes EEXTEND uses the SECS";
    SECS_MATCHES: Gp, "DS:RBX is the SECS of the page's enclave";
    SECS_VALID: Pf, "the SECS is valid";
    NOT_INITIALIZED: Gp, "the enclave is not initialised";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx) = (leaf.rbx(), leaf.rcx());
    SECS_ALIGNED.check(rbx % PAGE_SIZE as u64 == 0)?;
    let secs_la = leaf.port.linear(rbx, PAGE_SIZE as u64)?;
    let secs_page = leaf.resolve(secs_la, Access::Read)?;
    let secs_page = SECS_IN_EPC.some_at(secs_page, secs_la)?;
    CHUNK_ALIGNED.check(rcx % EEXTEND_CHUNK as u64 == 0)?;
    let la = leaf.port.linear(rcx, EEXTEND_CHUNK as u64)?;
    let page = leaf.resolve(la, Access::Read)?;
    let page = CHUNK_IN_EPC.some_at(page, la)?;

    let claims = &leaf.package.claims;
    let _page = NO_CONFLICT.some(claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    PAGE_TYPE.check_at(matches!(entry.page_type, PageType::Reg | PageType::Tcs), la)?;
    let _secs = SECS_NO_CONFLICT.some(claims.claim(secs_page, Lane::Build, Mode::Exclusive))?;
    SECS_MATCHES.check(entry.secs == secs_page)?;
    SECS_VALID.check_at(leaf.entry(secs_page).is(PageType::Secs), secs_la)?;
    let mut secs: Secs = leaf.package.read(secs_page, 0)?;
    NOT_INITIALIZED.check(!secs.attributes.flags.contains(AttributeFlags::INIT))?;

    let within = (rcx % PAGE_SIZE as u64) as usize;
    let chunk: [u8; EEXTEND_CHUNK] = leaf.package.read(page, within)?;
    let mut measurement = Measurement::load(&secs.private);
    measurement.eextend(entry.address - secs.baseaddr + within as u64, &chunk);
    measurement.store(&mut secs.private);
    leaf.package.write(secs_page, 0, &secs)?;
    Ok(Done::Quiet)
}
