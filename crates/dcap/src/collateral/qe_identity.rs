//! The quoting enclave's identity, version 2: whose reports may bind attestation keys.

use serde::{Deserialize, Serialize};
use sgx_abi::{AttributeFlags, ReportBody};
use zerocopy::IntoBytes;

use crate::collateral::signed;
use crate::collateral::status::TcbStatus;
use crate::error::{Refusal, Rule, refuse};
use crate::hex;
use crate::time::{Time, Validity};

const WHAT: &str = "QE identity";

/// The document; fields in the order in which they are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QeIdentity {
    /// `QE`.
    pub id: String,
    /// 2.
    pub version: u32,
    /// From when it is valid.
    pub issue_date: Time,
    /// Until when.
    pub next_update: Time,
    /// Grows with each set of TCB levels.
    pub tcb_evaluation_data_number: u32,
    /// MISCSELECT, in the order of its bytes in a report.
    #[serde(with = "hex::array")]
    pub miscselect: [u8; 4],
    /// The bits of it that count.
    #[serde(with = "hex::array")]
    pub miscselect_mask: [u8; 4],
    /// Attributes: flags and XFRM, in the order of their bytes in a report.
    #[serde(with = "hex::array")]
    pub attributes: [u8; 16],
    /// The bits of them that count.
    #[serde(with = "hex::array")]
    pub attributes_mask: [u8; 16],
    /// The signer.
    #[serde(with = "hex::array")]
    pub mrsigner: [u8; 32],
    /// The product identifier.
    pub isvprodid: u16,
    /// What its security versions are worth, the highest first.
    pub tcb_levels: Vec<QeTcbLevel>,
}

/// One level: whoever has at least this security version has this status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QeTcbLevel {
    /// The security version.
    pub tcb: QeSvn,
    /// When the level's mitigations were published.
    pub tcb_date: Time,
    /// What it is worth.
    pub tcb_status: TcbStatus,
    /// Advisories that concern it.
    #[serde(rename = "advisoryIDs", default, skip_serializing_if = "Vec::is_empty")]
    pub advisory_ids: Vec<String>,
}

/// The security version of an enclave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QeSvn {
    /// ISVSVN.
    pub isvsvn: u16,
}

impl QeIdentity {
    /// Reads the document without its signature.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        signed::read(text, WHAT)
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        Validity { from: self.issue_date, until: self.next_update }
    }

    /// Refuses what is not for the quoting enclave of SGX, not of version 2, not valid at
    /// that time, or ambiguous.
    pub(crate) fn check(&self, at: Time) -> Result<(), Refusal> {
        if self.id != "QE" {
            let says = format!("is \"{}\"; a quote of an enclave is made by \"QE\"", self.id);
            return refuse(Rule::CollateralId, format!("{WHAT}: id"), says);
        }
        if self.version != 2 {
            return refuse(
                Rule::CollateralVersion,
                format!("{WHAT}: version"),
                format!("is {}, not 2", self.version),
            );
        }
        let rules = [Rule::CollateralNotYetValid, Rule::CollateralExpired];
        self.validity().check(at, WHAT, ["issueDate", "nextUpdate"], rules)?;
        if self.tcb_levels.is_empty() {
            return refuse(Rule::TcbLevels, format!("{WHAT}: tcbLevels"), "is empty");
        }
        if !self.tcb_levels.is_sorted_by(|higher, lower| higher.tcb > lower.tcb) {
            let says = "are not in descending order of ISVSVN, each once";
            return refuse(Rule::TcbLevels, format!("{WHAT}: tcbLevels"), says);
        }
        match self.tcb_levels.iter().find(|level| !level.tcb_status.is_for_enclaves()) {
            Some(level) => {
                let says = format!("is {}, which is no status of an enclave", level.tcb_status);
                refuse(Rule::TcbStatus, format!("{WHAT}: tcbStatus"), says)
            }
            None => Ok(()),
        }
    }

    /// Refuses a report of any other enclave than the quoting enclave, and gives the first
    /// level that its security version meets.
    pub(crate) fn level(&self, qe: &ReportBody) -> Result<&QeTcbLevel, Refusal> {
        let differs = |rule, name: &str, is: String, wanted: String| {
            refuse(rule, format!("QE report: {name}"), format!("is {is}; the QE identity has {wanted}"))
        };
        if qe.attributes.flags.contains(AttributeFlags::DEBUG) {
            return refuse(
                Rule::QeDebug,
                "QE report: attributes",
                "have DEBUG: its keys are open to its host",
            );
        }
        if qe.mrsigner != self.mrsigner {
            return differs(
                Rule::QeMrsigner,
                "MRSIGNER",
                hex::encode(&qe.mrsigner),
                hex::encode(&self.mrsigner),
            );
        }
        if qe.isvprodid != self.isvprodid {
            let (is, wanted) = (qe.isvprodid.to_string(), self.isvprodid.to_string());
            return differs(Rule::QeProductId, "ISVPRODID", is, wanted);
        }
        let miscselect = qe.miscselect.as_bytes();
        if let Some((is, wanted)) = differ(miscselect, &self.miscselect_mask, &self.miscselect) {
            return differs(Rule::QeMiscselect, "MISCSELECT", is, wanted);
        }
        let attributes = qe.attributes.as_bytes();
        if let Some((is, wanted)) = differ(attributes, &self.attributes_mask, &self.attributes) {
            return differs(Rule::QeAttributes, "attributes", is, wanted);
        }
        self.tcb_levels.iter().find(|level| qe.isvsvn >= level.tcb.isvsvn).ok_or_else(|| {
            let says = format!("is {}, lower than that of every level of the QE identity", qe.isvsvn);
            Refusal::new(Rule::QeSvn, "QE report: ISVSVN", says)
        })
    }
}

/// What differs between a value under a mask and what is wanted, both as digits.
fn differ(value: &[u8], mask: &[u8], wanted: &[u8]) -> Option<(String, String)> {
    let masked: Vec<u8> = value.iter().zip(mask).map(|(value, mask)| value & mask).collect();
    (masked != wanted).then(|| (hex::encode(&masked) + " under its mask", hex::encode(wanted)))
}
