//! What a machine is provisioned with, and the enclave that certifies.

use std::fs;
use std::path::{Path, PathBuf};

use architectural_interface::CertificationClient;
use enclave_host::{Enclave, Files, Options};
use sgx_abi::{Report, ReportBody, Targetinfo};
use zerocopy::{FromBytes, IntoBytes};

use crate::QuotingError;

/// Where a machine's provisioning is.
pub const FOLDER: &str = "/usr/share/kluis/attestation";

/// The longest chain that is read, in bytes; a quote is no longer than 64 KiB.
const MAX_CHAIN: usize = 16 << 10;

/// The folder that a machine is provisioned with: `pce.sgxs`, `pce.sig`, `qe.sgxs`, `qe.sig`,
/// signed by the platform's maker, and `pck-chain.pem`.
#[derive(Clone, Debug)]
pub struct Provisioned(PathBuf);

impl Default for Provisioned {
    /// [`FOLDER`].
    fn default() -> Self {
        Self::at(FOLDER)
    }
}

impl Provisioned {
    /// The same files elsewhere.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Loads one of the enclaves. If it is lost with the EPC, the next call finds it loaded
    /// again.
    pub(crate) fn load(&self, name: &'static str, stem: &str) -> Result<Enclave, QuotingError> {
        let file = |end: &str| self.0.join(format!("{stem}.{end}"));
        let files = Files::read(file("sgxs"), file("sig"));
        let loaded = files.and_then(|files| Enclave::load(files, Options::new().on_loss(|| true)));
        loaded.map_err(|e| QuotingError::Load(name, e))
    }

    /// Loads the provisioning-certification enclave.
    ///
    /// # Errors
    /// It is not there, or the processor does not take it.
    pub fn certifier(&self) -> Result<Certifier, QuotingError> {
        Ok(Certifier(self.load(Certifier::NAME, "pce")?))
    }

    /// The chain of the PCK certificate, which is that of `key`.
    pub(crate) fn chain(&self, key: &[u8; 64]) -> Result<Vec<u8>, QuotingError> {
        let path = self.0.join("pck-chain.pem");
        let chain = fs::read(&path).map_err(|why| QuotingError::Provisioned { path: path.clone(), why })?;
        match leaf(&chain).filter(|_| chain.len() <= MAX_CHAIN) {
            None => Err(QuotingError::Chain(path)),
            Some(leaf) if !names(&leaf, key) => Err(QuotingError::OtherKey(path)),
            Some(_) => Ok(chain),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }
}

/// The first certificate of a chain, as DER.
fn leaf(chain: &[u8]) -> Option<Vec<u8>> {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let end = chain.windows(END.len()).position(|window| window == END)? + END.len();
    pem_rfc7468::decode_vec(&chain[..end]).ok().map(|(_, der)| der)
}

/// Whether a certificate has a key in it, which spares a parser: that the chain verifies is
/// for those who get the quote.
fn names(der: &[u8], key: &[u8; 64]) -> bool {
    der.windows(65).any(|window| window[0] == 4 && &window[1..] == key)
}

/// The provisioning-certification enclave (PCE).
pub struct Certifier(Enclave);

impl Certifier {
    const NAME: &str = "provisioning-certification";

    /// What a report for it needs.
    ///
    /// # Errors
    /// The enclave has ended.
    pub fn target_info(&self) -> Result<Targetinfo, QuotingError> {
        answer(Self::NAME, CertificationClient(&self.0).target_info()).and_then(|bytes| {
            Targetinfo::read_from_bytes(&bytes).map_err(|_| QuotingError::Answer(Self::NAME))
        })
    }

    /// The public PCK key: x and y.
    ///
    /// # Errors
    /// The enclave has ended.
    pub fn pck_key(&self) -> Result<[u8; 64], QuotingError> {
        exact(Self::NAME, answer(Self::NAME, CertificationClient(&self.0).pck_key())?)
    }

    /// The PCK key's signature of the body of the quoting enclave's report.
    ///
    /// # Errors
    /// The report is not one of the quoting enclave's, for this enclave.
    pub fn certify(&self, report: &Report) -> Result<[u8; 64], QuotingError> {
        let answered = answer(Self::NAME, CertificationClient(&self.0).certify(report.as_bytes()))?;
        exact(Self::NAME, answered.map_err(|refusal| QuotingError::Refused(Self::NAME, refusal))?)
    }

    /// Certifies a report with a chain that is found in `from`: the bytes that follow the
    /// attestation key in quotes.
    pub(crate) fn certification(
        &self,
        from: &Provisioned,
        report: &Report,
        auth_data: &[u8],
    ) -> Result<Vec<u8>, QuotingError> {
        let body: &ReportBody = &report.body;
        let mut chain = from.chain(&self.pck_key()?)?;
        // it ends with a NUL, as Intel's do
        chain.push(0);
        let certification = quote_abi::Certification {
            qe_report: body,
            qe_report_signature: &self.certify(report)?,
            qe_auth_data: auth_data,
            kind: quote_abi::PCK_CHAIN,
            data: &chain,
        };
        certification.to_bytes().ok_or_else(|| QuotingError::Chain(from.0.clone()))
    }
}

/// What an enclave answers.
pub(crate) fn answer<T>(
    name: &'static str,
    called: Result<T, enclave_host::interface::CallError<enclave_host::Error>>,
) -> Result<T, QuotingError> {
    called.map_err(|e| QuotingError::Call(name, e))
}

/// The same, of a length that is known.
pub(crate) fn exact<const N: usize>(name: &'static str, bytes: Vec<u8>) -> Result<[u8; N], QuotingError> {
    bytes.try_into().map_err(|_| QuotingError::Answer(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_is_the_first_certificate() {
        let chain = b"-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n\
                      -----BEGIN CERTIFICATE-----\nAwQF\n-----END CERTIFICATE-----\n";
        assert_eq!(leaf(chain), Some(vec![0, 1, 2]));
        for none in [&b""[..], b"-----END CERTIFICATE-----", b"-----BEGIN CERTIFICATE-----\nAAEC\n"] {
            assert_eq!(leaf(none), None);
        }
    }

    #[test]
    fn a_key_is_found_as_a_point() {
        let mut der = vec![1, 2, 4];
        der.extend([7; 64]);
        assert!(names(&der, &[7; 64]));
        assert!(!names(&der[1..66], &[7; 64]));
        der[2] = 3;
        assert!(!names(&der, &[7; 64]));
    }
}
