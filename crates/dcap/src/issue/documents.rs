//! TCB info and the QE identity, to be signed by [`Signed::sign`](crate::collateral::Signed).

use sgx_abi::{AttributeFlags, Attributes};
use zerocopy::IntoBytes;

use crate::collateral::{QeIdentity, QeTcbLevel, TcbInfo, TcbLevel};
use crate::time::Validity;

/// TCB info, version 3, for one kind of platform; the highest level first.
pub fn tcb_info(
    fmspc: [u8; 6],
    pce_id: [u8; 2],
    validity: Validity,
    evaluation_data_number: u32,
    levels: Vec<TcbLevel>,
) -> TcbInfo {
    TcbInfo {
        id: "SGX".to_owned(),
        version: 3,
        issue_date: validity.from,
        next_update: validity.until,
        fmspc,
        pce_id,
        tcb_type: 0,
        tcb_evaluation_data_number: evaluation_data_number,
        tcb_levels: levels,
    }
}

/// The QE identity, version 2, of a quoting enclave in 64-bit mode whose attributes are INIT
/// and PROVISIONKEY; whatever XFRM it has. The highest level first.
pub fn qe_identity(
    mrsigner: [u8; 32],
    isvprodid: u16,
    validity: Validity,
    evaluation_data_number: u32,
    levels: Vec<QeTcbLevel>,
) -> QeIdentity {
    let flags = AttributeFlags::INIT | AttributeFlags::PROVISIONKEY;
    // whether it runs in 64-bit mode does not matter, as in Intel's identities
    let counted = AttributeFlags::from_bits_retain(!AttributeFlags::MODE64BIT.bits());
    let bytes = |flags, xfrm| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(Attributes { flags, xfrm }.as_bytes());
        bytes
    };
    QeIdentity {
        id: "QE".to_owned(),
        version: 2,
        issue_date: validity.from,
        next_update: validity.until,
        tcb_evaluation_data_number: evaluation_data_number,
        miscselect: [0; 4],
        miscselect_mask: [0xff; 4],
        attributes: bytes(flags, 0),
        attributes_mask: bytes(counted, 0),
        mrsigner,
        isvprodid,
        tcb_levels: levels,
    }
}
