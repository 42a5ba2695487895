//! The verifier: from a certificate, a root and a time to what the enclave is.

use std::sync::Arc;

use dcap::policy::ReportData;
use dcap::{Collateral, Policy, Quote, Root, Time, Trusted, Verdict};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme, version};

use crate::certificate::{Certificate, Format};
use crate::refusal::{Refusal, Rule, alone, refuse};

/// Whom a client believes, and what it wants of the enclave.
#[derive(Clone, Debug)]
pub struct Verifier {
    root: Root,
    collateral: Collateral,
    policy: Policy,
    nonce: Option<Vec<u8>>,
    /// Whether the quote must speak for the certificate's key: always, but in builds for tests.
    binding: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What a certificate proves: who shows that it has its key is this enclave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// What its quote says.
    pub verdict: Verdict,
    /// In which format it was there.
    pub format: Format,
    /// The nonce that the enclave was given before its report.
    pub nonce: Option<Vec<u8>>,
}

impl Verifier {
    /// Believes quotes below this root, by this collateral, of enclaves that the policy
    /// accepts. As always a platform whose root is not Intel's takes
    /// [`Policy::accept_software_platform`].
    pub fn new(root: Root, collateral: Collateral, policy: Policy) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { root, collateral, policy, nonce: None, binding: true, algorithms }
    }

    /// Asks for this nonce in the evidence: then the report was made after it was chosen. How
    /// it gets to the enclave is the caller's affair.
    #[must_use]
    pub fn nonce(mut self, nonce: &[u8]) -> Self {
        self.nonce = Some(nonce.to_vec());
        self
    }

    /// Leaves out that the quote binds the key: shows that tests notice.
    #[cfg(feature = "unchecked")]
    #[must_use]
    pub fn without_binding(mut self) -> Self {
        self.binding = false;
        self
    }

    /// Verifies a certificate, in DER, by itself: that the other side has its key is what a
    /// handshake shows.
    ///
    /// # Errors
    /// The rule that it breaks, or its quote, or the collateral at that time.
    pub fn verify(&self, certificate: &[u8], at: Time) -> Result<Attested, Refusal> {
        let certificate = Certificate::read(certificate, &self.algorithms)?;
        certificate.check_validity(at)?;
        let speaks = certificate.evidence()?;
        if self.nonce.is_some() && self.nonce != speaks.nonce {
            return refuse(Rule::Nonce, "the evidence has another nonce than was asked for, or none");
        }
        let quote = Quote::parse(&speaks.quote)?;
        let verdict = Trusted::new(&self.collateral, &self.root, at)?.verify(&quote)?;
        // a quote that does not speak for this key says nothing of this server
        if self.binding {
            ReportData(speaks.report_data.to_vec()).check(&verdict.report)?;
        }
        self.policy.check(&verdict)?;
        Ok(Attested { verdict, format: speaks.format, nonce: speaks.nonce })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        alone(intermediates)?;
        let at = Time::from_unix(now.as_secs())
            .ok_or_else(|| Refusal::new(Rule::Expired, "the clock is beyond the year 9999"))?;
        self.verify(end_entity, at)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A client's configuration: TLS 1.3, and evidence that is verified for every connection,
/// at the time of the connection.
pub fn client_config(verifier: Verifier) -> ClientConfig {
    config(ring::default_provider(), verifier)
}

/// TLS 1.3 with a server of whom this verifier decides.
pub(crate) fn config(provider: CryptoProvider, verifier: impl ServerCertVerifier + 'static) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    // where the enclave is, it knows: no name goes over the network in clear
    config.enable_sni = false;
    config
}
