//! The SGX extension of a PCK certificate: which platform, at which patch level.
//!
//! *PCK Certificate and CRL Profile Specification, §1.3.5*: a sequence of pairs of an object
//! identifier below 1.2.840.113741.1.13.1 and a value.

use der::asn1::{Any, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Sequence, Tag, Tagged};

use crate::error::{Refusal, Rule, refuse};

/// The extension's object identifier.
pub(crate) const SGX_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
/// Below it: 1 PPID, 2 TCB, 3 PCEID, 4 FMSPC, 5 type, 6 platform instance, 7 configuration.
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2");
const CONFIGURATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7");
const WHAT: &str = "PCK certificate: SGX extension";

/// How a platform protects enclaves' memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgxType {
    /// Encryption with an integrity tree.
    Standard = 0,
    /// Encryption.
    Scalable = 1,
    /// Encryption with integrity.
    ScalableWithIntegrity = 2,
}

/// The TCB that a PCK key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PckTcb {
    /// The components that TCB levels are compared with.
    pub components: [u8; 16],
    /// ISVSVN of the provisioning-certification enclave.
    pub pcesvn: u16,
    /// CPUSVN.
    pub cpusvn: [u8; 16],
}

/// What the Platform CA says beyond the Processor CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformConfiguration {
    /// Identifier of the platform as a whole.
    pub instance_id: [u8; 16],
    /// Packages may be added to the platform.
    pub dynamic_platform: bool,
    /// The registration service keeps the platform's keys.
    pub cached_keys: bool,
    /// Simultaneous multithreading is on.
    pub smt_enabled: bool,
}

/// The content of the extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PckExtension {
    /// Provisioning identifier of the platform.
    pub ppid: [u8; 16],
    /// Its TCB.
    pub tcb: PckTcb,
    /// Identifier of its provisioning-certification enclave.
    pub pceid: [u8; 2],
    /// Its family, model, stepping and SKU, as one opaque number.
    pub fmspc: [u8; 6],
    /// How it protects memory.
    pub sgx_type: SgxType,
    /// Written by the Platform CA, and by it alone.
    pub platform: Option<PlatformConfiguration>,
}

#[derive(Sequence)]
struct Element {
    id: ObjectIdentifier,
    value: Any,
}

/// The elements of one sequence, each of which is there once.
struct Elements {
    base: ObjectIdentifier,
    left: Vec<Element>,
}

impl Elements {
    fn read(base: ObjectIdentifier, der: &[u8]) -> Result<Self, Refusal> {
        match Vec::from_der(der) {
            Ok(left) => Ok(Self { base, left }),
            Err(error) => refuse(Rule::SgxExtension, WHAT, format!("is no sequence of pairs: {error}")),
        }
    }

    fn take<T>(&mut self, arc: u32, name: &str, read: impl Fn(&Any) -> Option<T>) -> Result<T, Refusal> {
        let field = format!("{WHAT}: {name}");
        let id = self.base.push_arc(arc).expect("short");
        let Some(at) = self.left.iter().position(|element| element.id == id) else {
            return refuse(Rule::SgxExtension, field, "is not there");
        };
        let element = self.left.remove(at);
        read(&element.value)
            .ok_or_else(|| Refusal::new(Rule::SgxExtension, field, "is not of its type and length"))
    }

    fn end(self) -> Result<(), Refusal> {
        match self.left.first() {
            Some(element) => {
                refuse(Rule::SgxExtension, WHAT, format!("has {} twice or for no reason", element.id))
            }
            None => Ok(()),
        }
    }
}

fn octets<const N: usize>(value: &Any) -> Option<[u8; N]> {
    value.decode_as::<OctetStringRef<'_>>().ok()?.as_bytes().try_into().ok()
}

fn sequence(value: &Any) -> Option<Vec<u8>> {
    if value.tag() != Tag::Sequence {
        return None;
    }
    value.to_der().ok()
}

impl PckExtension {
    /// Reads the extension's value.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        let mut all = Elements::read(SGX_EXTENSION, der)?;
        let ppid = all.take(1, "PPID", octets)?;
        let tcb = Self::read_tcb(&all.take(2, "TCB", sequence)?)?;
        let pceid = all.take(3, "PCEID", octets)?;
        let fmspc = all.take(4, "FMSPC", octets)?;
        let sgx_type = all.take(5, "SGX type", |value| match (value.tag(), value.value()) {
            (Tag::Enumerated, [0]) => Some(SgxType::Standard),
            (Tag::Enumerated, [1]) => Some(SgxType::Scalable),
            (Tag::Enumerated, [2]) => Some(SgxType::ScalableWithIntegrity),
            _ => None,
        })?;
        // the Processor CA writes five elements, the Platform CA seven
        let platform = match all.left.is_empty() {
            true => None,
            false => {
                let instance_id = all.take(6, "platform instance ID", octets)?;
                let mut flags = Elements::read(CONFIGURATION, &all.take(7, "configuration", sequence)?)?;
                let boolean = |value: &Any| value.decode_as::<bool>().ok();
                let platform = PlatformConfiguration {
                    instance_id,
                    dynamic_platform: flags.take(1, "dynamic platform", boolean)?,
                    cached_keys: flags.take(2, "cached keys", boolean)?,
                    smt_enabled: flags.take(3, "SMT enabled", boolean)?,
                };
                flags.end()?;
                Some(platform)
            }
        };
        all.end()?;
        Ok(Self { ppid, tcb, pceid, fmspc, sgx_type, platform })
    }

    fn read_tcb(der: &[u8]) -> Result<PckTcb, Refusal> {
        let mut all = Elements::read(TCB, der)?;
        let mut components = [0; 16];
        for (i, component) in (1..).zip(&mut components) {
            *component = all.take(i, &format!("TCB component {i}"), |value| value.decode_as().ok())?;
        }
        let pcesvn = all.take(17, "PCESVN", |value| value.decode_as().ok())?;
        let cpusvn = all.take(18, "CPUSVN", octets)?;
        all.end()?;
        Ok(PckTcb { components, pcesvn, cpusvn })
    }

    /// The extension's value, as DER.
    pub fn to_der(&self) -> Result<Vec<u8>, der::Error> {
        let pair = |base: ObjectIdentifier, arc, value: Any| Ok(Element { id: base.push_arc(arc)?, value });
        let octets = |bytes: &[u8]| Any::new(Tag::OctetString, bytes);
        let list = |elements: der::Result<Vec<Element>>| Any::encode_from(&elements?);

        let components = (1..).zip(self.tcb.components);
        let mut tcb: der::Result<Vec<Element>> =
            components.map(|(i, svn)| pair(TCB, i, Any::encode_from(&svn)?)).collect();
        if let Ok(tcb) = &mut tcb {
            tcb.push(pair(TCB, 17, Any::encode_from(&self.tcb.pcesvn)?)?);
            tcb.push(pair(TCB, 18, octets(&self.tcb.cpusvn)?)?);
        }
        let mut all = vec![
            pair(SGX_EXTENSION, 1, octets(&self.ppid)?)?,
            pair(SGX_EXTENSION, 2, list(tcb)?)?,
            pair(SGX_EXTENSION, 3, octets(&self.pceid)?)?,
            pair(SGX_EXTENSION, 4, octets(&self.fmspc)?)?,
            pair(SGX_EXTENSION, 5, Any::new(Tag::Enumerated, [self.sgx_type as u8])?)?,
        ];
        if let Some(platform) = &self.platform {
            let flags = [platform.dynamic_platform, platform.cached_keys, platform.smt_enabled];
            let flags =
                (1..).zip(flags).map(|(i, flag)| pair(CONFIGURATION, i, Any::encode_from(&flag)?)).collect();
            all.push(pair(SGX_EXTENSION, 6, octets(&platform.instance_id)?)?);
            all.push(pair(SGX_EXTENSION, 7, list(flags)?)?);
        }
        all.to_der()
    }
}
