//! All that a verifier needs beside the quote, in one piece.

use serde::{Deserialize, Serialize};

use crate::collateral::signed::Signed;
use crate::error::{Refusal, Rule, refuse};
use crate::hex;

/// The largest bundle that is read, in bytes of JSON.
pub const MAX_BUNDLE_SIZE: usize = 16 << 20;

/// Collateral for one kind of platform, with the field names of Intel's
/// `sgx_ql_qve_collateral_t`; chains are PEM, lists DER (in JSON: hexadecimal digits).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collateral {
    /// The PCK CA's certificate and the root's.
    pub pck_crl_issuer_chain: String,
    /// The root's revocation list.
    #[serde(with = "hex::bytes")]
    pub root_ca_crl: Vec<u8>,
    /// The PCK CA's revocation list.
    #[serde(with = "hex::bytes")]
    pub pck_crl: Vec<u8>,
    /// The TCB signing certificate and the root's.
    pub tcb_info_issuer_chain: String,
    /// TCB info, as it was signed.
    pub tcb_info: String,
    /// Its signature: r and s.
    #[serde(with = "hex::bytes")]
    pub tcb_info_signature: Vec<u8>,
    /// The TCB signing certificate and the root's.
    pub qe_identity_issuer_chain: String,
    /// The QE identity, as it was signed.
    pub qe_identity: String,
    /// Its signature: r and s.
    #[serde(with = "hex::bytes")]
    pub qe_identity_signature: Vec<u8>,
    /// The PCK certificate's chain, for quotes that do not carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pck_certificate_chain: Option<String>,
}

impl Collateral {
    /// Reads a bundle in JSON, as `dcap-qvl` and others keep it in files.
    pub fn from_json(text: &str) -> Result<Self, Refusal> {
        if text.len() > MAX_BUNDLE_SIZE {
            let says = format!("has {} bytes; {MAX_BUNDLE_SIZE} are the most", text.len());
            return refuse(Rule::Oversized, "collateral", says);
        }
        serde_json::from_str(text).map_err(|error| Refusal::new(Rule::Encoding, "collateral", error))
    }

    /// The bundle in JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings only")
    }

    /// TCB info with its signature.
    pub fn signed_tcb_info(&self) -> Signed {
        Signed { text: self.tcb_info.clone(), signature: self.tcb_info_signature.clone() }
    }

    /// The QE identity with its signature.
    pub fn signed_qe_identity(&self) -> Signed {
        Signed { text: self.qe_identity.clone(), signature: self.qe_identity_signature.clone() }
    }
}
