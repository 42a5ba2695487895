//! Makes quotes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use architectural_interface::{Quoted, QuotingClient, ReceiptFor, Refusal};
use enclave_host::interface::CallError;
use enclave_host::{Enclave, Error};
use quote_abi::AUTH_DATA;
use sgx_abi::{Report, ReportBody, Targetinfo};
use zerocopy::{FromBytes, IntoBytes};

use crate::provisioned::{answer, exact};
use crate::{Provisioned, QuotingError};

const NAME: &str = "quoting";

/// The quoting enclave (QE), with an attestation key that is certified.
pub struct Quoter {
    enclave: Enclave,
    target_info: Targetinfo,
    platform_id: [u8; 16],
    /// The attestation key, sealed.
    sealed: Vec<u8>,
    key: [u8; 64],
    /// What the quoting enclave says of itself in quotes.
    qe_report: ReportBody,
    /// What follows the attestation key in quotes.
    certification: Vec<u8>,
    /// Why the key that was kept is not used any more.
    replaced: Option<Refusal>,
}

/// By which whoever asked for a quote knows that the quoting enclave made it.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// A number of theirs.
    pub nonce: [u8; 16],
    /// The enclave that verifies the receipt.
    pub target_info: Targetinfo,
}

impl Quoter {
    /// Loads the enclaves, and has the attestation key certified that is kept sealed in the
    /// file `key`. If there is none, or it is not this processor's of this security version,
    /// there is a new one from now on.
    ///
    /// # Errors
    /// The machine is not provisioned, an enclave cannot be loaded, or the key cannot be kept.
    pub fn open(from: &Provisioned, key: &Path) -> Result<Self, QuotingError> {
        // it is needed for this alone, and leaves the EPC then
        let certifier = from.certifier()?;
        let enclave = from.load(NAME, "qe")?;
        let client = QuotingClient(&enclave);
        let certifier_info = certifier.target_info()?;
        let bind = |sealed: &[u8]| answer(NAME, client.bind_key(sealed, certifier_info.as_bytes()));
        let found = match fs::read(key) {
            Ok(sealed) => Some(sealed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(QuotingError::Keep { path: key.to_owned(), why }),
        };
        let mut replaced = None;
        let bound = match found {
            None => None,
            Some(sealed) => match bind(&sealed)? {
                Ok(bound) => Some((sealed, bound)),
                Err(refusal @ (Refusal::Key | Refusal::Outdated | Refusal::Later)) => {
                    replaced = Some(refusal);
                    None
                }
                Err(refusal) => return Err(QuotingError::Refused(NAME, refusal)),
            },
        };
        let (sealed, bound) = match bound {
            Some(bound) => bound,
            None => {
                let sealed = answer(NAME, client.create_key())?;
                let bound = bind(&sealed)?.map_err(|refusal| QuotingError::Refused(NAME, refusal))?;
                keep(key, &sealed).map_err(|why| QuotingError::Keep { path: key.to_owned(), why })?;
                (sealed, bound)
            }
        };
        let report = Report::read_from_bytes(&bound.report).map_err(|_| QuotingError::Answer(NAME))?;
        let certification = certifier.certification(from, &report, &AUTH_DATA)?;
        let target_info = answer(NAME, client.target_info())?;
        let target_info =
            Targetinfo::read_from_bytes(&target_info).map_err(|_| QuotingError::Answer(NAME))?;
        let platform_id = answer(NAME, client.platform_id())?;
        let key = exact(NAME, bound.key)?;
        let qe_report = report.body;
        Ok(Self { enclave, target_info, platform_id, sealed, key, qe_report, certification, replaced })
    }

    /// Why the attestation key that was kept is not used any more, if there was one and it is
    /// not: from now on another is kept in its place.
    pub fn replaced(&self) -> Option<Refusal> {
        self.replaced
    }

    /// What an enclave's report needs, for a quote to be made of it.
    pub fn target_info(&self) -> &Targetinfo {
        &self.target_info
    }

    /// The quoting enclave's id of the platform (QE_ID).
    pub fn platform_id(&self) -> [u8; 16] {
        self.platform_id
    }

    /// The attestation key: x and y.
    pub fn attestation_key(&self) -> &[u8; 64] {
        &self.key
    }

    /// The quoting enclave's report in quotes, which binds the attestation key.
    pub fn qe_report(&self) -> &ReportBody {
        &self.qe_report
    }

    /// Bytes of every quote.
    pub fn quote_size(&self) -> usize {
        quote_abi::quote_size(self.certification.len())
    }

    /// A quote, version 3, with the PCK certificate's chain, of a report for
    /// [`Quoter::target_info`].
    ///
    /// # Errors
    /// The report is not for the quoting enclave, or was changed.
    pub fn quote(&self, report: &Report) -> Result<Vec<u8>, QuotingError> {
        Ok(self.call(report, None)?.quote)
    }

    /// The same, and a report of the quoting enclave for whoever asked, whose REPORTDATA is
    /// the SHA-256 of their nonce and the quote.
    ///
    /// # Errors
    /// The same; or the target information is none.
    pub fn quote_with_receipt(
        &self,
        report: &Report,
        receipt: &Receipt,
    ) -> Result<(Vec<u8>, Report), QuotingError> {
        let wanted =
            ReceiptFor { nonce: receipt.nonce, target_info: receipt.target_info.as_bytes().to_vec() };
        let quoted = self.call(report, Some(wanted))?;
        let receipt = quoted.receipt.and_then(|bytes| Report::read_from_bytes(&bytes).ok());
        Ok((quoted.quote, receipt.ok_or(QuotingError::Answer(NAME))?))
    }

    fn call(&self, report: &Report, receipt: Option<ReceiptFor>) -> Result<Quoted, QuotingError> {
        let call = || {
            let client = QuotingClient(&self.enclave);
            client.quote(report.as_bytes(), &self.sealed, &self.certification, receipt.clone())
        };
        let called = match call() {
            // it was loaded again, and keeps nothing between calls
            Err(CallError::Call(Error::Lost { reloaded: true })) => call(),
            called => called,
        };
        answer(NAME, called)?.map_err(|refusal| QuotingError::Refused(NAME, refusal))
    }
}

/// Writes the sealed key: after a crash it is there or not, and nobody else's business.
fn keep(file: &Path, sealed: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    out.write_all(sealed)?;
    out.sync_all()?;
    fs::rename(&new, file)
}
