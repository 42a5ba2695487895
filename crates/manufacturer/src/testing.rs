//! Quotes of a platform as its architectural enclaves would make them, without the enclaves.

use crate::{Manufacturer, ManufacturerError};
use dcap::issue::quote::{certify, header, quote};
use dcap::key::PrivateKey;
use dcap::{Quote, Time};
use provisioning::{PCE_SVN, QE_PRODUCT, QE_SVN};
use sgx_abi::{AttributeFlags, Attributes, ReportBody};

/// A quote of the platform at its security version for an enclave's report.
///
/// # Errors
/// As of [`Manufacturer::issued`].
pub fn quote_of(maker: &Manufacturer, report: &ReportBody, at: Time) -> Result<Quote, ManufacturerError> {
    let svn = maker.roots.fused().cpusvn();
    let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT | AttributeFlags::PROVISIONKEY;
    let qe_report = ReportBody {
        cpusvn: svn.to_bytes(),
        attributes: Attributes { flags, xfrm: 3 },
        mrsigner: maker.mrsigner,
        isvprodid: QE_PRODUCT,
        isvsvn: QE_SVN,
        ..ReportBody::default()
    };
    let attestation = PrivateKey::from_bytes(&[5; 32])?;
    let auth_data = std::array::from_fn(|i| i as u8);
    let chain = maker.issued(at)?.chain;
    let certified = certify(attestation.public(), qe_report, auth_data, &maker.pck_key(svn), chain);
    let report = ReportBody { cpusvn: svn.to_bytes(), ..*report };
    Ok(quote(header(QE_SVN, PCE_SVN, [0x66; 16]), &report, &certified, |bytes| attestation.sign(bytes)))
}

/// An enclave's report that is not one for debugging.
pub fn report() -> ReportBody {
    let flags = AttributeFlags::INIT | AttributeFlags::MODE64BIT;
    ReportBody {
        attributes: Attributes { flags, xfrm: 3 },
        mrenclave: [0x33; 32],
        mrsigner: [0x77; 32],
        isvprodid: 1,
        isvsvn: 2,
        reportdata: [0x44; 64],
        ..ReportBody::default()
    }
}
