//! Keys that the processor derives for this enclave.

use sgx_abi::{Keyrequest, Status};

pub use enclave_base::leaf::Key;

/// EGETKEY: derives a key (*SDM vol. 3D, EGETKEY*). For data that outlives the enclave,
/// [`crate::sealing`] does all of it.
///
/// # Errors
/// What the processor says against it, e.g. that a version is beyond the enclave's.
///
/// # Panics
/// If reserved fields are set or, without the KSS attribute, fields of KSS: the processor
/// answers with #GP.
pub fn egetkey(request: &Keyrequest) -> Result<Key, Status> {
    let kss = crate::report::own().attributes.flags.contains(sgx_abi::AttributeFlags::KSS);
    let uses_kss = request.keypolicy.intersects(sgx_abi::KeyPolicy::KSS) || request.configsvn != 0;
    assert!(request.reserved_is_zero() && (kss || !uses_kss), "EGETKEY would fault");
    enclave_base::leaf::key(request)
}
