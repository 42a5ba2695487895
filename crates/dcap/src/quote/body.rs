//! For whom a quote speaks: reports of enclaves and of trust domains.

use sgx_abi::ReportBody;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Refusal, Rule, refuse};
use crate::quote::header::{Header, TeeType};
use crate::reader::Reader;

/// What the attestation key signed after the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// An enclave's report, without its MAC.
    Enclave(Box<ReportBody>),
    /// A trust domain's report.
    TrustDomain(Box<TdReport>),
}

/// A report of an enclave from its 384 bytes.
pub(crate) fn report(bytes: [u8; ReportBody::SIZE]) -> ReportBody {
    ReportBody::read_from_bytes(&bytes).expect("any bytes of that length are a report")
}

impl Body {
    /// Reads the body of the header's version: versions 3 and 4 say by the TEE type which
    /// it is, version 5 by a type and a size of its own.
    pub(super) fn read(header: &Header, from: &mut Reader<'_>) -> Result<Self, Refusal> {
        let kind = match (header.version, header.tee_type) {
            (..=4, TeeType::Sgx) => 1,
            (..=4, TeeType::Tdx) => 2,
            _ => {
                let kind = from.u16("body type")?;
                let size = from.u32("body size")?;
                let Some(expected) = size_of(kind) else {
                    return refuse(Rule::TeeType, "quote: body type", format!("is {kind}; 1 to 4 are known"));
                };
                if size as usize != expected {
                    let what = format!("is {size}; a body of type {kind} has {expected} bytes");
                    return refuse(Rule::Encoding, "quote: body size", what);
                }
                if (kind == 1) != (header.tee_type == TeeType::Sgx) {
                    let what = format!("is {kind}, which is not one of the header's TEE type");
                    return refuse(Rule::TeeType, "quote: body type", what);
                }
                kind
            }
        };
        match kind {
            1 => Ok(Self::Enclave(Box::new(report(from.array("enclave report")?)))),
            _ => Ok(Self::TrustDomain(Box::new(TdReport::read(kind, from)?))),
        }
    }

    pub(super) fn write(&self, version: u16, to: &mut Vec<u8>) {
        let (kind, bytes) = match self {
            Self::Enclave(report) => (1, report.as_bytes().to_vec()),
            Self::TrustDomain(report) => (report.kind(), report.to_bytes()),
        };
        if version == 5 {
            to.extend(kind.to_le_bytes());
            to.extend((bytes.len() as u32).to_le_bytes());
        }
        to.extend(bytes);
    }

    /// What it is, in words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enclave(_) => "enclave",
            Self::TrustDomain(report) => match report.kind() {
                2 => "trust domain (TDX 1.0)",
                3 => "trust domain (TDX 1.5)",
                _ => "trust domain (TDX 1.5, extended)",
            },
        }
    }
}

/// Sizes of bodies by their type in version 5.
fn size_of(kind: u16) -> Option<usize> {
    Some(match kind {
        1 => ReportBody::SIZE,
        2 => TdReport::SIZE,
        3 => TdReport::SIZE + TdReport::SIZE_15,
        4 => TdReport::SIZE + TdReport::SIZE_15 + TdReport::SIZE_EXTENDED,
        _ => return None,
    })
}

/// A trust domain's report as quotes carry it: `sgx_report2_body_t`, with what TDX 1.5 and
/// its extended form add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TdReport {
    /// Security versions of the TDX module and more.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mrseam: [u8; 48],
    /// Signer of the TDX module; zero is Intel.
    pub mrsignerseam: [u8; 48],
    /// Attributes of the TDX module.
    pub seam_attributes: [u8; 8],
    /// Attributes of the trust domain; bit 0 is DEBUG.
    pub td_attributes: [u8; 8],
    /// Its extended features.
    pub xfam: [u8; 8],
    /// Its measurement.
    pub mrtd: [u8; 48],
    /// An identity of its configuration, of its owner's choice.
    pub mrconfigid: [u8; 48],
    /// Its owner.
    pub mrowner: [u8; 48],
    /// Its owner's configuration.
    pub mrownerconfig: [u8; 48],
    /// Measurements that it extends while it runs.
    pub rtmr: [[u8; 48]; 4],
    /// What it wants to say.
    pub reportdata: [u8; 64],
    /// TDX 1.5: the TCB after updates without a restart, and the hash of the bound service
    /// domains.
    pub td15: Option<([u8; 16], [u8; 48])>,
    /// The extended form of TDX 1.5: 237 bytes that are kept and not looked into.
    pub extended: Option<Vec<u8>>,
}

impl TdReport {
    /// Bytes of the first form.
    const SIZE: usize = 584;
    /// Bytes that TDX 1.5 adds.
    const SIZE_15: usize = 64;
    /// Bytes that the extended form adds to that.
    const SIZE_EXTENDED: usize = 237;

    fn read(kind: u16, from: &mut Reader<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            tee_tcb_svn: from.array("TEE_TCB_SVN")?,
            mrseam: from.array("MRSEAM")?,
            mrsignerseam: from.array("MRSIGNERSEAM")?,
            seam_attributes: from.array("SEAMATTRIBUTES")?,
            td_attributes: from.array("TDATTRIBUTES")?,
            xfam: from.array("XFAM")?,
            mrtd: from.array("MRTD")?,
            mrconfigid: from.array("MRCONFIGID")?,
            mrowner: from.array("MROWNER")?,
            mrownerconfig: from.array("MROWNERCONFIG")?,
            rtmr: [from.array("RTMR0")?, from.array("RTMR1")?, from.array("RTMR2")?, from.array("RTMR3")?],
            reportdata: from.array("REPORTDATA")?,
            td15: match kind >= 3 {
                true => Some((from.array("TEE_TCB_SVN2")?, from.array("MRSERVICETD")?)),
                false => None,
            },
            extended: match kind >= 4 {
                true => Some(from.bytes(Self::SIZE_EXTENDED, "extended report")?.to_vec()),
                false => None,
            },
        })
    }

    fn kind(&self) -> u16 {
        2 + u16::from(self.td15.is_some()) + u16::from(self.extended.is_some())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        let fields: [&[u8]; 12] = [
            &self.tee_tcb_svn,
            &self.mrseam,
            &self.mrsignerseam,
            &self.seam_attributes,
            &self.td_attributes,
            &self.xfam,
            &self.mrtd,
            &self.mrconfigid,
            &self.mrowner,
            &self.mrownerconfig,
            self.rtmr.as_flattened(),
            &self.reportdata,
        ];
        fields.iter().for_each(|field| bytes.extend(*field));
        if let Some((svn, service)) = &self.td15 {
            bytes.extend(svn);
            bytes.extend(service);
        }
        bytes.extend(self.extended.iter().flatten());
        bytes
    }
}
