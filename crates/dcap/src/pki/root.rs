//! The root that a verifier trusts.

use std::sync::LazyLock;

use crate::error::{Refusal, Rule, refuse};
use crate::key::sha256;
use crate::pki::certificate::{Certificate, Role};
use crate::pki::pem::certificates_from_pem;

/// Intel's root certificate, as Intel publishes it.
static INTEL: LazyLock<Root> =
    LazyLock::new(|| Root::from_der(include_bytes!("intel-sgx-root-ca.der")).expect("tested"));

/// A root certificate, given by the caller: whose platforms are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(Certificate);

impl Root {
    /// From DER. It must be a root of its role and have signed itself.
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        let certificate = Certificate::parse(Role::Root, der)?;
        certificate.check_issued_by(&certificate, certificate.validity().from)?;
        Ok(Self(certificate))
    }

    /// From PEM with one certificate in it.
    pub fn from_pem(text: &[u8]) -> Result<Self, Refusal> {
        match certificates_from_pem(text, "root certificate")?.as_slice() {
            [der] => Self::from_der(der),
            others => {
                let says = format!("has {} certificates; one is wanted", others.len());
                refuse(Rule::ChainLength, "root certificate", says)
            }
        }
    }

    /// Intel's, the only one that stands for silicon.
    pub fn intel() -> Self {
        INTEL.clone()
    }

    /// True for Intel's. Every other root stands for a platform of software: nothing keeps
    /// its owner from reading its enclaves.
    pub fn is_intel(&self) -> bool {
        self.0.key() == INTEL.0.key()
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }

    /// SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&[self.0.der()])
    }

    /// Refuses the last certificate of a chain unless it is of this root's name and key.
    pub(crate) fn check_same(&self, der: &[u8], chain: &str) -> Result<(), Refusal> {
        if der == self.0.der() {
            return Ok(());
        }
        // renewed, or another one
        let Self(other) = Self::from_der(der)?;
        if other.subject() != self.0.subject() || other.key() != self.0.key() {
            let says = format!(
                "ends at \"{}\", which is not the trusted root \"{}\"",
                other.common_name(),
                self.0.common_name()
            );
            return refuse(Rule::ForeignRoot, chain, says);
        }
        Ok(())
    }
}
