//! An EPC of which others have all pages.

use enclave_host::driver::Driver;
use enclave_host::{Files, LoadError};
use sgx_abi::{AttributeFlags, Attributes, Secs};

use crate::{load, step};

/// Others than an EPC of 8 MiB has room for: then it is not full for want of pages.
const MOST: usize = 1000;

/// Other enclaves take the EPC, each with what Linux does not swap: its SECS, and a page of
/// versions (VA). What is loaded then is refused; when they are gone it is not.
pub fn full(files: &Files) -> Result<(), String> {
    let mut others = Vec::new();
    let created = loop {
        match Driver::create(&smallest()) {
            Ok(other) if others.len() < MOST => others.push(other),
            Ok(_) => return Err("the EPC does not become full".into()),
            Err(error) => break error,
        }
    };
    println!("after {} others ECREATE: {created}", others.len());
    step("no page for ECREATE", matches!(created, LoadError::EpcFull))?;
    // two pages: enough for ECREATE, none for EADD
    others.pop();
    let added = load(files).err().unwrap_or_default();
    println!("EADD: {added}");
    step("no page for EADD", added == LoadError::EpcFull.to_string())?;
    drop(others);
    step("when the others have gone there are pages", load(files).is_ok())
}

/// An enclave of no pages.
fn smallest() -> Secs {
    Secs {
        size: 0x2000,
        ssaframesize: 1,
        attributes: Attributes { flags: AttributeFlags::MODE64BIT, xfrm: 3 },
        ..Secs::default()
    }
}
