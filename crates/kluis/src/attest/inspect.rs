//! `kluis attest inspect`: what a quote says, whoever made it.

use super::read;
use super::report::{Enclave, Platform, enclave_text, line, platform_text};
use super::verify::refused;
use crate::exit::{self, Error};
use dcap::Quote;
use dcap::hex::encode;
use dcap::pki::{Certificate, Role, certificates_from_pem};
use dcap::quote::{Body, CertificationData, MAX_QUOTE_SIZE, TdReport, TeeType};
use serde::Serialize;
use std::path::Path;

/// What is told. Nothing of it is verified.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    verified: bool,
    version: u16,
    tee: &'static str,
    attestation_key_type: u16,
    qe_svn: u16,
    pce_svn: u16,
    qe_vendor: String,
    user_data: String,
    /// Enclave, or which form of trust domain.
    body: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Enclave>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_domain: Option<TrustDomain>,
    quoting_enclave: Enclave,
    attestation_key: String,
    certification_data: u16,
    /// The certificates in it, in order.
    certificates: Vec<CertificateReport>,
    /// What the first of them says of the platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
struct TrustDomain {
    mrtd: String,
    mrseam: String,
    attributes: String,
    xfam: String,
    tee_tcb_svn: String,
    rtmr: [String; 4],
    report_data: String,
}

#[derive(Serialize)]
struct CertificateReport {
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<String>,
    /// Why it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
}

/// Does what was asked.
///
/// # Errors
/// The file cannot be read, or is no quote.
pub(super) fn main(file: &Path, json: bool) -> Result<u8, Error> {
    let quote = Quote::parse(&read(file, MAX_QUOTE_SIZE)?).map_err(|refusal| refused(file, &refusal))?;
    let report = Report::of(file, &quote);
    if json {
        crate::print_json(&report)?
    } else {
        crate::print(&text(&report))?
    }
    Ok(exit::OK)
}

impl<'a> Report<'a> {
    fn of(file: &'a Path, quote: &Quote) -> Self {
        let (header, authentication) = (&quote.header, &quote.authentication);
        let chain = match &authentication.certification {
            CertificationData::PckChain(pem) | CertificationData::PckLeaf(pem) => {
                certificates_from_pem(pem, "certification data").unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let roles = [Role::Pck, Role::PckCa, Role::Root];
        let read: Vec<_> =
            roles.iter().zip(&chain).map(|(role, der)| (*role, Certificate::parse(*role, der))).collect();
        let platform = read.first().and_then(|(_, pck)| pck.as_ref().ok()?.pck_extension().ok());
        let (report, trust_domain) = match &quote.body {
            Body::Enclave(report) => (Some(Enclave::of(report)), None),
            Body::TrustDomain(report) => (None, Some(TrustDomain::of(report))),
        };
        Self {
            file,
            verified: false,
            version: header.version,
            tee: match header.tee_type {
                TeeType::Sgx => "SGX",
                TeeType::Tdx => "TDX",
            },
            attestation_key_type: header.attestation_key_type,
            qe_svn: header.qe_svn,
            pce_svn: header.pce_svn,
            qe_vendor: encode(&header.qe_vendor),
            user_data: encode(&header.user_data),
            body: quote.body.name(),
            report,
            trust_domain,
            quoting_enclave: Enclave::of(&authentication.qe_report),
            attestation_key: encode(&authentication.attestation_key.0),
            certification_data: authentication.certification.kind(),
            certificates: read.iter().map(|(role, read)| CertificateReport::of(*role, read)).collect(),
            platform: platform.as_ref().map(Platform::of),
        }
    }
}

impl TrustDomain {
    fn of(report: &TdReport) -> Self {
        Self {
            mrtd: encode(&report.mrtd),
            mrseam: encode(&report.mrseam),
            attributes: encode(&report.td_attributes),
            xfam: encode(&report.xfam),
            tee_tcb_svn: encode(&report.tee_tcb_svn),
            rtmr: report.rtmr.each_ref().map(|register| encode(register)),
            report_data: encode(&report.reportdata),
        }
    }
}

impl CertificateReport {
    fn of(role: Role, read: &Result<Certificate, dcap::Refusal>) -> Self {
        let certificate = read.as_ref().ok();
        Self {
            role: role.to_string(),
            subject: certificate.map(|it| it.common_name().to_owned()),
            not_before: certificate.map(|it| it.validity().from.to_string()),
            not_after: certificate.map(|it| it.validity().until.to_string()),
            refusal: read.as_ref().err().map(dcap::Refusal::to_string),
        }
    }
}

fn text(report: &Report<'_>) -> String {
    let mut out = format!("{}: not verified\n", report.file.display());
    line(&mut out, "quote", &format!("version {}, {}: {}", report.version, report.tee, report.body));
    line(&mut out, "QE, PCE", &format!("security versions {} and {}", report.qe_svn, report.pce_svn));
    if let Some(enclave) = &report.report {
        enclave_text(&mut out, enclave);
    }
    if let Some(domain) = &report.trust_domain {
        line(&mut out, "MRTD", &domain.mrtd);
        line(&mut out, "MRSEAM", &domain.mrseam);
        for (number, register) in domain.rtmr.iter().enumerate() {
            line(&mut out, &format!("RTMR{number}"), register);
        }
        line(&mut out, "report data", &domain.report_data);
    }
    line(&mut out, "certified by", &format!("data of type {}", report.certification_data));
    for certificate in &report.certificates {
        match certificate {
            CertificateReport {
                subject: Some(subject),
                not_before: Some(from),
                not_after: Some(until),
                ..
            } => {
                line(&mut out, "", &format!("{subject:?}, from {from} to {until}"));
            }
            CertificateReport { refusal, .. } => line(&mut out, "", refusal.as_deref().unwrap_or_default()),
        }
    }
    if let Some(platform) = &report.platform {
        platform_text(&mut out, platform);
    }
    out
}
