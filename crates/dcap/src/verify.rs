//! Is this quote genuine, and what does it say? From a root and a time that the caller
//! chooses to a [`Verdict`].
//!
//! First collateral, which many quotes share, becomes [`Trusted`]; then each quote is
//! verified with three signatures more.

use sgx_abi::ReportBody;
use zerocopy::IntoBytes;

use crate::collateral::{Collateral, QeIdentity, TcbInfo, TcbLevel, TcbStatus};
use crate::error::{Refusal, Rule, refuse};
use crate::hex::encode;
use crate::pki::{Certificate, Crl, PckAuthority, PckExtension, Role, Root, certificates_from_pem};
use crate::quote::{AUTH_DATA_SIZE, Authentication, Body, CertificationData, Quote, qe_report_data};
use crate::time::{Time, Validity};

/// Collateral that was verified down to a root, at a time.
#[derive(Clone, Debug)]
pub struct Trusted {
    root: Root,
    at: Time,
    root_crl: Crl,
    pck_ca: Certificate,
    pck_crl: Crl,
    tcb_info: TcbInfo,
    qe_identity: QeIdentity,
    pck_chain: Option<String>,
    valid_until: Time,
}

/// What a genuine quote says. It is for a [`Policy`](crate::policy::Policy) to like it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The enclave's report.
    pub report: ReportBody,
    /// The quoting enclave's report.
    pub qe_report: ReportBody,
    /// The platform's identity and TCB, from its PCK certificate.
    pub platform: PckExtension,
    /// Which PCK CA issued that.
    pub authority: PckAuthority,
    /// What the TCB is worth.
    pub tcb: TcbVerdict,
    /// The common name of the root's subject.
    pub root: String,
    /// True unless the root is Intel's: nothing but the owner's word stands between the
    /// owner and the enclaves.
    pub software_platform: bool,
    /// The time of verification.
    pub at: Time,
    /// The last second at which the same collateral verifies.
    pub valid_until: Time,
}

/// What a TCB is worth, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcbVerdict {
    /// Of platform and quoting enclave together.
    pub status: TcbStatus,
    /// Advisories of both, without repetition.
    pub advisory_ids: Vec<String>,
    /// Of the platform alone.
    pub platform: LevelVerdict,
    /// Of the quoting enclave alone.
    pub qe: LevelVerdict,
    /// The lower of the numbers of TCB info and QE identity.
    pub evaluation_data_number: u32,
}

/// The level that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelVerdict {
    /// What it is worth.
    pub status: TcbStatus,
    /// When its mitigations were published.
    pub date: Time,
    /// Advisories that concern it.
    pub advisory_ids: Vec<String>,
}

/// Verifies one quote. For many with the same collateral, keep a [`Trusted`].
pub fn verify(quote: &[u8], collateral: &Collateral, root: &Root, at: Time) -> Result<Verdict, Refusal> {
    let quote = Quote::parse(quote)?;
    Trusted::new(collateral, root, at)?.verify(&quote)
}

impl Trusted {
    /// Verifies all collateral: certificates and revocation lists from the root down, then
    /// the two signed documents.
    pub fn new(collateral: &Collateral, root: &Root, at: Time) -> Result<Self, Refusal> {
        let below = |chain: &str, what| below_root(chain.as_bytes(), root, what).map(|[der]: [_; 1]| der);
        let pck_ca = below(&collateral.pck_crl_issuer_chain, "PCK CRL issuer chain")?;
        let tcb_signer = below(&collateral.tcb_info_issuer_chain, "TCB info issuer chain")?;
        let qe_signer = below(&collateral.qe_identity_issuer_chain, "QE identity issuer chain")?;

        root.certificate().check_validity(at)?;
        let root_crl = Crl::parse(Role::Root, &collateral.root_ca_crl)?;
        root_crl.check_issued_by(root.certificate(), at)?;
        root_crl.check_not_revoked(root.certificate())?;

        let issued = |role, der: &[u8]| issued_by_root(role, der, root, &root_crl, at);
        let pck_ca = issued(Role::PckCa, &pck_ca)?;
        let pck_crl = Crl::parse(Role::PckCa, &collateral.pck_crl)?;
        pck_crl.check_issued_by(&pck_ca, at)?;

        let tcb_signer = issued(Role::TcbSigning, &tcb_signer)?;
        let qe_signer = match qe_signer == tcb_signer.der() {
            true => tcb_signer.clone(),
            false => issued(Role::TcbSigning, &qe_signer)?,
        };
        let mut tcb_info: TcbInfo = collateral.signed_tcb_info().verify(tcb_signer.key(), "TCB info")?;
        tcb_info.check(at)?;
        let qe_identity: QeIdentity =
            collateral.signed_qe_identity().verify(qe_signer.key(), "QE identity")?;
        qe_identity.check(at)?;

        let windows: [Validity; 8] = [
            root.certificate().validity(),
            root_crl.validity(),
            pck_ca.validity(),
            pck_crl.validity(),
            tcb_signer.validity(),
            tcb_info.validity(),
            qe_signer.validity(),
            qe_identity.validity(),
        ];
        let valid_until = windows.iter().map(|window| window.until).min().unwrap_or(at);
        let pck_chain = collateral.pck_certificate_chain.clone();
        let root = root.clone();
        Ok(Self { root, at, root_crl, pck_ca, pck_crl, tcb_info, qe_identity, pck_chain, valid_until })
    }

    /// Verifies a quote: the PCK certificate's chain, the quoting enclave's report and
    /// identity, the quote itself, and the platform's TCB.
    pub fn verify(&self, quote: &Quote) -> Result<Verdict, Refusal> {
        quote.header.check(quote.body.name())?;
        let Body::Enclave(report) = &quote.body else {
            return refuse(Rule::TeeType, "quote: body", "is no enclave's");
        };
        let authentication = &quote.authentication;
        let pck = self.pck(&authentication.certification)?;
        let platform = self.platform(&pck, &authentication.certification)?;

        verify_qe(&pck, authentication)?;
        let qe = self.qe_identity.level(&authentication.qe_report)?;
        if !authentication.attestation_key.signed(&quote.signed_bytes(), &authentication.signature) {
            let says = "is not by the attestation key over header and report";
            return refuse(Rule::QuoteSignature, "quote: signature", says);
        }
        let level = self.level(&platform)?;

        let mut advisory_ids = level.advisory_ids.clone();
        let more = qe.advisory_ids.iter().filter(|id| !level.advisory_ids.contains(id));
        advisory_ids.extend(more.cloned());
        let numbers = [self.tcb_info.tcb_evaluation_data_number, self.qe_identity.tcb_evaluation_data_number];
        Ok(Verdict {
            report: **report,
            qe_report: *authentication.qe_report,
            platform,
            authority: self.pck_ca.pck_authority(),
            tcb: TcbVerdict {
                status: level.tcb_status.with_enclave(qe.tcb_status),
                advisory_ids,
                platform: LevelVerdict {
                    status: level.tcb_status,
                    date: level.tcb_date,
                    advisory_ids: level.advisory_ids.clone(),
                },
                qe: LevelVerdict {
                    status: qe.tcb_status,
                    date: qe.tcb_date,
                    advisory_ids: qe.advisory_ids.clone(),
                },
                evaluation_data_number: numbers[0].min(numbers[1]),
            },
            root: self.root.certificate().common_name().to_owned(),
            software_platform: !self.root.is_intel(),
            at: self.at,
            valid_until: self.valid_until.min(pck.validity().until),
        })
    }

    /// The last second at which this collateral verifies.
    pub fn valid_until(&self) -> Time {
        self.valid_until
    }

    /// The platform's certificate: from the quote, or else from the collateral.
    fn pck(&self, certification: &CertificationData) -> Result<Certificate, Refusal> {
        const CHAIN: &str = "PCK certificate chain";
        let from_collateral = || match &self.pck_chain {
            Some(chain) => below_root(chain.as_bytes(), &self.root, CHAIN),
            None => {
                let says = format!("has no PCK chain (type {}); the collateral must", certification.kind());
                refuse(Rule::CertificationData, "quote: certification data", says)
            }
        };
        let [leaf, ca] = match certification {
            CertificationData::PckChain(chain) => below_root(chain, &self.root, CHAIN)?,
            CertificationData::PckLeaf(pem) => {
                let [leaf, ca] = from_collateral()?;
                if certificates_from_pem(pem, "certification data")? != [leaf.clone()] {
                    let says = "is not the PCK certificate of the collateral's chain";
                    return refuse(Rule::CertificationMismatch, "quote: certification data", says);
                }
                [leaf, ca]
            }
            CertificationData::PlatformManifest(_) => {
                let says = "is a platform manifest (type 7), which leads to no PCK certificate without Intel";
                return refuse(Rule::CertificationData, "quote: certification data", says);
            }
            _ => from_collateral()?,
        };
        let leaf = Certificate::parse(Role::Pck, &leaf)?;
        if ca == self.pck_ca.der() {
            leaf.check_issued_by(&self.pck_ca, self.at)?;
        } else {
            // renewed, or another one
            let ca = issued_by_root(Role::PckCa, &ca, &self.root, &self.root_crl, self.at)?;
            leaf.check_issued_by(&ca, self.at)?;
            if ca.subject() != self.pck_ca.subject() || ca.key() != self.pck_ca.key() {
                let (is, of) = (ca.common_name(), self.pck_ca.common_name());
                let says = format!("is of \"{of}\"; the PCK certificate is issued by \"{is}\"");
                return refuse(Rule::CrlIssuer, "PCK CRL: issuer", says);
            }
        }
        self.pck_crl.check_not_revoked(&leaf)?;
        Ok(leaf)
    }

    /// What the PCK certificate says of the platform, and nothing else says otherwise.
    fn platform(
        &self,
        pck: &Certificate,
        certification: &CertificationData,
    ) -> Result<PckExtension, Refusal> {
        let platform = pck.pck_extension()?;
        let field = "PCK certificate: SGX extension";
        let of_platform_ca = self.pck_ca.pck_authority() == PckAuthority::Platform;
        if platform.platform.is_some() != of_platform_ca {
            let says = match of_platform_ca {
                true => "has 5 elements; the Platform CA writes 7",
                false => "has 7 elements; the Processor CA writes 5",
            };
            return refuse(Rule::SgxExtension, field, says);
        }
        if platform.tcb.components != platform.tcb.cpusvn {
            let says = "has TCB components that are not the bytes of its CPUSVN";
            return refuse(Rule::SgxTcb, field, says);
        }
        let ppid_differs =
            matches!(certification, CertificationData::Ppid(ppid, _) if *ppid != platform.ppid);
        let tcb_differs = certification.raw_tcb().is_some_and(|raw| {
            let tcb = &platform.tcb;
            (raw.cpusvn, raw.pcesvn, raw.pceid) != (tcb.cpusvn, tcb.pcesvn, platform.pceid)
        });
        if ppid_differs || tcb_differs {
            let says = "names another platform or TCB than the PCK certificate";
            return refuse(Rule::CertificationMismatch, "quote: certification data", says);
        }
        Ok(platform)
    }

    /// The level of TCB info that the platform meets.
    fn level(&self, platform: &PckExtension) -> Result<&TcbLevel, Refusal> {
        let mismatch = |rule, name: &str, is: &[u8], of: &[u8]| {
            let says = format!("is {}; the PCK certificate has {}", encode(is), encode(of));
            refuse(rule, format!("TCB info: {name}"), says)
        };
        if self.tcb_info.fmspc != platform.fmspc {
            return mismatch(Rule::FmspcMismatch, "fmspc", &self.tcb_info.fmspc, &platform.fmspc);
        }
        if self.tcb_info.pce_id != platform.pceid {
            return mismatch(Rule::PceIdMismatch, "pceId", &self.tcb_info.pce_id, &platform.pceid);
        }
        self.tcb_info.level(&platform.tcb)
    }
}

/// The certificates of a chain but the last, which must be the root.
fn below_root<const N: usize>(chain: &[u8], root: &Root, what: &str) -> Result<[Vec<u8>; N], Refusal> {
    let mut certificates = certificates_from_pem(chain, what)?;
    let count = certificates.len();
    match certificates.pop() {
        Some(last) if count == N + 1 => {
            root.check_same(&last, what)?;
            Ok(certificates.try_into().expect("counted"))
        }
        _ => refuse(Rule::ChainLength, what, format!("has {count} certificates; {} are wanted", N + 1)),
    }
}

/// A certificate that the root issued and did not revoke.
fn issued_by_root(
    role: Role,
    der: &[u8],
    root: &Root,
    root_crl: &Crl,
    at: Time,
) -> Result<Certificate, Refusal> {
    let certificate = Certificate::parse(role, der)?;
    certificate.check_issued_by(root.certificate(), at)?;
    root_crl.check_not_revoked(&certificate)?;
    Ok(certificate)
}

/// The quoting enclave's report is by the platform, and binds the attestation key.
fn verify_qe(pck: &Certificate, authentication: &Authentication) -> Result<(), Refusal> {
    let report = &authentication.qe_report;
    if !pck.key().signed(report.as_bytes(), &authentication.qe_report_signature) {
        return refuse(Rule::QeReportSignature, "quote: QE report signature", "is not by the PCK key");
    }
    let auth_data = &authentication.qe_auth_data;
    if auth_data.len() != AUTH_DATA_SIZE {
        let says = format!("have {} bytes, not {AUTH_DATA_SIZE}", auth_data.len());
        return refuse(Rule::AuthDataLength, "quote: QE authentication data", says);
    }
    if report.reportdata != qe_report_data(&authentication.attestation_key, auth_data) {
        let says = "is not the SHA-256 of attestation key and authentication data, followed by zeros";
        return refuse(Rule::QeBinding, "QE report: REPORTDATA", says);
    }
    Ok(())
}
