//! The header that all versions begin with.

use zerocopy::IntoBytes;

use crate::error::{Refusal, Rule, refuse};
use crate::reader::Reader;

pub use quote_abi::{ATTESTATION_KEY_ECDSA_P256, HEADER_SIZE, QE_VENDOR_INTEL};

/// For whom a quote speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeType {
    /// An enclave.
    Sgx,
    /// A trust domain.
    Tdx,
}

/// `sgx_quote_header_t`, 48 bytes; of the same layout in versions 3, 4 and 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 3, 4 or 5.
    pub version: u16,
    /// The kind of the key that signed the quote.
    pub attestation_key_type: u16,
    /// For whom it speaks. Version 3 knows enclaves only.
    pub tee_type: TeeType,
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
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Refusal> {
        let version = from.u16("version")?;
        if !(3..=5).contains(&version) {
            return refuse(
                Rule::QuoteVersion,
                "quote: version",
                format!("is {version}; 3, 4 and 5 are known"),
            );
        }
        let attestation_key_type = from.u16("attestation key type")?;
        let tee_type = match (from.u32("TEE type")?, version) {
            (0, _) => TeeType::Sgx,
            (0x81, 4 | 5) => TeeType::Tdx,
            (other, _) => {
                let what = format!("is {other:#x}; version {version} knows 0 (SGX)");
                let what = if version > 3 { what + " and 0x81 (TDX)" } else { what };
                return refuse(Rule::TeeType, "quote: TEE type", what);
            }
        };
        Ok(Self {
            version,
            attestation_key_type,
            tee_type,
            qe_svn: from.u16("QE SVN")?,
            pce_svn: from.u16("PCE SVN")?,
            qe_vendor: from.array("QE vendor id")?,
            user_data: from.array("user data")?,
        })
    }

    /// The 48 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let header = quote_abi::Header {
            version: self.version,
            attestation_key_type: self.attestation_key_type,
            tee_type: if self.tee_type == TeeType::Tdx { 0x81 } else { 0 },
            qe_svn: self.qe_svn,
            pce_svn: self.pce_svn,
            qe_vendor: self.qe_vendor,
            user_data: self.user_data,
        };
        let mut bytes = [0; HEADER_SIZE];
        bytes.copy_from_slice(header.as_bytes());
        bytes
    }

    /// Refuses what [`Trusted`](crate::verify::Trusted) does not verify, by name.
    pub(crate) fn check(&self, body: &str) -> Result<(), Refusal> {
        if self.tee_type == TeeType::Tdx {
            let what = format!("is TDX: a quote of a {body}, which is read and not verified");
            return refuse(Rule::TeeType, "quote: TEE type", what);
        }
        if self.version != 3 {
            let what = format!("is {}; quotes of enclaves are verified in version 3", self.version);
            return refuse(Rule::QuoteVersion, "quote: version", what);
        }
        if self.attestation_key_type != ATTESTATION_KEY_ECDSA_P256 {
            let what = format!("is {}; 2 (ECDSA-P256) is verified", self.attestation_key_type);
            return refuse(Rule::AttestationKeyType, "quote: attestation key type", what);
        }
        if self.qe_vendor != QE_VENDOR_INTEL {
            let what = format!("is {}, not that of Intel's formats", crate::hex::encode(&self.qe_vendor));
            return refuse(Rule::QeVendor, "quote: QE vendor id", what);
        }
        Ok(())
    }
}
