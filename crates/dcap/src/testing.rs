//! A platform that is its own manufacturer, with every object in its unsigned form: what a
//! test changes is signed again by the right key, so that one rule is broken and no other.

use der::Encode;
use sgx_abi::{AttributeFlags, Attributes, ReportBody};
use x509_cert::TbsCertificate;
use x509_cert::crl::TbsCertList;
use zerocopy::{FromBytes, IntoBytes};

use crate::collateral::{
    Collateral, QeIdentity, QeSvn, QeTcbLevel, Signed, Tcb, TcbInfo, TcbLevel, TcbStatus,
};
use crate::error::Refusal;
use crate::issue::{FMSPC_PREFIX, certificate, crl, documents, quote, sign};
use crate::key::PrivateKey;
use crate::pki::{Certificate, PckExtension, PckTcb, PlatformConfiguration, Role, Root, SgxType, to_pem};
use crate::quote::{Authentication, Body, CertificationData, Header, Quote, qe_report_data};
use crate::time::{Time, Validity};
use crate::verify::{Verdict, verify};

/// The keys, by what they sign.
#[derive(Debug)]
pub struct Keys {
    /// The root's.
    pub root: PrivateKey,
    /// The PCK CA's.
    pub pck_ca: PrivateKey,
    /// The PCK key.
    pub pck: PrivateKey,
    /// The TCB signer's.
    pub tcb: PrivateKey,
    /// The attestation key.
    pub attestation: PrivateKey,
    /// One that nobody trusts.
    pub stranger: PrivateKey,
}

/// The signed objects, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The root certificate.
    Root,
    /// The PCK CA certificate.
    PckCa,
    /// The PCK certificate.
    Pck,
    /// The TCB signing certificate.
    Tcb,
    /// The root's revocation list.
    RootCrl,
    /// The PCK CA's.
    PckCrl,
    /// TCB info.
    TcbInfo,
    /// The QE identity.
    QeIdentity,
    /// The enclave's report.
    Report,
    /// The quoting enclave's.
    QeReport,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Root,
        Self::PckCa,
        Self::Pck,
        Self::Tcb,
        Self::RootCrl,
        Self::PckCrl,
        Self::TcbInfo,
        Self::QeIdentity,
        Self::Report,
        Self::QeReport,
    ];
}

/// One of the keys.
pub type Signer = fn(&Keys) -> &PrivateKey;

/// Which key signs what: by default the right one.
#[derive(Debug)]
pub struct SignedBy {
    /// The PCK CA certificate.
    pub pck_ca: Signer,
    /// The PCK certificate.
    pub pck: Signer,
    /// The TCB signing certificate.
    pub tcb: Signer,
    /// The root's revocation list.
    pub root_crl: Signer,
    /// The PCK CA's revocation list.
    pub pck_crl: Signer,
    /// TCB info.
    pub tcb_info: Signer,
    /// The QE identity.
    pub qe_identity: Signer,
    /// The quoting enclave's report.
    pub qe_report: Signer,
    /// The quote.
    pub quote: Signer,
}

/// Everything that is signed, and may be changed before it is.
#[derive(Debug)]
pub struct Parts {
    /// When it is verified.
    pub at: Time,
    /// The keys.
    pub keys: Keys,
    /// Which of them signs what.
    pub signed_by: SignedBy,
    /// The root certificate, signed by the root.
    pub root: TbsCertificate,
    /// The PCK CA's, signed by the root.
    pub pck_ca: TbsCertificate,
    /// The PCK certificate, signed by the PCK CA.
    pub pck: TbsCertificate,
    /// The TCB signing certificate, signed by the root.
    pub tcb: TbsCertificate,
    /// The root's revocation list.
    pub root_crl: TbsCertList,
    /// The PCK CA's.
    pub pck_crl: TbsCertList,
    /// TCB info, signed by the TCB signer.
    pub tcb_info: TcbInfo,
    /// A change to its text before it is signed.
    pub tcb_info_text: fn(String) -> String,
    /// The QE identity, signed by the TCB signer.
    pub qe_identity: QeIdentity,
    /// A change to its text before it is signed.
    pub qe_identity_text: fn(String) -> String,
    /// The quote's header, signed by the attestation key.
    pub header: Header,
    /// The enclave's report, signed with it.
    pub report: ReportBody,
    /// The quoting enclave's, signed by the PCK key.
    pub qe_report: ReportBody,
    /// Whether its REPORTDATA are those that bind the attestation key.
    pub qe_binds: bool,
    /// The quoting enclave's authentication data.
    pub qe_auth_data: Vec<u8>,
    /// The certification data; by default the chain.
    pub certification: Option<CertificationData>,
    /// The chain in the collateral, or not.
    pub chain_in_collateral: bool,
}

/// The signed objects.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// When it is verified.
    pub at: Time,
    /// The quote.
    pub quote: Vec<u8>,
    /// The collateral.
    pub collateral: Collateral,
    /// The root, in DER.
    pub root: Vec<u8>,
}

impl Bundle {
    /// Verifies it under its own root.
    pub fn verify(&self) -> Result<Verdict, Refusal> {
        verify(&self.quote, &self.collateral, &Root::from_der(&self.root)?, self.at)
    }
}

fn der(value: &impl Encode) -> Vec<u8> {
    value.to_der().expect("all of it can be encoded")
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::from_bytes(&[seed; 32]).expect("small")
}

/// A time of the test platform: so many days from 2026 on.
pub fn day(n: u32) -> Time {
    Time::from_unix(1_767_225_600).and_then(|start| start.plus_days(n)).expect("before 10000")
}

/// Valid from the start of 2026 for so many days.
pub fn days(n: u32) -> Validity {
    Validity { from: day(0), until: day(n) }
}

/// The platform that the PCK certificate describes.
pub fn platform() -> PckExtension {
    let [k, l, u, i] = FMSPC_PREFIX;
    PckExtension {
        ppid: [0x11; 16],
        tcb: PckTcb { components: COMPONENTS, pcesvn: 3, cpusvn: COMPONENTS },
        pceid: [0, 0],
        fmspc: [k, l, u, i, 0, 1],
        sgx_type: SgxType::Standard,
        platform: Some(PlatformConfiguration {
            instance_id: [0x22; 16],
            dynamic_platform: false,
            cached_keys: false,
            smt_enabled: false,
        }),
    }
}

/// CPUSVN of the test platform; one component needs two bytes in DER.
const COMPONENTS: [u8; 16] = [5, 4, 255, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Security versions of the platform, of which the first may be lower.
pub fn components(first: u8) -> [u8; 16] {
    let mut components = COMPONENTS;
    components[0] = first;
    components
}

/// TCB levels: version 5 of the first component is up to date, others have what is said.
pub fn levels(lower: &[(u8, TcbStatus)]) -> Vec<TcbLevel> {
    let all = std::iter::once((5, TcbStatus::UpToDate)).chain(lower.iter().copied());
    let level = |(first, tcb_status)| TcbLevel {
        tcb: Tcb::new(components(first), 3),
        tcb_date: day(0),
        tcb_status,
        advisory_ids: match tcb_status {
            TcbStatus::UpToDate => Vec::new(),
            other => vec![format!("KLUIS-SA-{other}")],
        },
    };
    all.map(level).collect()
}

fn report(flags: AttributeFlags, mrsigner: u8) -> ReportBody {
    ReportBody {
        cpusvn: COMPONENTS,
        attributes: Attributes { flags: flags | AttributeFlags::INIT | AttributeFlags::MODE64BIT, xfrm: 3 },
        mrenclave: [0x33; 32],
        mrsigner: [mrsigner; 32],
        isvprodid: 1,
        isvsvn: 2,
        reportdata: [0x44; 64],
        ..ReportBody::default()
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self::new().expect("all of it can be encoded")
    }
}

impl Parts {
    fn new() -> Result<Self, Refusal> {
        let keys = Keys {
            root: private(1),
            pck_ca: private(2),
            pck: private(3),
            tcb: private(4),
            attestation: private(5),
            stranger: private(6),
        };
        let platform = platform();
        let request = |role, serial, years: u32, key: &PrivateKey| certificate::Request {
            role,
            serial: [serial; 16],
            validity: days(365 * years),
            key: key.public(),
            crl_url: "https://kluis.invalid/crl",
            platform: (role == Role::Pck).then_some(&platform),
        };
        let root_request = request(Role::Root, 1, 20, &keys.root);
        let root = certificate::issue_root(&root_request, &keys.root)?;
        let ca_request = request(Role::PckCa, 2, 15, &keys.pck_ca);
        let pck_ca = Certificate::parse(
            Role::PckCa,
            &sign(&der(&certificate::unsigned(&ca_request, Some(&root))?), &keys.root)?,
        )?;
        let list = |days| crl::Request { validity: days, number: 1, revoked: Vec::new() };
        let month = days(30);
        let status = QeTcbLevel {
            tcb: QeSvn { isvsvn: 2 },
            tcb_date: day(0),
            tcb_status: TcbStatus::UpToDate,
            advisory_ids: Vec::new(),
        };
        Ok(Self {
            at: day(10),
            signed_by: SignedBy {
                pck_ca: |keys| &keys.root,
                pck: |keys| &keys.pck_ca,
                tcb: |keys| &keys.root,
                root_crl: |keys| &keys.root,
                pck_crl: |keys| &keys.pck_ca,
                tcb_info: |keys| &keys.tcb,
                qe_identity: |keys| &keys.tcb,
                qe_report: |keys| &keys.pck,
                quote: |keys| &keys.attestation,
            },
            root: certificate::unsigned(&root_request, None)?,
            pck_ca: certificate::unsigned(&ca_request, Some(&root))?,
            pck: certificate::unsigned(&request(Role::Pck, 3, 7, &keys.pck), Some(&pck_ca))?,
            tcb: certificate::unsigned(&request(Role::TcbSigning, 4, 7, &keys.tcb), Some(&root))?,
            root_crl: crl::unsigned(&list(days(365)), &root)?,
            pck_crl: crl::unsigned(&list(month), &pck_ca)?,
            tcb_info: documents::tcb_info(platform.fmspc, platform.pceid, month, 7, levels(&[])),
            tcb_info_text: |text| text,
            qe_identity: documents::qe_identity([0x55; 32], 1, month, 8, vec![status]),
            qe_identity_text: |text| text,
            header: quote::header(2, 3, [0x66; 16]),
            report: report(AttributeFlags::empty(), 0x77),
            qe_report: report(AttributeFlags::PROVISIONKEY, 0x55),
            qe_binds: true,
            qe_auth_data: (0..32).collect(),
            certification: None,
            chain_in_collateral: false,
            keys,
        })
    }

    /// Gives the platform another PCK certificate.
    pub fn set_platform(&mut self, change: impl Fn(&mut PckExtension)) {
        let mut platform = platform();
        change(&mut platform);
        let der = platform.to_der().expect("encodes");
        let extensions = self.pck.extensions.as_mut().expect("has some");
        let last = extensions.last_mut().expect("the SGX extension");
        last.extn_value = der::asn1::OctetString::new(der).expect("short");
    }

    /// Signs everything.
    pub fn bundle(&self) -> Result<Bundle, Refusal> {
        self.bundle_with(&|_, _| ())
    }

    /// Signs everything, after a change to the bytes that are signed.
    pub fn bundle_with(&self, change: &dyn Fn(Object, &mut Vec<u8>)) -> Result<Bundle, Refusal> {
        let (keys, by) = (&self.keys, &self.signed_by);
        let changed = |object, mut bytes| {
            change(object, &mut bytes);
            bytes
        };
        let x509 = |object, der, by: Signer| sign(&changed(object, der), by(keys));
        let root = x509(Object::Root, der(&self.root), |keys| &keys.root)?;
        let pck_ca = x509(Object::PckCa, der(&self.pck_ca), by.pck_ca)?;
        let pck = x509(Object::Pck, der(&self.pck), by.pck)?;
        let tcb = x509(Object::Tcb, der(&self.tcb), by.tcb)?;
        let signed = |object, text: String, by: Signer| {
            // text that is none any more is replaced where it is none
            let text = String::from_utf8_lossy(&changed(object, text.into_bytes())).into_owned();
            (by(keys).sign(text.as_bytes()).to_vec(), text)
        };
        let tcb_info = (self.tcb_info_text)(Signed::sign(&self.tcb_info, &keys.tcb)?.text);
        let (tcb_info_signature, tcb_info) = signed(Object::TcbInfo, tcb_info, by.tcb_info);
        let qe_identity = (self.qe_identity_text)(Signed::sign(&self.qe_identity, &keys.tcb)?.text);
        let (qe_identity_signature, qe_identity) = signed(Object::QeIdentity, qe_identity, by.qe_identity);
        let list = |object, list: &TbsCertList, by: Signer| x509(object, der(list), by);
        let chain = to_pem([&pck[..], &pck_ca, &root]);
        let signer_chain = to_pem([&tcb[..], &root]);
        let collateral = Collateral {
            pck_crl_issuer_chain: to_pem([&pck_ca[..], &root]),
            root_ca_crl: list(Object::RootCrl, &self.root_crl, by.root_crl)?,
            pck_crl: list(Object::PckCrl, &self.pck_crl, by.pck_crl)?,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain: signer_chain,
            qe_identity,
            qe_identity_signature,
            pck_certificate_chain: self.chain_in_collateral.then(|| chain.clone()),
        };
        let chain = [chain.as_bytes(), &[0]].concat();
        let certification = self.certification.clone().unwrap_or(CertificationData::PckChain(chain));
        let report = |object, report: &ReportBody| -> ReportBody {
            let mut bytes = changed(object, report.as_bytes().to_vec());
            bytes.resize(ReportBody::SIZE, 0);
            ReportBody::read_from_bytes(&bytes).expect("of that length")
        };
        let (isv, qe) = (report(Object::Report, &self.report), report(Object::QeReport, &self.qe_report));
        let quote = self.quote(isv, qe, certification).to_bytes()?;
        Ok(Bundle { at: self.at, quote, collateral, root })
    }

    fn quote(
        &self,
        report: ReportBody,
        mut qe_report: ReportBody,
        certification: CertificationData,
    ) -> Quote {
        let attestation_key = self.keys.attestation.public();
        if self.qe_binds {
            qe_report.reportdata = qe_report_data(&attestation_key, &self.qe_auth_data);
        }
        let mut quote = Quote {
            header: self.header.clone(),
            body: Body::Enclave(Box::new(report)),
            authentication: Authentication {
                signature: [0; 64],
                attestation_key,
                qe_report_signature: (self.signed_by.qe_report)(&self.keys).sign(qe_report.as_bytes()),
                qe_report: Box::new(qe_report),
                qe_auth_data: self.qe_auth_data.clone(),
                certification,
            },
        };
        quote.authentication.signature = (self.signed_by.quote)(&self.keys).sign(&quote.signed_bytes());
        quote
    }
}
