//! What is issued at a time.
//!
//! Certificates are valid for as long as a platform may live. Revocation lists, TCB info and
//! the QE identity are valid for thirty days and issued anew every fifteen, or when the books
//! change; so at any time there are some with at least fifteen days left, without a network
//! and without anybody's doing.

use crate::{Manufacturer, ManufacturerError};
use dcap::collateral::{QeSvn, QeTcbLevel, Signed, Tcb, TcbLevel};
use dcap::issue::{FMSPC_PREFIX, Issuer, certificate, crl, documents};
use dcap::key::PublicKey;
use dcap::pki::{Certificate, PckExtension, PckTcb, PlatformConfiguration, Role, SgxType, to_pem};
use dcap::time::Validity;
use dcap::{Collateral, TcbStatus, Time};
use platform::roots::SVN_FIRST;
use platform::{Advisory, CpuSvn};
use provisioning::{PCE_ID, PCE_SVN, QE_PRODUCT, QE_SVN};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// FMSPC of all platforms whose CPUSVN has one component, the first.
pub const FMSPC: [u8; 6] = {
    let [k, l, u, i] = FMSPC_PREFIX;
    [k, l, u, i, 0, 1]
};

/// Days for which a certificate is valid.
pub(crate) const LIFE: u32 = 30 * 365;
/// Days for which a revocation list or a document is valid.
const VALID: u32 = 30;
/// Days after which there is a new one.
const RENEWED: u64 = 15;
const DAY: u64 = 86_400;

/// Where a collateral service on the verifier's host has the root's revocation list, in DER,
/// as certificates say it.
pub const ROOT_CRL: &str = "https://localhost:8081/sgx/certification/v4/rootcacrl?encoding=der";
/// The same for the PCK CA's.
pub const PCK_CRL: &str = "https://localhost:8081/sgx/certification/v4/pckcrl?ca=platform&encoding=der";

/// What a platform is known by at a time.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The root: what somebody must be given, and believe, to verify the platform's quotes.
    pub root: Certificate,
    /// The certificate of the platform's PCK key of its security version.
    pub pck: Certificate,
    /// The chain of that certificate, as quotes carry it: PEM, the root last.
    pub chain: String,
    /// What verifiers need beside a quote.
    pub collateral: Collateral,
    /// When the collateral was issued, and until when it is valid.
    pub validity: Validity,
    /// The number of the set of TCB levels (tcbEvaluationDataNumber).
    pub evaluation_data_number: u32,
}

/// The books as they were at a time.
struct Books<'a> {
    advisories: Vec<&'a Advisory>,
    revoked: Vec<(CpuSvn, Time)>,
    /// When they were last changed.
    changed: Option<Time>,
}

/// The root's certificate.
pub(crate) fn root(maker: &Manufacturer) -> Result<Certificate, ManufacturerError> {
    let key = &maker.keys.root;
    let request = request(maker, Role::Root, key.public(), 0)?;
    Ok(certificate::issue_root(&request, key)?)
}

/// The PCK CA's certificate.
fn pck_ca(maker: &Manufacturer, root: &Certificate) -> Result<Certificate, ManufacturerError> {
    let by_root = Issuer { key: &maker.keys.root, certificate: root };
    Ok(certificate::issue(&request(maker, Role::PckCa, maker.keys.pck_ca.public(), 0)?, by_root)?)
}

/// The PCK certificate of a security version that the platform has or had.
pub(crate) fn pck(maker: &Manufacturer, svn: CpuSvn) -> Result<Certificate, ManufacturerError> {
    let pck_ca = pck_ca(maker, &root(maker)?)?;
    let by_ca = Issuer { key: &maker.keys.pck_ca, certificate: &pck_ca };
    let platform = platform(maker, svn);
    let request = request(maker, Role::Pck, maker.pck_key(svn).public(), svn.svn())?;
    Ok(certificate::issue(&certificate::Request { platform: Some(&platform), ..request }, by_ca)?)
}

/// All that is issued at a time.
pub(crate) fn issued(maker: &Manufacturer, at: Time) -> Result<Issued, ManufacturerError> {
    let keys = &maker.keys;
    let root = root(maker)?;
    let by_root = Issuer { key: &keys.root, certificate: &root };
    let pck_ca = pck_ca(maker, &root)?;
    let by_ca = Issuer { key: &keys.pck_ca, certificate: &pck_ca };
    let tcb = certificate::issue(&request(maker, Role::TcbSigning, keys.tcb.public(), 0)?, by_root)?;
    let pck = pck(maker, maker.roots.fused().cpusvn())?;

    let books = Books::at(maker, at)?;
    let validity = window(maker, &books, at)?;
    let serial = |(svn, since): &(CpuSvn, Time)| (serial(maker, Role::Pck, svn.svn()).to_vec(), *since);
    // the number grows with the time of issue
    let list = |revoked| crl::Request { validity, number: validity.from.unix(), revoked };
    let root_ca_crl = crl::issue(&list(Vec::new()), by_root)?;
    let pck_crl = crl::issue(&list(books.revoked.iter().map(serial).collect()), by_ca)?;

    let levels = tcb_levels(maker, &books)?;
    let number = 1 + books.advisories.len() as u32;
    let tcb_info = documents::tcb_info(FMSPC, PCE_ID, validity, number, levels);
    let tcb_info = Signed::sign(&tcb_info, &keys.tcb)?;
    let qe_level = QeTcbLevel {
        tcb: QeSvn { isvsvn: QE_SVN },
        tcb_date: made(maker)?,
        tcb_status: TcbStatus::UpToDate,
        advisory_ids: Vec::new(),
    };
    let identity = documents::qe_identity(maker.mrsigner, QE_PRODUCT, validity, number, vec![qe_level]);
    let qe_identity = Signed::sign(&identity, &keys.tcb)?;

    let chain = to_pem([pck.der(), pck_ca.der(), root.der()]);
    let signer_chain = to_pem([tcb.der(), root.der()]);
    let collateral = Collateral {
        pck_crl_issuer_chain: to_pem([pck_ca.der(), root.der()]),
        root_ca_crl,
        pck_crl,
        tcb_info_issuer_chain: signer_chain.clone(),
        tcb_info: tcb_info.text,
        tcb_info_signature: tcb_info.signature,
        qe_identity_issuer_chain: signer_chain,
        qe_identity: qe_identity.text,
        qe_identity_signature: qe_identity.signature,
        pck_certificate_chain: None,
    };
    Ok(Issued { root, pck, chain, collateral, validity, evaluation_data_number: number })
}

/// When the platform was made, less a day, for the verifiers whose clock is late.
pub(crate) fn made(maker: &Manufacturer) -> Result<Time, ManufacturerError> {
    Time::from_unix(maker.roots.created.saturating_sub(DAY)).ok_or(ManufacturerError::Date)
}

pub(crate) fn plus_days(time: Time, days: u32) -> Result<Time, ManufacturerError> {
    time.plus_days(days).ok_or(ManufacturerError::Date)
}

fn request(
    maker: &Manufacturer,
    role: Role,
    key: PublicKey,
    svn: u8,
) -> Result<certificate::Request<'static>, ManufacturerError> {
    Ok(certificate::Request {
        role,
        serial: serial(maker, role, svn),
        validity: maker.life()?,
        key,
        crl_url: if role == Role::Pck { PCK_CRL } else { ROOT_CRL },
        platform: None,
    })
}

/// A serial number of its own for each certificate: the platform's public identity says
/// nothing secret, and the same certificate has the same number whenever it is issued.
fn serial(maker: &Manufacturer, role: Role, svn: u8) -> [u8; 16] {
    let hash = Sha256::new()
        .chain_update(b"kluis serial number")
        .chain_update(maker.roots.platform_id)
        .chain_update([svn])
        .chain_update(role.to_string());
    let mut serial = [0; 16];
    serial.copy_from_slice(&hash.finalize()[..16]);
    // positive, and of sixteen bytes
    serial[0] = serial[0] & 0x3f | 0x40;
    serial
}

/// The platform at a security version.
fn platform(maker: &Manufacturer, svn: CpuSvn) -> PckExtension {
    let cpusvn = svn.to_bytes();
    PckExtension {
        ppid: maker.ppid(),
        tcb: PckTcb { components: cpusvn, pcesvn: PCE_SVN, cpusvn },
        pceid: PCE_ID,
        fmspc: FMSPC,
        sgx_type: SgxType::Standard,
        platform: Some(PlatformConfiguration {
            instance_id: maker.roots.platform_id,
            dynamic_platform: false,
            cached_keys: false,
            smt_enabled: false,
        }),
    }
}

impl<'a> Books<'a> {
    fn at(maker: &'a Manufacturer, at: Time) -> Result<Self, ManufacturerError> {
        let books = &maker.roots.books;
        let time = |seconds| Time::from_unix(seconds).ok_or(ManufacturerError::Date);
        let mut changes = BTreeSet::new();
        let mut advisories = Vec::new();
        for advisory in &books.advisories {
            if advisory.published <= at.unix() {
                changes.insert(time(advisory.published)?);
                advisories.push(advisory);
            }
        }
        let mut revoked = Vec::new();
        for revocation in &books.revoked {
            if revocation.since <= at.unix()
                && let Some(svn) = CpuSvn::new(revocation.svn)
            {
                let since = time(revocation.since)?;
                changes.insert(since);
                revoked.push((svn, since));
            }
        }
        Ok(Self { advisories, revoked, changed: changes.pop_last() })
    }

    /// What is known of a security version: the advisories that later ones mend.
    fn concerning(&self, svn: u8) -> Vec<String> {
        let open = self.advisories.iter().filter(|advisory| advisory.fixed_in > svn);
        open.map(|advisory| advisory.id.clone()).collect()
    }
}

/// From when to when what is issued at a time is valid.
fn window(maker: &Manufacturer, books: &Books<'_>, at: Time) -> Result<Validity, ManufacturerError> {
    let start = made(maker)?.unix();
    let renewals = at.unix().saturating_sub(start) / (RENEWED * DAY);
    let from = Time::from_unix(start + renewals * RENEWED * DAY).ok_or(ManufacturerError::Date)?;
    let from = books.changed.map_or(from, |changed| from.max(changed));
    Ok(Validity { from, until: plus_days(from, VALID)? })
}

/// A level for the first security version, and one for each that mends something.
fn tcb_levels(maker: &Manufacturer, books: &Books<'_>) -> Result<Vec<TcbLevel>, ManufacturerError> {
    let mut versions: BTreeSet<u8> = books.advisories.iter().map(|advisory| advisory.fixed_in).collect();
    versions.insert(SVN_FIRST);
    let level = |svn: u8| {
        let mended = books.advisories.iter().filter(|advisory| advisory.fixed_in == svn);
        let date = mended.map(|advisory| advisory.published).max();
        let advisory_ids = books.concerning(svn);
        Ok(TcbLevel {
            tcb: Tcb::new(CpuSvn::new(svn).map_or([0; 16], CpuSvn::to_bytes), PCE_SVN),
            tcb_date: date
                .map_or_else(|| made(maker), |date| Time::from_unix(date).ok_or(ManufacturerError::Date))?,
            tcb_status: if advisory_ids.is_empty() { TcbStatus::UpToDate } else { TcbStatus::OutOfDate },
            advisory_ids,
        })
    };
    versions.into_iter().rev().map(level).collect()
}
