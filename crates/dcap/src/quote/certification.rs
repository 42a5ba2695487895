//! Certification data: who vouches for the quoting enclave's report.

use std::borrow::Cow;

use crate::error::{Refusal, Rule, refuse};
use crate::reader::Reader;

/// The platform's TCB as types 1 to 3 give it, without a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTcb {
    /// CPUSVN of the PCK key.
    pub cpusvn: [u8; 16],
    /// ISVSVN of the provisioning-certification enclave.
    pub pcesvn: u16,
    /// Identifier of that enclave.
    pub pceid: [u8; 2],
}

/// Certification data of the types 1 to 5 and 7. Type 6 holds one of these in quotes of
/// version 4 and 5: [`Authentication`](super::Authentication).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificationData {
    /// 1: the platform's PPID in the clear.
    Ppid([u8; 16], RawTcb),
    /// 2: the PPID encrypted with RSA-2048-OAEP, for the PCK certificate's issuer.
    EncryptedPpid2048(Box<[u8; 256]>, RawTcb),
    /// 3: the PPID encrypted with RSA-3072-OAEP.
    EncryptedPpid3072(Box<[u8; 384]>, RawTcb),
    /// 4: the PCK certificate (PEM).
    PckLeaf(Vec<u8>),
    /// 5: the PCK certificate, its issuer's and the root's (PEM).
    PckChain(Vec<u8>),
    /// 7: a platform manifest, for the registration service.
    PlatformManifest(Vec<u8>),
}

impl CertificationData {
    /// Its number.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Ppid(..) => 1,
            Self::EncryptedPpid2048(..) => 2,
            Self::EncryptedPpid3072(..) => 3,
            Self::PckLeaf(_) => 4,
            Self::PckChain(_) => 5,
            Self::PlatformManifest(_) => 7,
        }
    }

    /// The platform's TCB, for those types that say it.
    pub fn raw_tcb(&self) -> Option<&RawTcb> {
        match self {
            Self::Ppid(_, tcb) | Self::EncryptedPpid2048(_, tcb) | Self::EncryptedPpid3072(_, tcb) => {
                Some(tcb)
            }
            _ => None,
        }
    }

    /// Reads type, size and data.
    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, Refusal> {
        let kind = from.u16("certification data type")?;
        let data = from.prefixed32("certification data")?;
        Self::of(kind, data)
    }

    pub(super) fn of(kind: u16, data: &[u8]) -> Result<Self, Refusal> {
        let mut from = Reader::new("certification data", data);
        let tcb = |from: &mut Reader<'_>| {
            Ok(RawTcb {
                cpusvn: from.array("CPUSVN")?,
                pcesvn: from.u16("PCESVN")?,
                pceid: from.array("PCEID")?,
            })
        };
        let read = match kind {
            1 => Self::Ppid(from.array("PPID")?, tcb(&mut from)?),
            2 => Self::EncryptedPpid2048(Box::new(from.array("encrypted PPID")?), tcb(&mut from)?),
            3 => Self::EncryptedPpid3072(Box::new(from.array("encrypted PPID")?), tcb(&mut from)?),
            4 => return Ok(Self::PckLeaf(data.to_vec())),
            5 => return Ok(Self::PckChain(data.to_vec())),
            7 => return Ok(Self::PlatformManifest(data.to_vec())),
            6 => {
                let what = "is 6 (QE report), which stands only around another one, in versions 4 and 5";
                return refuse(Rule::CertificationData, "quote: certification data type", what);
            }
            _ => {
                let what = format!("is {kind}; 1 to 7 are known");
                return refuse(Rule::CertificationData, "quote: certification data type", what);
            }
        };
        from.end()?;
        Ok(read)
    }

    /// The data, without type and size.
    pub(super) fn data(&self) -> Cow<'_, [u8]> {
        let with_tcb = |ppid: &[u8], tcb: &RawTcb| {
            [ppid, &tcb.cpusvn, &tcb.pcesvn.to_le_bytes(), &tcb.pceid].concat().into()
        };
        match self {
            Self::Ppid(ppid, tcb) => with_tcb(ppid, tcb),
            Self::EncryptedPpid2048(ppid, tcb) => with_tcb(&ppid[..], tcb),
            Self::EncryptedPpid3072(ppid, tcb) => with_tcb(&ppid[..], tcb),
            Self::PckLeaf(data) | Self::PckChain(data) | Self::PlatformManifest(data) => data.into(),
        }
    }
}
