//! Chains and revocation lists, by the command `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use der::pem::{LineEnding, encode_string};
use der::{DateTime, Encode};
use mc_attestation_verifier::{CertificateChainVerifier, CertificateChainVerifierError as Error};
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;

/// Verifies chains that end at a root, strictly, with the list of every authority.
#[derive(Debug)]
pub struct OpenSsl {
    folder: tempfile::TempDir,
}

impl OpenSsl {
    /// Trusts a root, given in PEM.
    pub fn trusting(root: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("root.pem"), root).expect("writes there");
        Self { folder }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("writes there");
        path
    }
}

fn pem(label: &str, value: &impl Encode) -> String {
    let der = value.to_der().expect("what was read can be written");
    encode_string(label, LineEnding::LF, &der).expect("a label of letters")
}

impl CertificateChainVerifier for OpenSsl {
    fn verify_certificate_chain<'a, 'b>(
        &self,
        chain: impl IntoIterator<Item = &'a Certificate>,
        crls: impl IntoIterator<Item = &'b CertificateList>,
        time: impl Into<Option<DateTime>>,
    ) -> Result<(), Error> {
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or(Error::GeneralCertificateError)?;
        let others: String = chain.map(|one| pem("CERTIFICATE", one)).collect();
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-crl_check_all", "-CAfile"]);
        command.arg(self.folder.path().join("root.pem"));
        match time.into() {
            Some(time) => command.args(["-attime", &time.unix_duration().as_secs().to_string()]),
            None => command.arg("-no_check_time"),
        };
        for (number, list) in crls.into_iter().enumerate() {
            command.arg("-CRLfile").arg(self.file(&format!("{number}.crl"), &pem("X509 CRL", list)));
        }
        if !others.is_empty() {
            command.arg("-untrusted").arg(self.file("others.pem", &others));
        }
        let leaf: &Path = &self.file("leaf.pem", &pem("CERTIFICATE", leaf));
        let output = command.arg(leaf).output().expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(()),
            false if said.contains("revoked") => Err(Error::CertificateRevoked),
            false if said.contains("not yet valid") => Err(Error::CertificateNotYetValid),
            false if said.contains("expired") => Err(Error::CertificateExpired),
            false => Err(Error::GeneralCertificateError),
        }
    }
}
