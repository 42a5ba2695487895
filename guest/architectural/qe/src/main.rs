//! The quoting enclave (QE): it verifies reports of enclaves on its processor, and signs them
//! with an attestation key that it alone knows. It keeps nothing between two calls.
#![no_std]
#![no_main]

extern crate alloc;

mod key;

use alloc::vec::Vec;
use architectural_interface::{Bound, Quoted, Quoting, ReceiptFor, Refusal};
use enclave::report;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer;
use provisioning::PCE_SVN;
use quote_abi::{AUTH_DATA, Header};
use sgx_abi::{Report, Targetinfo};
use zerocopy::{FromBytes, IntoBytes};

/// The longest certification: three certificates take 4 KiB, and no verifier reads quotes of
/// more than 64.
const MAX_CERTIFICATION: usize = 32 << 10;

struct Qe;

static QE: Qe = Qe;
enclave::serve!(Quoting, QE);

impl Quoting for Qe {
    fn target_info(&self) -> Vec<u8> {
        report::targetinfo().as_bytes().to_vec()
    }

    fn platform_id(&self) -> [u8; 16] {
        key::platform_id()
    }

    fn create_key(&self) -> Vec<u8> {
        key::create()
    }

    fn bind_key(&self, sealed: &[u8], certifier: &[u8]) -> Result<Bound, Refusal> {
        let certifier = target(certifier)?;
        let key = key::public(&key::unseal(sealed)?);
        let report = report::report(&certifier, &quote_abi::qe_report_data(&key, &AUTH_DATA));
        Ok(Bound { key: key.to_vec(), report: report.as_bytes().to_vec() })
    }

    fn quote(
        &self,
        report: &[u8],
        sealed: &[u8],
        certification: &[u8],
        receipt: Option<ReceiptFor>,
    ) -> Result<Quoted, Refusal> {
        let report = Report::read_from_bytes(report).map_err(|_| Refusal::NoReport)?;
        let body = report::verify_report(&report).map_err(|_| Refusal::Report)?;
        if certification.len() > MAX_CERTIFICATION {
            return Err(Refusal::TooLong);
        }
        let key = key::unseal(sealed)?;
        let header = Header::ecdsa(report::own().isvsvn, PCE_SVN, key::platform_id());
        let signed = quote_abi::signed_bytes(&header, body);
        let signature: Signature = key.sign(&signed);
        let (signature, public) = (signature.to_bytes().into(), key::public(&key));
        let quote = quote_abi::quote(&signed, &signature, &public, certification).ok_or(Refusal::TooLong)?;
        let receipt = receipt.map(|wanted| receipt_of(&quote, &wanted)).transpose()?;
        Ok(Quoted { quote, receipt })
    }
}

/// The report that says that this enclave made the quote, for the nonce of whoever asked.
fn receipt_of(quote: &[u8], wanted: &ReceiptFor) -> Result<Vec<u8>, Refusal> {
    let target = target(&wanted.target_info)?;
    let data = quote_abi::receipt_report_data(&wanted.nonce, quote);
    Ok(report::report(&target, &data).as_bytes().to_vec())
}

/// What EREPORT takes without a fault. No enclave that Linux makes has attributes of CET, and
/// to a processor without CET they are reserved.
fn target(bytes: &[u8]) -> Result<Targetinfo, Refusal> {
    let target = Targetinfo::read_from_bytes(bytes).map_err(|_| Refusal::NoTarget)?;
    if target.reserved_is_zero() && target.cet_attributes == 0 { Ok(target) } else { Err(Refusal::NoTarget) }
}
