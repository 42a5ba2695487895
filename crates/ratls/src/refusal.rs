//! Why a server is not believed: the rule that its certificate or its quote broke.

use std::fmt;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError};

/// A refusal: one line that says what is wrong, and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate.
    #[error("certificate: {what} [{}]", rule.name())]
    Certificate {
        /// The rule that was broken.
        rule: Rule,
        /// What is wrong.
        what: String,
    },
    /// The quote in it, its collateral, or what the policy asks of both.
    #[error(transparent)]
    Quote(#[from] dcap::Refusal),
}

impl Refusal {
    pub(crate) fn new(rule: Rule, what: impl fmt::Display) -> Self {
        Self::Certificate { rule, what: what.to_string() }
    }

    /// The name of the rule, which `docs/quotes.md` explains.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Certificate { rule, .. } => rule.name(),
            Self::Quote(refusal) => refusal.rule.name(),
        }
    }
}

/// `Err` with a [`Refusal`] of the certificate.
pub(crate) fn refuse<T>(rule: Rule, what: impl fmt::Display) -> Result<T, Refusal> {
    Err(Refusal::new(rule, what))
}

/// Refuses what comes with certificates of authorities.
pub(crate) fn alone(intermediates: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    match intermediates {
        [] => Ok(()),
        _ => refuse(Rule::Chain, "comes with certificates of authorities, which nobody asks here"),
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(refusal))))
    }
}

/// The refusal in an error of a handshake, if that is why it failed. In an [`std::io::Error`]
/// that a stream gave, `rustls`' error is what `get_ref` has.
pub fn refusal_of(error: &Error) -> Option<&Refusal> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.downcast_ref(),
        _ => None,
    }
}

/// What is asked of a certificate. Rules of quotes are [`dcap::Rule`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// It is no larger than anything genuine: 64 KiB.
    Oversized,
    /// It is X.509, version 3, in DER.
    Encoding,
    /// It stands alone: no authority is asked.
    Chain,
    /// Its own key signed it, with an algorithm that is known; and the handshake.
    Signature,
    /// It is valid already.
    NotYetValid,
    /// It is still valid.
    Expired,
    /// There is evidence in it.
    EvidenceMissing,
    /// Evidence is there once, encoded as its format says.
    Evidence,
    /// The claims are about this certificate's key.
    KeyHash,
    /// The nonce is the one that was asked for.
    Nonce,
}

impl Rule {
    /// Its name in messages and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Encoding => "encoding",
            Self::Chain => "ratls-chain",
            Self::Signature => "ratls-signature",
            Self::NotYetValid => "cert-not-yet-valid",
            Self::Expired => "cert-expired",
            Self::EvidenceMissing => "evidence-missing",
            Self::Evidence => "evidence-encoding",
            Self::KeyHash => "key-hash",
            Self::Nonce => "nonce",
        }
    }
}
