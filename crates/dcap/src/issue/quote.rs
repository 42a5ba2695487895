//! Quotes of version 3.

use sgx_abi::ReportBody;
use zerocopy::IntoBytes;

use crate::key::{PrivateKey, PublicKey};
use crate::quote::{
    ATTESTATION_KEY_ECDSA_P256, AUTH_DATA_SIZE, Authentication, Body, CertificationData, Header,
    QE_VENDOR_INTEL, Quote, TeeType, qe_report_data,
};

/// The header of a quote: the quoting and the provisioning-certification enclave's security
/// versions, and the quoting enclave's id of the platform.
pub fn header(qe_svn: u16, pce_svn: u16, qe_id: [u8; 16]) -> Header {
    let mut user_data = [0; 20];
    user_data[..16].copy_from_slice(&qe_id);
    Header {
        version: 3,
        attestation_key_type: ATTESTATION_KEY_ECDSA_P256,
        tee_type: TeeType::Sgx,
        qe_svn,
        pce_svn,
        qe_vendor: QE_VENDOR_INTEL,
        user_data,
    }
}

/// What a platform does once, when it is provisioned: an attestation key, bound by a report
/// of the quoting enclave, which the PCK key signs.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The attestation key.
    pub attestation_key: PublicKey,
    /// The quoting enclave's report.
    pub qe_report: ReportBody,
    /// Its authentication data.
    pub qe_auth_data: [u8; AUTH_DATA_SIZE],
    /// The PCK key's signature of the report.
    pub qe_report_signature: [u8; 64],
    /// The PCK certificate's chain in PEM.
    pub pck_chain: String,
}

/// Certifies an attestation key: fills in the quoting enclave's REPORTDATA and signs the
/// report with the PCK key. In a guest, EREPORT and the provisioning-certification enclave
/// do that.
pub fn certify(
    attestation_key: PublicKey,
    mut qe_report: ReportBody,
    qe_auth_data: [u8; AUTH_DATA_SIZE],
    pck: &PrivateKey,
    pck_chain: String,
) -> Certified {
    qe_report.reportdata = qe_report_data(&attestation_key, &qe_auth_data);
    let qe_report_signature = pck.sign(qe_report.as_bytes());
    Certified { attestation_key, qe_report, qe_auth_data, qe_report_signature, pck_chain }
}

/// Puts a quote together whose signature `sign` makes, over the bytes it is given: in a
/// guest, the quoting enclave.
pub fn quote(
    header: Header,
    report: &ReportBody,
    certified: &Certified,
    sign: impl Fn(&[u8]) -> [u8; 64],
) -> Quote {
    // the chain ends with a NUL, as Intel's do
    let mut chain = certified.pck_chain.clone().into_bytes();
    chain.push(0);
    let mut quote = Quote {
        header,
        body: Body::Enclave(Box::new(*report)),
        authentication: Authentication {
            signature: [0; 64],
            attestation_key: certified.attestation_key,
            qe_report: Box::new(certified.qe_report),
            qe_report_signature: certified.qe_report_signature,
            qe_auth_data: certified.qe_auth_data.to_vec(),
            certification: CertificationData::PckChain(chain),
        },
    };
    quote.authentication.signature = sign(&quote.signed_bytes());
    quote
}
