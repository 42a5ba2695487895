//! EEXTEND: measures 256 bytes of a page of an enclave that is being built
//! (*SDM vol. 3D, EEXTEND*). Shadow-stack pages do not occur: no model has CET.

use sgx_abi::page::EEXTEND_CHUNK;
use sgx_abi::{AttributeFlags, PAGE_SIZE, PageType, Secs};

use crate::claim::{Lane, Mode};
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::rules;

rules! { EEXTEND {
    SECS_ALIGNED: Gp, "RBX is the address of a page";
    SECS_IN_EPC: Pf, "RBX leads to the EPC";
    CHUNK_ALIGNED: Gp, "RCX is aligned to 256 bytes";
    CHUNK_IN_EPC: Pf, "RCX leads to the EPC";
    PAGE_CLAIMED: Gp, "no other leaf changes the page's entry";
    PAGE_VALID: Pf, "the page is in use";
    PAGE_TYPE: Pf, "the page is a regular one or a TCS";
    SECS_MATCHES: Gp, "RBX is the SECS of the page's enclave";
    MEASUREMENT_CLAIMED: Gp, "no other leaf updates the measurement or initializes the enclave";
    UNINITIALIZED: Gp, "the enclave is not initialized";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let secs_la = leaf.port.linear(leaf.rbx(), PAGE_SIZE as u64)?;
    SECS_ALIGNED.check(secs_la.is_multiple_of(PAGE_SIZE as u64))?;
    let owner = SECS_IN_EPC.some_at(leaf.resolve(secs_la, Access::Read)?, secs_la)?;
    let la = leaf.port.linear(leaf.rcx(), EEXTEND_CHUNK as u64)?;
    CHUNK_ALIGNED.check(la.is_multiple_of(EEXTEND_CHUNK as u64))?;
    let page = CHUNK_IN_EPC.some_at(leaf.resolve(la, Access::Read)?, la)?;

    let package = leaf.package;
    let _page = PAGE_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    let entry = leaf.entry(page);
    PAGE_VALID.check_at(entry.valid(), la)?;
    PAGE_TYPE.check_at(matches!(entry.page_type, PageType::Reg | PageType::Tcs), la)?;
    SECS_MATCHES.check(entry.secs == owner)?;
    let _measure = MEASUREMENT_CLAIMED.some(package.claims.claim(owner, Lane::Build, Mode::Exclusive))?;
    let mut secs: Secs = package.read(owner, 0)?;
    UNINITIALIZED.check(!secs.attributes.flags.contains(AttributeFlags::INIT))?;

    let within = la as usize % PAGE_SIZE;
    let chunk: [u8; EEXTEND_CHUNK] = package.read(page, within)?;
    let offset = entry.address.wrapping_sub(secs.baseaddr).wrapping_add(within as u64);
    let mut measurement = Measurement::load(&secs.private);
    measurement.eextend(offset, &chunk);
    measurement.store(&mut secs.private);
    package.write(owner, 0, &secs)?;
    Ok(Done::Quiet)
}
