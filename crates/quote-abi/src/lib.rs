//! The bytes of a quote of version 3, as a quoting enclave writes them: what `dcap` makes and
//! reads outside, for the inside as well.
//!
//! *Intel SGX ECDSA QuoteLibReference, §A.4; `sgx_quote_3.h`.* Integers are little-endian;
//! signatures and keys are pairs of 32-byte numbers with the most significant byte first.
//!
//! ```text
//! Header 48 ‖ ReportBody 384            the attestation key signs this
//! u32 length of the rest
//! signature 64 ‖ attestation key 64
//! Certification                         why that key is to be believed
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;
use sgx_abi::ReportBody;
use sha2::{Digest, Sha256};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The vendor id of Intel's quoting enclaves, by which verifiers know the format.
pub const QE_VENDOR_INTEL: [u8; 16] = *b"\x93\x9a\x72\x33\xf7\x9c\x4c\xa9\x94\x0a\x0d\xb3\x95\x7f\x06\x07";

/// The attestation key type ECDSA-256 with P-256.
pub const ATTESTATION_KEY_ECDSA_P256: u16 = 2;

/// Size in bytes of the header.
pub const HEADER_SIZE: usize = size_of::<Header>();

/// Length in bytes of the quoting enclave's authentication data, as Intel's writes them and
/// verifiers want them.
pub const AUTH_DATA_SIZE: usize = 32;

/// The authentication data of Intel's quoting enclave, and of ours: they say nothing.
pub const AUTH_DATA: [u8; AUTH_DATA_SIZE] = {
    let mut data = [0; AUTH_DATA_SIZE];
    let mut n = 0;
    while n < AUTH_DATA_SIZE {
        data[n] = n as u8;
        n += 1;
    }
    data
};

/// Certification data of type 5: the chain of the PCK certificate, in PEM.
pub const PCK_CHAIN: u16 = 5;

/// `sgx_quote_header_t`, of the same layout in versions 3, 4 and 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Header {
    /// 3, 4 or 5.
    pub version: u16,
    /// The kind of the key that signed the quote.
    pub attestation_key_type: u16,
    /// For whom it speaks: 0 for an enclave.
    pub tee_type: u32,
    /// ISVSVN of the quoting enclave (zero from version 4 on).
    pub qe_svn: u16,
    /// ISVSVN of the provisioning-certification enclave (zero from version 4 on).
    pub pce_svn: u16,
    /// Whose quoting enclave it is.
    pub qe_vendor: [u8; 16],
    /// The first 16 bytes are the quoting enclave's id of the platform.
    pub user_data: [u8; 20],
}

impl Header {
    /// That of an enclave's quote of version 3, by an ECDSA key: the security versions of the
    /// quoting and the provisioning-certification enclave, the former's id of the platform.
    pub fn ecdsa(qe_svn: u16, pce_svn: u16, qe_id: [u8; 16]) -> Self {
        let mut user_data = [0; 20];
        user_data[..16].copy_from_slice(&qe_id);
        Self {
            version: 3,
            attestation_key_type: ATTESTATION_KEY_ECDSA_P256,
            tee_type: 0,
            qe_svn,
            pce_svn,
            qe_vendor: QE_VENDOR_INTEL,
            user_data,
        }
    }
}

/// REPORTDATA by which a quoting enclave's report binds its attestation key: the SHA-256 of
/// key and authentication data, and 32 zeros.
pub fn qe_report_data(attestation_key: &[u8; 64], auth_data: &[u8]) -> [u8; 64] {
    hashed(&[attestation_key, auth_data])
}

/// REPORTDATA by which a quoting enclave's report binds a quote to the nonce of whoever asked
/// for it (`sgx_ql_qe_report_info_t`): the SHA-256 of nonce and quote, and 32 zeros.
pub fn receipt_report_data(nonce: &[u8; 16], quote: &[u8]) -> [u8; 64] {
    hashed(&[nonce, quote])
}

fn hashed(parts: &[&[u8]]) -> [u8; 64] {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    let mut data = [0; 64];
    data[..32].copy_from_slice(&hash);
    data
}

/// What follows the attestation key: why it is to be believed.
#[derive(Clone, Copy, Debug)]
pub struct Certification<'a> {
    /// The quoting enclave's report, whose REPORTDATA is [`qe_report_data`].
    pub qe_report: &'a ReportBody,
    /// The PCK key's signature of that report.
    pub qe_report_signature: &'a [u8; 64],
    /// The quoting enclave's authentication data.
    pub qe_auth_data: &'a [u8],
    /// Type of the certification data.
    pub kind: u16,
    /// The certification data.
    pub data: &'a [u8],
}

impl Certification<'_> {
    /// Its bytes; `None` if authentication data or certification data are longer than their
    /// length fields can say.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let auth_size = u16::try_from(self.qe_auth_data.len()).ok()?;
        let size = u32::try_from(self.data.len()).ok()?;
        let parts: [&[u8]; 7] = [
            self.qe_report.as_bytes(),
            self.qe_report_signature,
            &auth_size.to_le_bytes(),
            self.qe_auth_data,
            &self.kind.to_le_bytes(),
            &size.to_le_bytes(),
            self.data,
        ];
        Some(parts.concat())
    }
}

/// The bytes that the attestation key signs.
pub fn signed_bytes(header: &Header, report: &ReportBody) -> Vec<u8> {
    [header.as_bytes(), report.as_bytes()].concat()
}

/// Puts a quote together: what was signed, the signature, its key, and the bytes of a
/// [`Certification`]; `None` if those are 4 GiB or more.
pub fn quote(
    signed: &[u8],
    signature: &[u8; 64],
    attestation_key: &[u8; 64],
    certification: &[u8],
) -> Option<Vec<u8>> {
    let size = u32::try_from(signature.len() + attestation_key.len() + certification.len()).ok()?;
    let parts: [&[u8]; 5] = [signed, &size.to_le_bytes(), signature, attestation_key, certification];
    Some(parts.concat())
}

/// Bytes of a quote with a certification of `certification` bytes.
pub const fn quote_size(certification: usize) -> usize {
    HEADER_SIZE + size_of::<ReportBody>() + 4 + 64 + 64 + certification
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_intel_has_them() {
        let header = Header::ecdsa(0x0201, 0x0403, [7; 16]);
        let bytes = header.as_bytes();
        assert_eq!(bytes[..12], [3, 0, 2, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(bytes[12..28], QE_VENDOR_INTEL);
        assert_eq!((&bytes[28..44], &bytes[44..]), (&[7; 16][..], &[0; 4][..]));
        let report = ReportBody::default();
        let certification = Certification {
            qe_report: &report,
            qe_report_signature: &[4; 64],
            qe_auth_data: &AUTH_DATA,
            kind: PCK_CHAIN,
            data: b"chain",
        };
        let certification = certification.to_bytes().unwrap();
        let signed = signed_bytes(&header, &report);
        assert_eq!(signed.len(), 432);
        let quote = quote(&signed, &[1; 64], &[2; 64], &certification).unwrap();
        assert_eq!(quote.len(), quote_size(certification.len()));
        assert_eq!(quote[432..436], ((quote.len() - 436) as u32).to_le_bytes());
        assert_eq!((quote[436], quote[500], quote[948]), (1, 2, 4));
        assert_eq!(quote[1012..1014], [32, 0]);
        assert_eq!(quote[1014..1046], core::array::from_fn::<u8, 32, _>(|n| n as u8));
        assert_eq!(quote[1046..1052], [5, 0, 5, 0, 0, 0]);
        assert_eq!(&quote[1052..], b"chain");
    }

    #[test]
    fn what_does_not_fit_is_none() {
        let report = ReportBody::default();
        let auth = [0; 1 << 16];
        let certification = Certification {
            qe_report: &report,
            qe_report_signature: &[0; 64],
            qe_auth_data: &auth,
            kind: PCK_CHAIN,
            data: &[],
        };
        assert_eq!(certification.to_bytes(), None);
    }

    #[test]
    fn bindings_are_hashes_and_zeros() {
        // printf 'a%.0s' {1..64} | sha256sum, and of 16 a and 48 a
        let hash = receipt_report_data(&[b'a'; 16], &[b'a'; 48]);
        assert_eq!(hash, qe_report_data(&[b'a'; 64], &[]));
        assert_eq!(hash[..4], [0xff, 0xe0, 0x54, 0xfe]);
        assert_eq!(hash[32..], [0; 32]);
    }
}
