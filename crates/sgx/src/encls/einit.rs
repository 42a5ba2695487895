//! EINIT: checks who signed an enclave, that it is what was signed, and that it may
//! be launched, and makes it runnable (*SDM vol. 3D, EINIT*). RBX is a SIGSTRUCT, RCX
//! the SECS, RDX an EINITTOKEN.
//!
//! Without a valid token the signer has to be the one of IA32_SGXLEPUBKEYHASH; with
//! one, a launch enclave of that signer has to have made it on this platform.
//!
//! Fields that belong to features a model lacks are reserved there: those of CET, which
//! no model has, in SIGSTRUCT and token, and ISVFAMILYID and ISVEXTPRODID without KSS.

use sgx_abi::{AttributeFlags, Attributes, Einittoken, PAGE_SIZE, PageType, Secs, Sigstruct, Status};

use crate::claim::{Lane, Mode};
use crate::config::Config;
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::{Stop, rules};
use crate::{keys, sigstruct};

rules! { EINIT {
    OPERANDS_ALIGNED: Gp, "SIGSTRUCT and SECS are aligned to 4096 bytes";
    TOKEN_ALIGNED: Gp, "EINITTOKEN is aligned to 512 bytes";
    SECS_IN_EPC: Pf, "RCX leads to the EPC";
    SIGSTRUCT_FORM: (Status::InvalidSigStruct), "header, vendor, exponent and reserved fields of SIGSTRUCT are right";
    NO_EVENT: (Status::UnmaskedEvent), "no unmasked event is pending";
    SIGNATURE: (Status::InvalidSignature), "the signature verifies, with Q1 and Q2";
    SECS_CLAIMED: Gp, "no leaf that excludes EINIT uses the SECS";
    SECS_VALID: Pf, "RCX is a valid SECS";
    FAMILY_NEEDS_KSS: (Status::InvalidSigStruct), "SIGSTRUCT.ISVFAMILYID of an enclave without KSS is zero";
    MEASUREMENT_CLAIMED: Gp, "no other leaf updates the measurement or initializes the enclave";
    UNINITIALIZED: Gp, "the enclave is not initialized";
    MEASUREMENT: (Status::InvalidMeasurement), "the enclave's measurement is SIGSTRUCT.ENCLAVEHASH";
    CONTROLLED: (Status::InvalidAttribute), "an enclave with EINITTOKEN_KEY is signed with the launch key";
    ATTRIBUTES: (Status::InvalidAttribute), "the enclave's ATTRIBUTES are SIGSTRUCT's, under the mask";
    MISCSELECT: (Status::InvalidAttribute), "the enclave's MISCSELECT is SIGSTRUCT's, under the mask";
    LAUNCH_KEY: (Status::InvalidEinittoken), "without a valid token, the enclave is signed with the launch key";
    TOKEN_DEBUG: (Status::InvalidEinittoken), "a debug launch enclave launches debug enclaves only";
    TOKEN_RESERVED: (Status::InvalidEinittoken), "the reserved fields of the token are zero";
    TOKEN_CPUSVN: (Status::InvalidCpusvn), "the token's CPUSVN is not beyond the processor's";
    TOKEN_MAC: (Status::InvalidEinittoken), "a launch enclave made the token on this platform";
    TOKEN_IDENTITY: (Status::InvalidMeasurement), "the token is for this measurement and signer";
    TOKEN_ATTRIBUTES: (Status::INVALID_EINIT_ATTRIBUTE), "the token is for these attributes";
}}

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let sig_la = leaf.port.linear(leaf.rbx(), Sigstruct::SIZE as u64)?;
    let la = leaf.port.linear(leaf.rcx(), PAGE_SIZE as u64)?;
    OPERANDS_ALIGNED.check(sig_la.is_multiple_of(Sigstruct::ALIGN) && la.is_multiple_of(PAGE_SIZE as u64))?;
    let token_la = leaf.port.linear(leaf.rdx(), Einittoken::SIZE as u64)?;
    TOKEN_ALIGNED.check(token_la.is_multiple_of(Einittoken::ALIGN))?;
    let page = SECS_IN_EPC.some_at(leaf.resolve(la, Access::Write)?, la)?;
    let sig: Sigstruct = leaf.load(sig_la)?;
    let token: Einittoken = leaf.load(token_la)?;
    let package = leaf.package;
    SIGSTRUCT_FORM.check(sigstruct::form_holds(&sig) && unsupported_is_zero(&sig, &package.config))?;
    NO_EVENT.check(!leaf.port.event_pending())?;
    let verified = SIGNATURE.some(sigstruct::verify(&sig).ok())?;

    let _secs = SECS_CLAIMED.some(package.claims.claim(page, Lane::Base, Mode::Shared))?;
    SECS_VALID.check_at(leaf.entry(page).is(PageType::Secs), la)?;
    let Secs { attributes, .. } = package.read(page, 0)?;
    let kss = attributes.flags.contains(AttributeFlags::KSS);
    FAMILY_NEEDS_KSS.check(kss || sig.isvfamilyid == [0; 16])?;
    let _measure = MEASUREMENT_CLAIMED.some(package.claims.claim(page, Lane::Build, Mode::Exclusive))?;
    let mut secs: Secs = package.read(page, 0)?;
    let attributes = secs.attributes;
    UNINITIALIZED.check(!attributes.flags.contains(AttributeFlags::INIT))?;
    let mrenclave = Measurement::load(&secs.private).finish();
    MEASUREMENT.check(sig.enclavehash == mrenclave)?;

    // Read once: software may write the registers meanwhile.
    let launch_hash = package.launch_hash();
    let launch_key = verified.mrsigner == launch_hash;
    let controlled = attributes & Attributes::CONTROLLED != Attributes::default();
    CONTROLLED.check(launch_key || !controlled)?;
    ATTRIBUTES.check(attributes & sig.attributemask == sig.attributes & sig.attributemask)?;
    let differing = secs.miscselect.bits() ^ sig.miscselect.bits();
    MISCSELECT.check(differing & sig.miscmask == 0)?;

    secs.mrenclave = mrenclave;
    secs.mrsigner = verified.mrsigner;
    if token.valid & Einittoken::VALID == 0 {
        LAUNCH_KEY.check(launch_key)?;
    } else {
        check_token(leaf, &token, &secs, &launch_hash)?;
    }

    (secs.isvprodid, secs.isvsvn) = (sig.isvprodid, sig.isvsvn);
    secs.private.isvfamilyid = sig.isvfamilyid;
    secs.private.isvextprodid = sig.isvextprodid;
    secs.private.padding = verified.padding;
    secs.attributes.flags.insert(AttributeFlags::INIT);
    package.write(page, 0, &secs)?;
    Ok(Done::Success)
}

/// True if the fields of SIGSTRUCT that a model reserves for lack of a feature are zero.
fn unsupported_is_zero(sig: &Sigstruct, config: &Config) -> bool {
    let cet = sig.cet_attributes == 0 && sig.cet_attributes_mask == 0;
    cet && (config.kss || (sig.isvfamilyid == [0; 16] && sig.isvextprodid == [0; 16]))
}

/// The checks of a token whose VALID bit is set, for the enclave of `secs`, which has
/// its final measurement and signer.
fn check_token(leaf: &Leaf<'_>, token: &Einittoken, secs: &Secs, launch_hash: &[u8; 32]) -> Result<(), Stop> {
    let debug = AttributeFlags::DEBUG;
    let by_debug = token.maskedattributesle.flags.contains(debug);
    TOKEN_DEBUG.check(!by_debug || secs.attributes.flags.contains(debug))?;
    TOKEN_RESERVED.check(token.reserved_is_zero() && token.cet_masked_attributes_le == 0)?;
    let key = leaf.package.with_secrets(|s| keys::einittoken_key(&s.roots, token, launch_hash));
    let key = TOKEN_CPUSVN.some(key.ok())?;
    TOKEN_MAC.check(keys::cmac_holds(&key, token.mac_data(), &token.mac))?;
    TOKEN_IDENTITY.check(token.mrenclave == secs.mrenclave && token.mrsigner == secs.mrsigner)?;
    TOKEN_ATTRIBUTES.check(token.attributes == secs.attributes)
}
