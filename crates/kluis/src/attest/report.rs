//! What is told of a quote: the same in JSON and as text.

use dcap::hex::encode;
use dcap::pki::{PckAuthority, PckExtension, SgxType};
use dcap::verify::LevelVerdict;
use serde::Serialize;
use sgx_abi::{AttributeFlags, ReportBody};
use std::fmt::Write;

/// An enclave's report.
#[derive(Serialize)]
pub(super) struct Enclave {
    mrenclave: String,
    mrsigner: String,
    isv_prod_id: u16,
    isv_svn: u16,
    debug: bool,
    attributes: String,
    misc_select: String,
    cpusvn: String,
    config_id: String,
    config_svn: u16,
    report_data: String,
}

/// What a PCK certificate says of a platform.
#[derive(Serialize)]
pub(super) struct Platform {
    fmspc: String,
    ppid: String,
    pceid: String,
    cpusvn: String,
    tcb_components: [u8; 16],
    pcesvn: u16,
    sgx_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_id: Option<String>,
}

/// A genuine quote.
#[derive(Serialize)]
pub(super) struct Verdict {
    root: String,
    software_platform: bool,
    /// Which of the two PCK CAs.
    authority: &'static str,
    at: String,
    valid_until: String,
    tcb: Tcb,
    enclave: Enclave,
    quoting_enclave: Enclave,
    platform: Platform,
}

#[derive(Serialize)]
struct Tcb {
    status: String,
    advisory_ids: Vec<String>,
    evaluation_data_number: u32,
    platform: Level,
    quoting_enclave: Level,
}

#[derive(Serialize)]
struct Level {
    status: String,
    date: String,
    advisory_ids: Vec<String>,
}

impl Enclave {
    pub(super) fn of(report: &ReportBody) -> Self {
        let mut attributes = report.attributes.flags.bits().to_le_bytes().to_vec();
        attributes.extend(report.attributes.xfrm.to_le_bytes());
        Self {
            mrenclave: encode(&report.mrenclave),
            mrsigner: encode(&report.mrsigner),
            isv_prod_id: report.isvprodid,
            isv_svn: report.isvsvn,
            debug: report.attributes.flags.contains(AttributeFlags::DEBUG),
            attributes: encode(&attributes),
            misc_select: encode(&report.miscselect.bits().to_le_bytes()),
            cpusvn: encode(&report.cpusvn),
            config_id: encode(&report.configid),
            config_svn: report.configsvn,
            report_data: encode(&report.reportdata),
        }
    }
}

impl Platform {
    pub(super) fn of(extension: &PckExtension) -> Self {
        Self {
            fmspc: encode(&extension.fmspc),
            ppid: encode(&extension.ppid),
            pceid: encode(&extension.pceid),
            cpusvn: encode(&extension.tcb.cpusvn),
            tcb_components: extension.tcb.components,
            pcesvn: extension.tcb.pcesvn,
            sgx_type: match extension.sgx_type {
                SgxType::Standard => "Standard",
                SgxType::Scalable => "Scalable",
                SgxType::ScalableWithIntegrity => "ScalableWithIntegrity",
            },
            instance_id: extension.platform.map(|platform| encode(&platform.instance_id)),
        }
    }
}

impl Verdict {
    pub(super) fn of(verdict: &dcap::Verdict) -> Self {
        let level = |level: &LevelVerdict| Level {
            status: level.status.to_string(),
            date: level.date.to_string(),
            advisory_ids: level.advisory_ids.clone(),
        };
        let tcb = &verdict.tcb;
        Self {
            root: verdict.root.clone(),
            software_platform: verdict.software_platform,
            authority: match verdict.authority {
                PckAuthority::Processor => "processor",
                PckAuthority::Platform => "platform",
            },
            at: verdict.at.to_string(),
            valid_until: verdict.valid_until.to_string(),
            tcb: Tcb {
                status: tcb.status.to_string(),
                advisory_ids: tcb.advisory_ids.clone(),
                evaluation_data_number: tcb.evaluation_data_number,
                platform: level(&tcb.platform),
                quoting_enclave: level(&tcb.qe),
            },
            enclave: Enclave::of(&verdict.report),
            quoting_enclave: Enclave::of(&verdict.qe_report),
            platform: Platform::of(&verdict.platform),
        }
    }
}

/// A line of a report.
pub(super) fn line(out: &mut String, name: &str, value: &str) {
    // writing to a string does not fail
    let _ = writeln!(out, "  {name:<12} {value}");
}

/// A verdict as people read it.
pub(super) fn verdict_text(verdict: &Verdict) -> String {
    let mut out = String::new();
    let kind = if verdict.software_platform { " (a software platform)" } else { "" };
    line(&mut out, "root", &format!("{:?}{kind}", verdict.root));
    let tcb = &verdict.tcb;
    line(&mut out, "TCB", &format!("{}, evaluation data {}", tcb.status, tcb.evaluation_data_number));
    if !tcb.advisory_ids.is_empty() {
        line(&mut out, "advisories", &tcb.advisory_ids.join(" "));
    }
    line(
        &mut out,
        "verified",
        &format!("at {}; the collateral serves until {}", verdict.at, verdict.valid_until),
    );
    platform_text(&mut out, &verdict.platform);
    enclave_text(&mut out, &verdict.enclave);
    out
}

pub(super) fn platform_text(out: &mut String, platform: &Platform) {
    let Platform { fmspc, pceid, cpusvn, pcesvn, .. } = platform;
    line(out, "platform", &format!("FMSPC {fmspc}, PCEID {pceid}, CPUSVN {cpusvn}, PCESVN {pcesvn}"));
}

pub(super) fn enclave_text(out: &mut String, enclave: &Enclave) {
    line(out, "MRENCLAVE", &enclave.mrenclave);
    line(out, "MRSIGNER", &enclave.mrsigner);
    let debug = if enclave.debug { ", DEBUG: everything in it is open to its host" } else { "" };
    let version = format!("{}, security version {}{debug}", enclave.isv_prod_id, enclave.isv_svn);
    line(out, "product", &version);
    line(out, "report data", &enclave.report_data);
}
