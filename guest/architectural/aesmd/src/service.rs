//! The quoting enclave behind the service.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aesm::{AttestationKeyId, Challenge, Code, Failure, Initialized, Quoted, Quoting};
use quoting::{ATTESTATION_KEY, Provisioned, Quoter, QuotingError, Receipt, Refusal};
use sgx_abi::Report;

/// The machine's quoting enclave, once somebody has asked for it.
#[derive(Default)]
pub(crate) struct Service {
    open: Mutex<Option<Arc<Quoter>>>,
}

impl Service {
    /// The quoting enclave with its key. What could not be opened is tried again next time.
    fn quoter(&self) -> Result<Arc<Quoter>, Failure> {
        let mut open = self.lock();
        if let Some(quoter) = &*open {
            return Ok(quoter.clone());
        }
        let quoter = Quoter::open(&Provisioned::default(), &attestation_key()).map_err(failure)?;
        Ok(open.insert(Arc::new(quoter)).clone())
    }

    /// Lets go of a quoting enclave, if nobody has done so before.
    fn close(&self, quoter: &Arc<Quoter>) {
        let mut open = self.lock();
        if open.as_ref().is_some_and(|there| Arc::ptr_eq(there, quoter)) {
            *open = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Quoter>>> {
        // it is there or not, whatever became of the thread that looked
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quoting for Service {
    fn key_id(&self) -> Result<AttestationKeyId, Failure> {
        Ok(AttestationKeyId::of(self.quoter()?.qe_report()))
    }

    fn init(&self) -> Result<Initialized, Failure> {
        let quoter = self.quoter()?;
        let mut public_key_id = [0; 32];
        public_key_id.copy_from_slice(&quoter.qe_report().reportdata[..32]);
        Ok(Initialized { target_info: quoter.target_info().clone(), public_key_id })
    }

    fn quote_size(&self) -> Result<usize, Failure> {
        Ok(self.quoter()?.quote_size())
    }

    fn quote(&self, report: &Report, challenge: Option<&Challenge>) -> Result<Quoted, Failure> {
        let quoter = self.quoter()?;
        match quote(&quoter, report, challenge) {
            // the machine goes on from a snapshot, on another processor than its key is of
            Err(QuotingError::Refused(_, Refusal::Key | Refusal::Outdated | Refusal::Later)) => {
                self.close(&quoter);
                quote(&*self.quoter()?, report, challenge)
            }
            done => done,
        }
        .map_err(failure)
    }
}

fn quote(quoter: &Quoter, report: &Report, challenge: Option<&Challenge>) -> Result<Quoted, QuotingError> {
    let Some(Challenge { nonce, target }) = challenge else {
        return Ok(Quoted { quote: quoter.quote(report)?, qe_report: None });
    };
    let receipt = Receipt { nonce: *nonce, target_info: target.clone() };
    let (quote, qe_report) = quoter.quote_with_receipt(report, &receipt)?;
    Ok(Quoted { quote, qe_report: Some(qe_report) })
}

/// Where the sealed attestation key is kept: in the service's own folder, if it was given one
/// (*systemd.exec(5)*, `StateDirectory=`).
fn attestation_key() -> PathBuf {
    let usual = Path::new(ATTESTATION_KEY);
    match (env::var_os("STATE_DIRECTORY"), usual.file_name()) {
        (Some(folder), Some(name)) if !folder.is_empty() => Path::new(&folder).join(name),
        _ => usual.to_owned(),
    }
}

/// What programs hear of it.
fn failure(why: QuotingError) -> Failure {
    let code = match &why {
        QuotingError::Provisioned { .. } => Code::NO_PLATFORM_CERT_DATA,
        QuotingError::Load(..) => Code::ENCLAVE_LOAD,
        QuotingError::Call(..) => Code::ENCLAVE_LOST,
        QuotingError::Answer(_) => Code::UNEXPECTED,
        QuotingError::Chain(_) | QuotingError::OtherKey(_) => Code::ATT_KEY_CERT_DATA_INVALID,
        QuotingError::Keep { .. } => Code::FILE_ACCESS,
        QuotingError::Refused(_, refusal) => match refusal {
            Refusal::NoReport | Refusal::Report => Code::INVALID_REPORT,
            Refusal::NoTarget => Code::UNABLE_TO_GENERATE_QE_REPORT,
            Refusal::NotQuotingEnclave => Code::KEY_CERTIFICATION,
            Refusal::Key | Refusal::Outdated | Refusal::Later => Code::ATT_KEY_BLOB,
            Refusal::TooLong => Code::ATT_KEY_CERT_DATA_INVALID,
        },
    };
    Failure { code, cause: why.to_string() }
}
