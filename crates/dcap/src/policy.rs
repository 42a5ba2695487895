//! What a verifier asks of a genuine quote, as a value.

use serde::{Deserialize, Serialize};
use sgx_abi::{AttributeFlags, ReportBody};
use std::collections::BTreeSet;

use crate::collateral::TcbStatus;
use crate::error::{Refusal, Rule, refuse};
use crate::hex;
use crate::verify::Verdict;

/// A policy. The default asks for silicon that is up to date and an enclave that is not for
/// debugging, whichever it is; every field says more, or less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// MRENCLAVE must be this one.
    pub mrenclave: Option<Digest>,
    /// MRSIGNER must be this one.
    pub mrsigner: Option<Digest>,
    /// ISVPRODID must be this one.
    pub isv_prod_id: Option<u16>,
    /// ISVSVN must be at least this.
    pub min_isv_svn: Option<u16>,
    /// REPORTDATA must begin with these bytes; the rest must be zero. A nonce, or the hash
    /// of a key.
    pub report_data: Option<ReportData>,
    /// Debug enclaves are accepted: everything in them is open to their host.
    pub accept_debug: bool,
    /// The TCB's status must be one of these. `Revoked` is refused even so.
    pub accept_tcb: BTreeSet<TcbStatus>,
    /// Platforms under another root than Intel's are accepted: their owner can read every
    /// enclave on them.
    pub accept_software_platform: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mrenclave: None,
            mrsigner: None,
            isv_prod_id: None,
            min_isv_svn: None,
            report_data: None,
            accept_debug: false,
            accept_tcb: BTreeSet::from([TcbStatus::UpToDate]),
            accept_software_platform: false,
        }
    }
}

/// A SHA-256, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "hex::array")] pub [u8; 32]);

/// Up to 64 bytes, written as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportData(#[serde(with = "hex::bytes")] pub Vec<u8>);

impl Policy {
    /// Reads a policy in JSON; a field that is not known is refused, not overlooked.
    pub fn from_json(text: &str) -> Result<Self, Refusal> {
        // serde would take a list of values too, and nothing at all for the default
        if !text.trim_start().starts_with('{') {
            return refuse(Rule::Encoding, "policy", "is no JSON object");
        }
        serde_json::from_str(text).map_err(|error| Refusal::new(Rule::Encoding, "policy", error))
    }

    /// Refuses a verdict that breaks the policy.
    pub fn check(&self, verdict: &Verdict) -> Result<(), Refusal> {
        if verdict.software_platform && !self.accept_software_platform {
            let says = format!(
                "is \"{}\", not Intel's: a software platform, whose owner can read every enclave on it; \
                 accept it by name if that is you",
                verdict.root
            );
            return refuse(Rule::SoftwarePlatform, "platform: root", says);
        }
        self.check_tcb(verdict)?;
        self.check_enclave(verdict)
    }

    fn check_tcb(&self, verdict: &Verdict) -> Result<(), Refusal> {
        let tcb = &verdict.tcb;
        let field = "platform: TCB status";
        if tcb.status == TcbStatus::Revoked {
            return refuse(Rule::TcbRevoked, field, "is Revoked: its keys are not to be believed");
        }
        if !self.accept_tcb.contains(&tcb.status) {
            let accepted: Vec<_> = self.accept_tcb.iter().map(TcbStatus::to_string).collect();
            let advisories = match tcb.advisory_ids.is_empty() {
                true => String::new(),
                false => format!(" ({})", tcb.advisory_ids.join(", ")),
            };
            let says = format!("is {}{advisories}; accepted: {}", tcb.status, accepted.join(", "));
            return refuse(Rule::TcbNotAccepted, field, says);
        }
        Ok(())
    }

    fn check_enclave(&self, verdict: &Verdict) -> Result<(), Refusal> {
        let report = &verdict.report;
        if report.attributes.flags.contains(AttributeFlags::DEBUG) && !self.accept_debug {
            return refuse(
                Rule::Debug,
                "enclave: attributes",
                "have DEBUG: everything in it is open to its host",
            );
        }
        if let Some(Digest(wanted)) = &self.mrenclave
            && report.mrenclave != *wanted
        {
            return differs(Rule::Mrenclave, "MRENCLAVE", &report.mrenclave, wanted);
        }
        if let Some(Digest(wanted)) = &self.mrsigner
            && report.mrsigner != *wanted
        {
            return differs(Rule::Mrsigner, "MRSIGNER", &report.mrsigner, wanted);
        }
        if let Some(wanted) = self.isv_prod_id
            && report.isvprodid != wanted
        {
            let says = format!("is {}; the policy wants {wanted}", report.isvprodid);
            return refuse(Rule::ProductId, "enclave: ISVPRODID", says);
        }
        if let Some(least) = self.min_isv_svn
            && report.isvsvn < least
        {
            let says = format!("is {}; the policy wants at least {least}", report.isvsvn);
            return refuse(Rule::SecurityVersion, "enclave: ISVSVN", says);
        }
        match &self.report_data {
            Some(wanted) => wanted.check(report),
            None => Ok(()),
        }
    }
}

impl ReportData {
    /// Refuses a report whose REPORTDATA are not these bytes, and then zeros.
    pub fn check(&self, report: &ReportBody) -> Result<(), Refusal> {
        let mut wanted = [0; 64];
        let Some(start) = wanted.get_mut(..self.0.len()) else {
            let says = format!("wants {} bytes of 64", self.0.len());
            return refuse(Rule::ReportData, "policy: report_data", says);
        };
        start.copy_from_slice(&self.0);
        if report.reportdata != wanted {
            return differs(Rule::ReportData, "REPORTDATA", &report.reportdata, &wanted);
        }
        Ok(())
    }
}

fn differs(rule: Rule, name: &str, is: &[u8], wanted: &[u8]) -> Result<(), Refusal> {
    let says = format!("is {}; wanted is {}", hex::encode(is), hex::encode(wanted));
    refuse(rule, format!("enclave: {name}"), says)
}
