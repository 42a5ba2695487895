//! EGETKEY: gives the enclave a key of its own (*SDM vol. 3D, EGETKEY*). RBX is
//! the KEYREQUEST, RCX where the key goes; RAX says why not.
//!
//! Each key's checks are the SDM's, in one order: name, attributes, CPUSVN,
//! ISVSVN, CONFIGSVN. The report key has none of them. CONFIGSVN is looked at for
//! the two sealing keys: the text does so for one of them and promises it for
//! every key that depends on it. No model has CET, so CET_ATTRIBUTES_MASK is
//! reserved. What a key depends on is in [`crate::keys`].

use sgx_abi::{AttributeFlags, KeyName, KeyPolicy, Keyrequest, Secs, Status};

use super::operand::{OperandRules, Running, operand};
use crate::keys;
use crate::leaf::{Done, Leaf, Ran};
use crate::package::Package;
use crate::port::Access;
use crate::rule::{Stop, rules};

rules! { EGETKEY {
    REQUEST_PLACE: Gp, "KEYREQUEST is aligned to 512 bytes and inside the enclave's range";
    REQUEST_VALID: Pf, "KEYREQUEST is in the EPC, in a valid page";
    REQUEST_UNBLOCKED: Pf, "KEYREQUEST's page is not blocked";
    REQUEST_USABLE: Pf, "KEYREQUEST's page is a regular, accepted, readable page of the enclave, in its place";
    OUTPUT_PLACE: Gp, "the output is aligned to 16 bytes and inside the enclave's range";
    OUTPUT_VALID: Pf, "the output is in the EPC, in a valid page";
    OUTPUT_UNBLOCKED: Pf, "the output's page is not blocked";
    OUTPUT_USABLE: Pf, "the output's page is a regular, accepted, writable page of the enclave, in its place";
    REQUEST_RESERVED: Gp, "the reserved fields of KEYREQUEST and bits of KEYPOLICY are zero";
    KSS: Gp, "without the KSS attribute CONFIGSVN and the policy bits of KSS are zero";
    KEYNAME: (Status::InvalidKeyname), "KEYNAME is known";
    EINITTOKEN_KEY: (Status::InvalidAttribute), "the EINIT token key is for enclaves with the EINITTOKEN_KEY attribute";
    LAUNCH_SIGNER: (Status::InvalidAttribute), "the EINIT token key is for enclaves whose signer is IA32_SGXLEPUBKEYHASH";
    PROVISIONKEY: (Status::InvalidAttribute), "the provisioning keys are for enclaves with the PROVISIONKEY attribute";
    CPUSVN: (Status::InvalidCpusvn), "CPUSVN is not beyond the processor's";
    ISVSVN: (Status::InvalidIsvsvn), "ISVSVN is not beyond the enclave's";
    CONFIGSVN: (Status::InvalidIsvsvn), "CONFIGSVN of a sealing key is not beyond the enclave's";
}}

static REQUEST: OperandRules = OperandRules {
    place: &REQUEST_PLACE,
    in_epc: &REQUEST_VALID,
    valid: &REQUEST_VALID,
    unblocked: &REQUEST_UNBLOCKED,
    usable: &REQUEST_USABLE,
};
static OUTPUT: OperandRules = OperandRules {
    place: &OUTPUT_PLACE,
    in_epc: &OUTPUT_VALID,
    valid: &OUTPUT_VALID,
    unblocked: &OUTPUT_UNBLOCKED,
    usable: &OUTPUT_USABLE,
};

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let running = Running::of(leaf)?;
    let package = leaf.package;
    let (page, at) = operand(leaf, &running, leaf.rbx(), Keyrequest::ALIGN, Access::Read, &REQUEST)?;
    let key_size = Keyrequest::KEY_SIZE as u64;
    let (output, output_at) = operand(leaf, &running, leaf.rcx(), key_size, Access::Write, &OUTPUT)?;
    let request: Keyrequest = package.read(page, at)?;
    REQUEST_RESERVED.check(request.reserved_is_zero() && request.cet_attributes_mask == 0)?;
    let secs: Secs = package.read(running.secs, 0)?;
    let uses_kss = request.keypolicy.intersects(KeyPolicy::KSS) || request.configsvn != 0;
    KSS.check(!uses_kss || secs.attributes.flags.contains(AttributeFlags::KSS))?;
    let name = KEYNAME.some(KeyName::from_u16(request.keyname))?;
    allowed(package, name, &secs, &request)?;

    let key = package.with_secrets(|s| keys::requested_key(&s.roots, name, &secs, &request));
    let key = CPUSVN.some(key.ok())?;
    package.dram.write(output.0, output_at, &key[..])?;
    Ok(Done::Success)
}

/// Checks whether the enclave may have the key.
fn allowed(package: &Package, name: KeyName, secs: &Secs, request: &Keyrequest) -> Result<(), Stop> {
    let has = |attribute| secs.attributes.flags.contains(attribute);
    match name {
        KeyName::Report => return Ok(()),
        KeyName::Einittoken => {
            EINITTOKEN_KEY.check(has(AttributeFlags::EINITTOKEN_KEY))?;
            LAUNCH_SIGNER.check(secs.mrsigner == package.launch_hash())?;
        }
        KeyName::Provision | KeyName::ProvisionSeal => {
            PROVISIONKEY.check(has(AttributeFlags::PROVISIONKEY))?;
        }
        KeyName::Seal => {}
    }
    let version = package.with_secrets(|s| s.roots.version_of(&request.cpusvn));
    CPUSVN.check(version.is_some())?;
    ISVSVN.check(request.isvsvn <= secs.isvsvn)?;
    let sealing = matches!(name, KeyName::Seal | KeyName::ProvisionSeal);
    CONFIGSVN.check(!sealing || request.configsvn <= secs.configsvn)
}
