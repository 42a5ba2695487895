//! Why the processor has refused an enclave: of EINIT's answer Linux's driver passes on
//! that there was one.

use sgx_abi::page::EEXTEND_CHUNK;
use sgx_abi::{PAGE_SIZE, Sigstruct, Status};
use sha2::{Digest, Sha256};

use crate::files::Parts;

/// What EINIT must have found, in the order in which it looks (*SDM vol. 3D, EINIT*).
pub(crate) fn of_refusal(parts: &Parts) -> Status {
    let sig = &parts.sigstruct;
    let formed = sig.header == Sigstruct::HEADER
        && sig.header2 == Sigstruct::HEADER2
        && (sig.vendor == 0 || sig.vendor == Sigstruct::VENDOR_INTEL)
        && sig.exponent == Sigstruct::EXPONENT
        && sig.reserved_is_zero();
    if !formed {
        Status::InvalidSigStruct
    } else if measure(parts) != sig.enclavehash {
        // or the signature, which comes first: but then somebody has changed both
        Status::InvalidMeasurement
    } else {
        Status::InvalidSignature
    }
}

/// MRENCLAVE (*SDM vol. 3D, ECREATE, EADD, EEXTEND*).
fn measure(parts: &Parts) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(block(b"ECREATE\0", &[&parts.ssa_frame_pages.to_le_bytes(), &parts.size.to_le_bytes()]));
    for run in &parts.runs {
        for at in (0..run.len).step_by(PAGE_SIZE) {
            let offset = run.offset + at;
            let flags = run.flags.bits().to_le_bytes();
            hash.update(block(b"EADD\0\0\0\0", &[&offset.to_le_bytes(), &flags]));
            for within in (0..PAGE_SIZE as u64).step_by(EEXTEND_CHUNK).filter(|_| run.measured) {
                hash.update(block(b"EEXTEND\0", &[&(offset + within).to_le_bytes()]));
                let from = (at + within) as usize;
                let chunk = run.data.as_ref().map(|data| &data[from..from + EEXTEND_CHUNK]);
                hash.update(chunk.unwrap_or(&[0; EEXTEND_CHUNK]));
            }
        }
    }
    hash.finalize().into()
}

/// A block as a leaf hashes it: its name, then some fields, then zeros.
fn block(name: &[u8; 8], fields: &[&[u8]]) -> [u8; 64] {
    let mut block = [0; 64];
    block[..8].copy_from_slice(name);
    let fields = fields.concat();
    block[8..8 + fields.len()].copy_from_slice(&fields);
    block
}
