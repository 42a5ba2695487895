//! EREPORT: a report about the running enclave that another enclave of the same
//! platform can check (*SDM vol. 3D, EREPORT*). RBX is the TARGETINFO, RCX the
//! REPORTDATA, RDX where the REPORT goes.
//!
//! The text checks PENDING and MODIFIED of REPORTDATA's page a second time where
//! the output's are meant; here they are the output's. No model has CET, so
//! TARGETINFO.CET_ATTRIBUTES is reserved.

use sgx_abi::{Report, ReportBody, Reportdata, Secs, Targetinfo};
use zerocopy::IntoBytes;

use super::operand::{OperandRules, Running, operand};
use crate::keys;
use crate::leaf::{Done, Leaf, Ran};
use crate::port::Access;
use crate::rule::rules;

rules! { EREPORT {
    TARGET_PLACE: Gp, "TARGETINFO is aligned to 512 bytes and inside the enclave's range";
    TARGET_IN_EPC: Pf, "TARGETINFO is in the EPC";
    TARGET_VALID: Pf, "TARGETINFO's page is valid";
    TARGET_UNBLOCKED: Pf, "TARGETINFO's page is not blocked";
    TARGET_USABLE: Pf, "TARGETINFO's page is a regular, accepted, readable page of the enclave, in its place";
    TARGET_RESERVED: Gp, "the reserved fields of TARGETINFO are zero";
    DATA_PLACE: Gp, "REPORTDATA is aligned to 128 bytes and inside the enclave's range";
    DATA_IN_EPC: Pf, "REPORTDATA is in the EPC";
    DATA_VALID: Pf, "REPORTDATA's page is valid";
    DATA_UNBLOCKED: Pf, "REPORTDATA's page is not blocked";
    DATA_USABLE: Pf, "REPORTDATA's page is a regular, accepted, readable page of the enclave, in its place";
    OUTPUT_PLACE: Gp, "the output is aligned to 512 bytes and inside the enclave's range";
    OUTPUT_IN_EPC: Pf, "the output is in the EPC";
    OUTPUT_VALID: Pf, "the output's page is valid";
    OUTPUT_UNBLOCKED: Pf, "the output's page is not blocked";
    OUTPUT_USABLE: Pf, "the output's page is a regular, accepted, writable page of the enclave, in its place";
}}

static TARGET: OperandRules = OperandRules {
    place: &TARGET_PLACE,
    in_epc: &TARGET_IN_EPC,
    valid: &TARGET_VALID,
    unblocked: &TARGET_UNBLOCKED,
    usable: &TARGET_USABLE,
};
static DATA: OperandRules = OperandRules {
    place: &DATA_PLACE,
    in_epc: &DATA_IN_EPC,
    valid: &DATA_VALID,
    unblocked: &DATA_UNBLOCKED,
    usable: &DATA_USABLE,
};
static OUTPUT: OperandRules = OperandRules {
    place: &OUTPUT_PLACE,
    in_epc: &OUTPUT_IN_EPC,
    valid: &OUTPUT_VALID,
    unblocked: &OUTPUT_UNBLOCKED,
    usable: &OUTPUT_USABLE,
};

/// Alignment of the output in bytes.
const OUTPUT_ALIGN: u64 = 512;

/// Runs the leaf.
pub fn run(leaf: &mut Leaf<'_>) -> Ran {
    let running = Running::of(leaf)?;
    let package = leaf.package;
    let (page, at) = operand(leaf, &running, leaf.rbx(), Targetinfo::ALIGN, Access::Read, &TARGET)?;
    let target: Targetinfo = package.read(page, at)?;
    TARGET_RESERVED.check(target.reserved_is_zero() && target.cet_attributes == 0)?;
    let (page, at) = operand(leaf, &running, leaf.rcx(), Reportdata::ALIGN, Access::Read, &DATA)?;
    let data: Reportdata = package.read(page, at)?;
    let (page, at) = operand(leaf, &running, leaf.rdx(), OUTPUT_ALIGN, Access::Write, &OUTPUT)?;

    let secs: Secs = package.read(running.secs, 0)?;
    let report = package.with_secrets(|secrets| {
        let body = ReportBody {
            cpusvn: secrets.roots.cpusvn(),
            miscselect: secs.miscselect,
            cet_attributes: 0,
            reserved1: [0; 11],
            isvextprodid: secs.private.isvextprodid,
            attributes: secs.attributes,
            mrenclave: secs.mrenclave,
            reserved2: [0; 32],
            mrsigner: secs.mrsigner,
            reserved3: [0; 32],
            configid: secs.configid,
            isvprodid: secs.isvprodid,
            isvsvn: secs.isvsvn,
            configsvn: secs.configsvn,
            reserved4: [0; 42],
            isvfamilyid: secs.private.isvfamilyid,
            reportdata: data.0,
        };
        let key = keys::report_key(&secrets.roots, &target, &secrets.report_keyid);
        Report { body, keyid: secrets.report_keyid, mac: keys::cmac(&key, body.as_bytes()) }
    });
    package.write(page, at, &report)?;
    Ok(Done::Quiet)
}
