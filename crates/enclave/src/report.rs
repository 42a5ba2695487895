//! Local attestation: what this enclave is, told to another on the same processor.

use aes::Aes128;
use cmac::{Cmac, Mac};
use enclave_base::leaf;
use sgx_abi::{AttributeFlags, KeyName, KeyPolicy, Keyrequest, Report, ReportBody, Targetinfo};
use zerocopy::IntoBytes;

use core::sync::atomic::{AtomicU8, Ordering};

use crate::key;

/// A report of this enclave, which the enclave that `target` describes can verify, and
/// nobody else. `data` is for the enclave's own use.
pub fn report(target: &Targetinfo, data: &[u8; 64]) -> Report {
    leaf::report(target, data)
}

/// What this enclave is.
pub fn own() -> ReportBody {
    enclave_base::sealing::own()
}

/// What another enclave needs to make a report for this one.
pub fn targetinfo() -> Targetinfo {
    let own = own();
    Targetinfo {
        measurement: own.mrenclave,
        attributes: own.attributes,
        cet_attributes: own.cet_attributes,
        configsvn: own.configsvn,
        miscselect: own.miscselect,
        configid: own.configid,
        ..Targetinfo::default()
    }
}

/// Why a report is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportError;

impl core::fmt::Display for ReportError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the report was not made on this processor for this enclave, or was changed")
    }
}

impl core::error::Error for ReportError {}

/// Verifies that a report was made by an enclave on this processor for this enclave; what
/// it says. Whether that is an enclave to be trusted, and not a debug enclave, is for the
/// caller to decide.
///
/// # Errors
/// The MAC does not verify.
pub fn verify_report(report: &Report) -> Result<&ReportBody, ReportError> {
    let request = Keyrequest {
        keyname: KeyName::Report as u16,
        keypolicy: KeyPolicy::empty(),
        keyid: report.keyid,
        ..Keyrequest::default()
    };
    let key = key::egetkey(&request).map_err(|_| ReportError)?;
    let mut mac = <Cmac<Aes128> as Mac>::new(key.bytes().into());
    mac.update(report.body.as_bytes());
    // in constant time
    mac.verify_slice(&report.mac).map(|()| &report.body).map_err(|_| ReportError)
}

/// True if this is a debug enclave, of which a debugger sees and changes everything.
pub fn is_debug() -> bool {
    /// 0: not asked yet, 1: no, 2: yes.
    static DEBUG: AtomicU8 = AtomicU8::new(0);
    match DEBUG.load(Ordering::Relaxed) {
        0 => {
            let debug = own().attributes.flags.contains(AttributeFlags::DEBUG);
            DEBUG.store(1 + u8::from(debug), Ordering::Relaxed);
            debug
        }
        known => known == 2,
    }
}
