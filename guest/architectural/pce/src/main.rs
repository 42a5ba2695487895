//! The provisioning-certification enclave (PCE). The PCK key is derived each time it is
//! needed, from the processor's provisioning key: it is nowhere kept.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use architectural_interface::{Certification, Refusal};
use enclave::key::egetkey;
use enclave::report;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use provisioning::QE_PRODUCT;
use sgx_abi::{MiscSelect, Report, ReportBody};
use zerocopy::{FromBytes, IntoBytes};

struct Pce;

static PCE: Pce = Pce;
enclave::serve!(Certification, PCE);

impl Certification for Pce {
    fn target_info(&self) -> Vec<u8> {
        report::targetinfo().as_bytes().to_vec()
    }

    fn pck_key(&self) -> Vec<u8> {
        let point = pck().verifying_key().to_encoded_point(false);
        // without the byte that says that it is not compressed
        point.as_bytes()[1..].to_vec()
    }

    fn certify(&self, report: &[u8]) -> Result<Vec<u8>, Refusal> {
        let report = Report::read_from_bytes(report).map_err(|_| Refusal::NoReport)?;
        let body = report::verify_report(&report).map_err(|_| Refusal::Report)?;
        if !is_quoting_enclave(body, &report::own()) {
            return Err(Refusal::NotQuotingEnclave);
        }
        let signature: Signature = pck().sign(body.as_bytes());
        Ok(signature.to_bytes().to_vec())
    }
}

/// Whether a report is that of the quoting enclave of the platform on which `own` is: it is
/// signed by the same key, and nobody can look into it. What its versions are worth says the
/// QE identity to the verifier.
fn is_quoting_enclave(body: &ReportBody, own: &ReportBody) -> bool {
    body.mrsigner == own.mrsigner
        && body.isvprodid == QE_PRODUCT
        && body.attributes.flags == provisioning::qe_attributes().flags
        && body.miscselect == MiscSelect::empty()
}

/// The PCK key of this processor's and this enclave's security version.
fn pck() -> SigningKey {
    let own = report::own();
    let request = provisioning::key_request(own.cpusvn, own.isvsvn);
    let key = egetkey(&request).expect("an enclave has PROVISIONKEY, and the keys of its own version");
    provisioning::pck_key(key.bytes()).into()
}
