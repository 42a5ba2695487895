//! Key derivation (*SDM vol. 3D, EGETKEY*, table *Key Derivation*; *EREPORT*; *EINIT*).
//!
//! A key is a function of the platform's [`Roots`] and of [`KeyDependencies`]:
//! what the SDM says that the key depends on. How they are combined is not
//! visible to software. Here it is a chain of AES-CMACs, each keyed with a secret:
//!
//! ```text
//! K1  = CMAC(provisioning fuses, "svn"   ‖ secret of the CPUSVN asked for)
//! K2  = CMAC(K1,                 "owner" ‖ owner epoch)      if the key depends on it, else K1
//! K3  = CMAC(seal fuses,         "seal"  ‖ K2)               if the key depends on them, else K2
//! key = CMAC(K3, dependencies)
//! ```
//!
//! So provisioning keys, which whoever made the platform may know, need no seal
//! fuses and say nothing about them, and an SVN's keys need that SVN's secret or
//! a later one. Data sealed by one version of Kluis must open in the next: the
//! layout of [`KeyDependencies`] and the labels never change.
//!
//! EGETKEY's refusals (attributes, SVNs, policy bits) are the leaf's; nothing
//! here looks at whether the enclave may have the key.

use aes::Aes128;
use cmac::{Cmac, Mac};
use sgx_abi::{Attributes, Einittoken, KeyName, KeyPolicy, Keyrequest, MiscSelect, Secs, Targetinfo};
use sha2::{Digest, Sha256};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::sigstruct::{PADDING, PADDING_LEN};

#[cfg(test)]
mod tests;

/// A derived key; wiped when dropped.
pub type Key = Zeroizing<[u8; 16]>;

/// Labels that tell the steps of the chain apart.
const LABEL_SVN: &[u8; 16] = b"kluis key svn\0\0\0";
const LABEL_OWNER: &[u8; 16] = b"kluis key owner\0";
const LABEL_SEAL: &[u8; 16] = b"kluis key seal\0\0";
const LABEL_SVN_STEP: &[u8; 24] = b"kluis cpusvn chain step\0";

/// CPUSVN asks for a version that the processor does not have: SGX_INVALID_CPUSVN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CPUSVN is beyond the processor's own: ask for the one in a REPORT, or for an earlier one")]
pub struct CpusvnBeyondCurrent;

/// The secret of the next earlier security version: a one-way function. It is the
/// same as `platform::svn_step`, whose chain this one continues.
pub fn svn_step(secret: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(LABEL_SVN_STEP).chain_update(secret).finalize().into()
}

/// What the processor derives all keys from. Wiped when dropped; neither cloned
/// nor printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Roots {
    /// CR_SEAL_FUSES.
    pub seal_fuses: [u8; 16],
    /// The fuses of the provisioning key.
    pub provisioning_fuses: [u8; 16],
    /// CR_SGXOWNEREPOCH.
    pub owner_epoch: [u8; 16],
    /// The processor's security version: the first component of CR_CPUSVN.
    pub cpusvn: u8,
    /// Secret of that version.
    pub svn_secret: [u8; 32],
}

impl Roots {
    /// CR_CPUSVN: 16 components, of which the first is the security version and
    /// the others are zero.
    pub fn cpusvn(&self) -> [u8; 16] {
        let mut cpusvn = [0; 16];
        cpusvn[0] = self.cpusvn;
        cpusvn
    }

    /// The security version that a CPUSVN means; `None` if it is beyond the
    /// current configuration. Zero, which no platform has, is before all others:
    /// provisioning enclaves ask for it to get a key that no update changes.
    pub fn version_of(&self, cpusvn: &[u8; 16]) -> Option<u8> {
        let [version, constant @ ..] = cpusvn;
        (*version <= self.cpusvn && constant == &[0; 15]).then_some(*version)
    }

    /// The secret of an earlier security version or of the current one; `None`
    /// for a later one. At most 255 hashes.
    pub fn svn_secret(&self, version: u8) -> Option<Zeroizing<[u8; 32]>> {
        let steps = self.cpusvn.checked_sub(version)?;
        let mut secret = Zeroizing::new(self.svn_secret);
        for _ in 0..steps {
            secret = Zeroizing::new(svn_step(&secret));
        }
        Some(secret)
    }
}

/// AES-128-CMAC (NIST SP 800-38B).
pub fn cmac(key: &[u8; 16], data: &[u8]) -> [u8; 16] {
    <Cmac<Aes128> as Mac>::new(key.into()).chain_update(data).finalize().into_bytes().into()
}

/// True if `mac` is the AES-128-CMAC of `data`; the time does not depend on how
/// much of it is right.
pub fn cmac_holds(key: &[u8; 16], data: &[u8], mac: &[u8; 16]) -> bool {
    <Cmac<Aes128> as Mac>::new(key.into()).chain_update(data).verify(mac.into()).is_ok()
}

bitflags::bitflags! {
    /// Secrets of the platform that a key depends on beside the provisioning fuses
    /// and the CPUSVN. The SDM has them as fields of the dependencies, zero where
    /// they do not count; here the dependencies hold no secret.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Sources: u32 {
        /// SGXOWNEREPOCH.
        const OWNER_EPOCH = 1 << 0;
        /// SEAL_KEY_FUSES.
        const SEAL_FUSES = 1 << 1;
    }
}

/// KEYDEPENDENCIES (*SDM vol. 3D, EGETKEY*): all that a key depends on, zero
/// where it does not. CET_ATTRIBUTES and their mask stay zero: no model has CET
/// (CPUID.12H.1:EAX\[6\] = 0), and the SDM includes them only where it is.
#[derive(Clone, Debug, PartialEq, Eq, FromZeros, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct KeyDependencies {
    /// KEYNAME.
    pub keyname: u16,
    /// KEYPOLICY.
    pub keypolicy: u16,
    /// ISVPRODID.
    pub isvprodid: u16,
    /// ISVSVN.
    pub isvsvn: u16,
    /// CONFIGSVN.
    pub configsvn: u16,
    /// CET_ATTRIBUTES.
    pub cet_attributes: u8,
    /// CET_ATTRIBUTES_MASK.
    pub cet_attributes_mask: u8,
    /// SGXOWNEREPOCH and SEAL_KEY_FUSES: [`Sources`].
    pub sources: u32,
    /// MISCSELECT.
    pub miscselect: u32,
    /// MISCMASK.
    pub miscmask: u32,
    /// ATTRIBUTES.
    pub attributes: Attributes,
    /// ATTRIBUTESMASK.
    pub attributesmask: Attributes,
    /// ISVFAMILYID.
    pub isvfamilyid: [u8; 16],
    /// ISVEXTPRODID.
    pub isvextprodid: [u8; 16],
    /// CPUSVN.
    pub cpusvn: [u8; 16],
    /// KEYID.
    pub keyid: [u8; 32],
    /// MRENCLAVE.
    pub mrenclave: [u8; 32],
    /// MRSIGNER.
    pub mrsigner: [u8; 32],
    /// CONFIGID.
    pub configid: [u8; 64],
    /// PADDING.
    pub padding: [u8; PADDING_LEN],
}

const _: () = assert!(size_of::<KeyDependencies>() == 616);

impl KeyDependencies {
    /// Dependencies of a key that EGETKEY gives the enclave of `secs`. `current`
    /// is CR_CPUSVN.
    pub fn of_request(name: KeyName, secs: &Secs, request: &Keyrequest, current: &[u8; 16]) -> Self {
        match name {
            KeyName::Seal => Self::seal(secs, request),
            KeyName::Report => Self::report(&identity(secs), &request.keyid, current),
            KeyName::Einittoken => Self {
                isvprodid: secs.isvprodid,
                mrsigner: secs.mrsigner,
                keyid: request.keyid,
                sources: (Sources::OWNER_EPOCH | Sources::SEAL_FUSES).bits(),
                padding: secs.private.padding,
                ..Self::masked(name, secs, request)
            },
            KeyName::Provision => Self {
                isvprodid: secs.isvprodid,
                mrsigner: secs.mrsigner,
                padding: secs.private.padding,
                attributesmask: request.attributemask,
                miscmask: !request.miscmask,
                ..Self::masked(name, secs, request)
            },
            KeyName::ProvisionSeal => Self {
                // not KEYPOLICY.MRENCLAVE or MRSIGNER: the one is left out, the
                // other included, whatever the policy says
                mrenclave: [0; 32],
                mrsigner: secs.mrsigner,
                keyid: [0; 32],
                sources: Sources::SEAL_FUSES.bits(),
                keyname: name as u16,
                ..Self::seal(secs, request)
            },
        }
    }

    /// Dependencies of the key with which EREPORT authenticates a report, for the
    /// target's EGETKEY to find again. `current` is CR_CPUSVN.
    pub fn report(target: &Targetinfo, keyid: &[u8; 32], current: &[u8; 16]) -> Self {
        Self {
            keyname: KeyName::Report as u16,
            configsvn: target.configsvn,
            sources: (Sources::OWNER_EPOCH | Sources::SEAL_FUSES).bits(),
            miscselect: target.miscselect.bits(),
            attributes: target.attributes,
            cpusvn: *current,
            keyid: *keyid,
            mrenclave: target.measurement,
            configid: target.configid,
            padding: PADDING,
            ..Self::new_zeroed()
        }
    }

    /// Dependencies of the key with which EINIT checks a token: those of the launch
    /// enclave that made it, as the token states them. `launch_hash` is
    /// IA32_SGXLEPUBKEYHASH.
    pub fn einittoken(token: &Einittoken, launch_hash: &[u8; 32]) -> Self {
        Self {
            keyname: KeyName::Einittoken as u16,
            isvprodid: token.isvprodidle,
            isvsvn: token.isvsvnle,
            sources: (Sources::OWNER_EPOCH | Sources::SEAL_FUSES).bits(),
            miscselect: token.maskedmiscselectle.bits(),
            attributes: token.maskedattributesle,
            cpusvn: token.cpusvnle,
            keyid: token.keyid,
            mrsigner: *launch_hash,
            padding: PADDING,
            ..Self::new_zeroed()
        }
    }

    /// The seal key, and what the provisioning seal key has in common with it.
    fn seal(secs: &Secs, request: &Keyrequest) -> Self {
        let policy = request.keypolicy;
        let mut this = Self {
            keypolicy: policy.bits(),
            keyid: request.keyid,
            sources: (Sources::OWNER_EPOCH | Sources::SEAL_FUSES).bits(),
            padding: secs.private.padding,
            attributesmask: request.attributemask,
            miscmask: !request.miscmask,
            ..Self::masked(KeyName::Seal, secs, request)
        };
        if policy.contains(KeyPolicy::MRENCLAVE) {
            this.mrenclave = secs.mrenclave;
        }
        if policy.contains(KeyPolicy::MRSIGNER) {
            this.mrsigner = secs.mrsigner;
        }
        if !policy.contains(KeyPolicy::NOISVPRODID) {
            this.isvprodid = secs.isvprodid;
        }
        if policy.contains(KeyPolicy::CONFIGID) {
            this.configid = secs.configid;
            this.configsvn = request.configsvn;
        }
        if policy.contains(KeyPolicy::ISVFAMILYID) {
            this.isvfamilyid = secs.private.isvfamilyid;
        }
        if policy.contains(KeyPolicy::ISVEXTPRODID) {
            this.isvextprodid = secs.private.isvextprodid;
        }
        this
    }

    /// What all keys but the report key take from the request: the SVNs, and
    /// attributes and MISCSELECT under its masks.
    fn masked(name: KeyName, secs: &Secs, request: &Keyrequest) -> Self {
        let mask = request.attributemask | Attributes::REQUIRED_SEALING_MASK;
        Self {
            keyname: name as u16,
            isvsvn: request.isvsvn,
            cpusvn: request.cpusvn,
            attributes: mask & secs.attributes,
            miscselect: request.miscmask & secs.miscselect.bits(),
            ..Self::new_zeroed()
        }
    }
}

/// The enclave of `secs` as the target of a report.
fn identity(secs: &Secs) -> Targetinfo {
    Targetinfo {
        measurement: secs.mrenclave,
        attributes: secs.attributes,
        configsvn: secs.configsvn,
        miscselect: MiscSelect::from_bits_retain(secs.miscselect.bits()),
        configid: secs.configid,
        ..Targetinfo::default()
    }
}

/// Derives a key.
///
/// # Errors
/// The dependencies' CPUSVN is beyond the processor's.
pub fn derive(roots: &Roots, dependencies: &KeyDependencies) -> Result<Key, CpusvnBeyondCurrent> {
    let version = roots.version_of(&dependencies.cpusvn).ok_or(CpusvnBeyondCurrent)?;
    let secret = roots.svn_secret(version).ok_or(CpusvnBeyondCurrent)?;
    let sources = Sources::from_bits_retain(dependencies.sources);
    let mut chain = step(&roots.provisioning_fuses, LABEL_SVN, &secret[..]);
    if sources.contains(Sources::OWNER_EPOCH) {
        chain = step(&chain, LABEL_OWNER, &roots.owner_epoch);
    }
    if sources.contains(Sources::SEAL_FUSES) {
        chain = step(&roots.seal_fuses, LABEL_SEAL, &chain[..]);
    }
    Ok(Zeroizing::new(cmac(&chain, dependencies.as_bytes())))
}

fn step(key: &[u8; 16], label: &[u8; 16], input: &[u8]) -> Key {
    let mac = <Cmac<Aes128> as Mac>::new(key.into()).chain_update(label).chain_update(input);
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The key that EGETKEY gives the enclave of `secs`.
///
/// # Errors
/// KEYREQUEST.CPUSVN is beyond the processor's (the report key does not use it).
pub fn requested_key(
    roots: &Roots,
    name: KeyName,
    secs: &Secs,
    request: &Keyrequest,
) -> Result<Key, CpusvnBeyondCurrent> {
    derive(roots, &KeyDependencies::of_request(name, secs, request, &roots.cpusvn()))
}

/// The key that EREPORT authenticates a report for `target` with; `keyid` is
/// CR_REPORT_KEYID.
pub fn report_key(roots: &Roots, target: &Targetinfo, keyid: &[u8; 32]) -> Key {
    match derive(roots, &KeyDependencies::report(target, keyid, &roots.cpusvn())) {
        Ok(key) => key,
        Err(CpusvnBeyondCurrent) => unreachable!("a processor's own CPUSVN is not beyond itself"),
    }
}

/// The key that EINIT checks `token` with; `launch_hash` is IA32_SGXLEPUBKEYHASH.
///
/// # Errors
/// EINITTOKEN.CPUSVNLE is beyond the processor's.
pub fn einittoken_key(
    roots: &Roots,
    token: &Einittoken,
    launch_hash: &[u8; 32],
) -> Result<Key, CpusvnBeyondCurrent> {
    derive(roots, &KeyDependencies::einittoken(token, launch_hash))
}
