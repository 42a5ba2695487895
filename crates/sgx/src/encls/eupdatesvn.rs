//! EUPDATESVN: makes the security version of a runtime update the one that CPUSVN and
//! with it all keys tell of, without a reset (*Runtime Microcode Updates with Intel SGX*;
//! *SDM vol. 3D, EUPDATESVN*; codes and use as in Linux's `arch/x86/kernel/cpu/sgx`).
//!
//! Nothing made under the old version may live on, so the EPC must be empty, and the key
//! of evicted pages is drawn anew even if there is no later version, which
//! SGX_NO_UPDATE with CF tells. A later one is what [`crate::Package::load_update`] got.

use sgx_abi::Status;
use zeroize::Zeroizing;

use crate::leaf::{Done, Leaf, Ran};
use crate::rule::rules;

rules! { EUPDATESVN {
    EPC_CLAIMED: (Status::EpcPageConflict), "no other leaf uses any page of the EPC";
    EPC_READY: (Status::EpcNotReady), "no page of the EPC is in use";
    ENTROPY: (Status::InsufficientEntropy), "there are random bytes for new keys";
    LATER_VERSION: (carry Status::NoUpdate), "a later security version has been loaded";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let package = leaf.package;
    let _epc = EPC_CLAIMED.some(package.claims.claim_all())?;
    EPC_READY.check(package.epcm.valid().next().is_none())?;
    let mut paging_key = Zeroizing::new([0; 16]);
    let mut report_keyid = [0; 32];
    ENTROPY.check(leaf.port.random(&mut paging_key[..]) && leaf.port.random(&mut report_keyid))?;
    LATER_VERSION.check(package.update_svn(&paging_key, &report_keyid))?;
    Ok(Done::Success)
}
