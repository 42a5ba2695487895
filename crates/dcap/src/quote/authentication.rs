//! What follows the signed part: the signature, and why its key is to be believed.

use sgx_abi::ReportBody;

use crate::error::{Refusal, Rule, refuse};
use crate::key::PublicKey;
use crate::quote::body::report;
use crate::quote::certification::CertificationData;
use crate::reader::Reader;

pub use quote_abi::AUTH_DATA_SIZE;

/// `sgx_ecdsa_sig_data_t` and what follows it; the same in all versions, but that versions 4
/// and 5 wrap the part from the quoting enclave's report on as certification data of type 6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// The attestation key's signature of header and body.
    pub signature: [u8; 64],
    /// The attestation key.
    pub attestation_key: PublicKey,
    /// The quoting enclave's report, which binds the attestation key.
    pub qe_report: Box<ReportBody>,
    /// The PCK key's signature of that report.
    pub qe_report_signature: [u8; 64],
    /// More that the quoting enclave's report binds.
    pub qe_auth_data: Vec<u8>,
    /// Who vouches for the PCK key.
    pub certification: CertificationData,
}

/// REPORTDATA by which a quoting enclave's report binds its attestation key: the SHA-256 of
/// key and authentication data, and 32 zeros.
pub fn qe_report_data(attestation_key: &PublicKey, auth_data: &[u8]) -> [u8; 64] {
    quote_abi::qe_report_data(&attestation_key.0, auth_data)
}

impl Authentication {
    pub(super) fn read(version: u16, bytes: &[u8]) -> Result<Self, Refusal> {
        let mut from = Reader::new("quote", bytes);
        let signature = from.array("signature")?;
        let attestation_key = PublicKey(from.array("attestation key")?);
        let wrapped;
        let mut inner = if version == 3 {
            from
        } else {
            let kind = from.u16("certification data type")?;
            if kind != 6 {
                let what = format!("is {kind}; version {version} has 6 (QE report)");
                return refuse(Rule::CertificationData, "quote: certification data type", what);
            }
            wrapped = from.prefixed32("QE report certification data")?;
            from.end()?;
            Reader::new("quote: QE report certification data", wrapped)
        };
        let read = Self {
            signature,
            attestation_key,
            qe_report: Box::new(report(inner.array("QE report")?)),
            qe_report_signature: inner.array("QE report signature")?,
            qe_auth_data: inner.prefixed16("QE authentication data")?.to_vec(),
            certification: CertificationData::read(&mut inner)?,
        };
        inner.end()?;
        Ok(read)
    }

    pub(super) fn write(&self, version: u16, to: &mut Vec<u8>) -> Result<(), Refusal> {
        let data = self.certification.data();
        let inner = quote_abi::Certification {
            qe_report: &self.qe_report,
            qe_report_signature: &self.qe_report_signature,
            qe_auth_data: &self.qe_auth_data,
            kind: self.certification.kind(),
            data: &data,
        };
        let Some(inner) = inner.to_bytes() else {
            return refuse(
                Rule::AuthDataLength,
                "quote: QE authentication data",
                "do not fit into 65535 bytes",
            );
        };
        to.extend(self.signature);
        to.extend(self.attestation_key.0);
        if version > 3 {
            to.extend(6u16.to_le_bytes());
            to.extend((inner.len() as u32).to_le_bytes());
        }
        to.extend(inner);
        Ok(())
    }
}
