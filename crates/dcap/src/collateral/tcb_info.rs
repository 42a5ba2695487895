//! TCB info, version 3: which security versions of a kind of platform are worth what.

use serde::{Deserialize, Serialize};

use crate::collateral::signed;
use crate::collateral::status::TcbStatus;
use crate::error::{Refusal, Rule, refuse};
use crate::hex;
use crate::pki::PckTcb;
use crate::time::{Time, Validity};

const WHAT: &str = "TCB info";

/// The document; fields in the order in which they are signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbInfo {
    /// `SGX`.
    pub id: String,
    /// 3.
    pub version: u32,
    /// From when it is valid.
    pub issue_date: Time,
    /// Until when.
    pub next_update: Time,
    /// The kind of platform.
    #[serde(with = "hex::array")]
    pub fmspc: [u8; 6],
    /// Its provisioning-certification enclave.
    #[serde(with = "hex::array")]
    pub pce_id: [u8; 2],
    /// How components are compared; 0: each by itself.
    pub tcb_type: u32,
    /// Grows with each set of TCB levels.
    pub tcb_evaluation_data_number: u32,
    /// The levels, the highest first.
    pub tcb_levels: Vec<TcbLevel>,
}

/// One level: whoever has at least these security versions has this status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbLevel {
    /// The security versions.
    pub tcb: Tcb,
    /// When the level's mitigations were published.
    pub tcb_date: Time,
    /// What it is worth.
    pub tcb_status: TcbStatus,
    /// Advisories that concern it.
    #[serde(rename = "advisoryIDs", default, skip_serializing_if = "Vec::is_empty")]
    pub advisory_ids: Vec<String>,
}

/// Security versions of a platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tcb {
    /// Of the sixteen components.
    pub sgxtcbcomponents: [Component; 16],
    /// Of the provisioning-certification enclave.
    pub pcesvn: u16,
}

/// One component.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Component {
    /// Its security version.
    pub svn: u8,
    /// What kind of thing it is, such as `BIOS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Which of that kind, such as `Early Microcode Update`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

impl Tcb {
    /// From bare numbers.
    pub fn new(components: [u8; 16], pcesvn: u16) -> Self {
        Self { sgxtcbcomponents: components.map(|svn| Component { svn, category: None, kind: None }), pcesvn }
    }

    fn components(&self) -> [u8; 16] {
        self.sgxtcbcomponents.each_ref().map(|component| component.svn)
    }

    /// True if a platform has at least these versions, each by itself.
    fn is_met_by(&self, pck: &PckTcb) -> bool {
        let components = self.components();
        components.iter().zip(&pck.components).all(|(level, has)| has >= level) && pck.pcesvn >= self.pcesvn
    }
}

impl TcbInfo {
    /// Reads the document without its signature.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        signed::read(text, WHAT)
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        Validity { from: self.issue_date, until: self.next_update }
    }

    /// Refuses what is not for SGX, not of version 3, not valid at that time, or ambiguous;
    /// sorts the levels, the highest first, as *PCS API v4* has it and Intel's library does.
    pub(crate) fn check(&mut self, at: Time) -> Result<(), Refusal> {
        if self.id != "SGX" {
            let says = format!("is \"{}\"; a quote of an enclave is judged by \"SGX\"", self.id);
            return refuse(Rule::CollateralId, format!("{WHAT}: id"), says);
        }
        if self.version != 3 {
            return refuse(
                Rule::CollateralVersion,
                format!("{WHAT}: version"),
                format!("is {}, not 3", self.version),
            );
        }
        if self.tcb_type != 0 {
            let says = format!("is {}; only 0 says how to compare", self.tcb_type);
            return refuse(Rule::TcbType, format!("{WHAT}: tcbType"), says);
        }
        let rules = [Rule::CollateralNotYetValid, Rule::CollateralExpired];
        self.validity().check(at, WHAT, ["issueDate", "nextUpdate"], rules)?;
        let key = |level: &TcbLevel| (level.tcb.components(), level.tcb.pcesvn);
        self.tcb_levels.sort_by_key(|level| std::cmp::Reverse(key(level)));
        if self.tcb_levels.is_empty() {
            return refuse(Rule::TcbLevels, format!("{WHAT}: tcbLevels"), "is empty");
        }
        if self.tcb_levels.windows(2).any(|two| key(&two[0]) == key(&two[1])) {
            return refuse(
                Rule::TcbLevels,
                format!("{WHAT}: tcbLevels"),
                "has two levels for the same versions",
            );
        }
        Ok(())
    }

    /// The first level that a platform meets.
    pub(crate) fn level(&self, pck: &PckTcb) -> Result<&TcbLevel, Refusal> {
        self.tcb_levels.iter().find(|level| level.tcb.is_met_by(pck)).ok_or_else(|| {
            let components = hex::encode(&pck.components);
            let says = format!("has no level for components {components} with PCESVN {}", pck.pcesvn);
            Refusal::new(Rule::TcbUnknown, format!("{WHAT}: tcbLevels"), says)
        })
    }
}
