//! EINIT: checks who signed an enclave and that it is what was signed, and
//! makes it runnable (*SDM vol. 3D, EINIT*). The CET fields of SIGSTRUCT are
//! compared like every other: no model offers CET, so SECS has zeros there.

use arch::regs::gpr;
use sgx_abi::{AttributeFlags, Attributes, Einittoken, PAGE_SIZE, PageType, Secs, Sigstruct, Status};
use zerocopy::FromZeros;

use crate::claim::{Lane, Mode};
use crate::keys;
use crate::leaf::{Done, Leaf, Ran};
use crate::measure::Measurement;
use crate::port::Access;
use crate::rule::{Stop, rules};
use crate::sigstruct;

rules! { EINIT {
    SIGSTRUCT_ALIGNED: Gp, "DS:RBX is aligned to 4096 bytes";
    SECS_ALIGNED: Gp, "DS:RCX is aligned to 4096 bytes";
    TOKEN_ALIGNED: Gp, "DS:RDX is aligned to 512 bytes";
    SECS_IN_EPC: Pf, "DS:RCX leads to the EPC";
    SIGSTRUCT_FORM: (Status::InvalidSigStruct), "header, vendor, exponent and reserved fields of SIGSTRUCT are right";
    NO_EVENT: (Status::UnmaskedEvent), "no unmasked event is pending";
    SIGNATURE: (Status::InvalidSignature), "the signature verifies";
    NO_CONFLICT: Gp, "no other leaf that excludes EINIT uses the SECS";
    SECS_VALID: Pf, "DS:RCX is a valid SECS";
    NOT_INITIALIZED: Gp, "the enclave is not initialised";
    FAMILY_NEEDS_KSS: (Status::InvalidSigStruct), "without KSS, ISVFAMILYID and ISVEXTPRODID are zero";
    MEASUREMENT: (Status::InvalidMeasurement), "the measurement is SIGSTRUCT's ENCLAVEHASH";
    CONTROLLED: (Status::InvalidAttribute), "an enclave with EINITTOKEN_KEY has the launch key's signer";
    ATTRIBUTES: (Status::InvalidAttribute), "ATTRIBUTES, under the mask, are SIGSTRUCT's";
    MISCSELECT: (Status::InvalidAttribute), "MISCSELECT, under the mask, is SIGSTRUCT's";
    CET: (Status::InvalidAttribute), "CET_ATTRIBUTES, under the mask, are SIGSTRUCT's";
    LAUNCH_KEY: (Status::InvalidEinittoken), "without a valid token the signer is the launch key's";
    TOKEN_DEBUG: (Status::InvalidEinittoken), "a debug launch enclave's token is for a debug enclave";
    TOKEN_RESERVED: (Status::InvalidEinittoken), "reserved fields of the token are zero";
    TOKEN_CPUSVN: (Status::InvalidCpusvn), "the token's CPUSVN is not beyond the processor's";
    TOKEN_MAC: (Status::InvalidEinittoken), "the token was made on this processor";
    TOKEN_MEASUREMENT: (Status::InvalidMeasurement), "the token is for this measurement";
    TOKEN_SIGNER: (Status::InvalidMeasurement), "the token is for this signer";
    TOKEN_ATTRIBUTES: (Status::INVALID_EINIT_ATTRIBUTE), "the token is for these attributes";
}}

/// Executes the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let (rbx, rcx, rdx) = (leaf.rbx(), leaf.rcx(), leaf.port.gpr(gpr::RDX));
    SIGSTRUCT_ALIGNED.check(rbx % Sigstruct::ALIGN == 0)?;
    SECS_ALIGNED.check(rcx % PAGE_SIZE as u64 == 0)?;
    TOKEN_ALIGNED.check(rdx % Einittoken::ALIGN == 0)?;
    let secs_la = leaf.port.linear(rcx, PAGE_SIZE as u64)?;
    let page = leaf.resolve(secs_la, Access::Write)?;
    let page = SECS_IN_EPC.some_at(page, secs_la)?;
    let signature_la = leaf.port.linear(rbx, Sigstruct::SIZE as u64)?;
    let signature: Sigstruct = leaf.load(signature_la)?;
    let token_la = leaf.port.linear(rdx, Einittoken::SIZE as u64)?;
    let token: Einittoken = leaf.load(token_la)?;

    SIGSTRUCT_FORM.check(sigstruct::form_holds(&signature))?;
    NO_EVENT.check(!leaf.port.event_pending())?;
    let verified = SIGNATURE.some(sigstruct::verify(&signature).ok())?;

    let claims = &leaf.package.claims;
    let _build = NO_CONFLICT.some(claims.claim(page, Lane::Build, Mode::Exclusive))?;
    let _base = NO_CONFLICT.some(claims.claim(page, Lane::Base, Mode::Shared))?;
    SECS_VALID.check_at(leaf.entry(page).is(PageType::Secs), secs_la)?;
    let mut secs: Secs = leaf.package.read(page, 0)?;
    NOT_INITIALIZED.check(!secs.attributes.flags.contains(AttributeFlags::INIT))?;
    let kss = secs.attributes.flags.contains(AttributeFlags::KSS);
    let families = signature.isvfamilyid == [0; 16] && signature.isvextprodid == [0; 16];
    FAMILY_NEEDS_KSS.check(kss || families)?;

    let mrenclave = Measurement::load(&secs.private).finish();
    MEASUREMENT.check(mrenclave == signature.enclavehash)?;
    let launch_key = verified.mrsigner == leaf.package.launch_hash();
    let controlled = (secs.attributes & Attributes::CONTROLLED) != Attributes::new_zeroed();
    CONTROLLED.check(!controlled || launch_key)?;
    let mask = signature.attributemask;
    ATTRIBUTES.check((secs.attributes & mask) == (signature.attributes & mask))?;
    let (have, want) = (secs.miscselect.bits(), signature.miscselect.bits());
    MISCSELECT.check(have & signature.miscmask == want & signature.miscmask)?;
    let mask = signature.cet_attributes_mask;
    CET.check(secs.cet_attributes & mask == signature.cet_attributes & mask)?;
    if token.valid & Einittoken::VALID == 0 {
        LAUNCH_KEY.check(launch_key)?;
    } else {
        check_token(leaf, &token, &secs, mrenclave, verified.mrsigner)?;
    }

    secs.mrenclave = mrenclave;
    secs.mrsigner = verified.mrsigner;
    (secs.isvprodid, secs.isvsvn) = (signature.isvprodid, signature.isvsvn);
    secs.private.isvfamilyid = signature.isvfamilyid;
    secs.private.isvextprodid = signature.isvextprodid;
    secs.private.padding = verified.padding;
    secs.attributes.flags.insert(AttributeFlags::INIT);
    leaf.package.write(page, 0, &secs)?;
    Ok(Done::Success)
}

fn check_token(
    leaf: &Leaf<'_>,
    token: &Einittoken,
    secs: &Secs,
    mrenclave: [u8; 32],
    mrsigner: [u8; 32],
) -> Result<(), Stop> {
    let debug = AttributeFlags::DEBUG;
    let of_debug = token.maskedattributesle.flags.contains(debug);
    TOKEN_DEBUG.check(!of_debug || secs.attributes.flags.contains(debug))?;
    TOKEN_RESERVED.check(token.valid & !Einittoken::VALID == 0 && token.reserved_is_zero())?;
    let launch_hash = leaf.package.launch_hash();
    let key = leaf.package.with_secrets(|s| keys::einittoken_key(&s.roots, token, &launch_hash));
    let key = TOKEN_CPUSVN.some(key.ok())?;
    TOKEN_MAC.check(keys::cmac_holds(&key, token.mac_data(), &token.mac))?;
    TOKEN_MEASUREMENT.check(token.mrenclave == mrenclave)?;
    TOKEN_SIGNER.check(token.mrsigner == mrsigner)?;
    TOKEN_ATTRIBUTES.check(token.attributes == secs.attributes)
}
