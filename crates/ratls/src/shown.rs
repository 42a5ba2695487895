//! What a server shows, taken without believing it: for those who verify a quote elsewhere,
//! or later.
//!
//! No connection comes of it. Whom nobody has verified nothing is sent to.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, Error, InvalidMessage, PeerIncompatible,
    SignatureScheme,
};

use crate::certificate::{Certificate, MAX_CERTIFICATE, Speaks};
use crate::refusal::{Refusal, Rule, alone, refusal_of};
use crate::verifier::config;

/// Why there is no evidence of a server.
#[derive(Debug, thiserror::Error)]
pub enum NotShown {
    /// It shows something that does not speak for its key, or does not have that key.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It does not speak TLS 1.3 with a client that knows nothing of it.
    #[error("it does not speak TLS 1.3: {0}")]
    Tls(Error),
    /// The connection failed, or was ended.
    #[error(transparent)]
    Io(io::Error),
}

/// The evidence of a server's key, after a whole handshake in which the server has shown that
/// it has this key; the connection is then ended. [`Speaks::quote`] holds: the quote binds the
/// key. Whether the quote is genuine, and of which enclave, is not looked at.
///
/// How long the server may take is the stream's affair.
///
/// # Errors
/// As [`NotShown`] says.
pub fn evidence_of(server: &mut (impl Read + Write)) -> Result<Speaks, NotShown> {
    let config = config(ring::default_provider(), Looker::new());
    let name = ServerName::try_from("enclave").map_err(|e| NotShown::Io(io::Error::other(e)))?;
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(NotShown::Tls)?;
    while client.is_handshaking() {
        client.complete_io(server).map_err(not_shown)?;
    }
    let certificate = client.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or(NotShown::Tls(Error::NoCertificatesPresented))?;
    let speaks = Looker::new().look(certificate)?;
    // all that was wanted is there: a server that does not wait for the end may go
    client.send_close_notify();
    while client.wants_write() && client.write_tls(server).is_ok_and(|written| written > 0) {}
    let _ = server.flush();
    Ok(speaks)
}

fn not_shown(error: io::Error) -> NotShown {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let refused = |rule, what: String| NotShown::Refused(Refusal::new(rule, what));
    match tls {
        None if error.kind() == ErrorKind::UnexpectedEof => {
            NotShown::Io(io::Error::new(error.kind(), "it ended the connection during the handshake"))
        }
        None => NotShown::Io(error),
        Some(tls) => match (refusal_of(tls), tls) {
            (Some(refusal), _) => NotShown::Refused(refusal.clone()),
            (_, Error::InvalidCertificate(CertificateError::BadSignature)) => {
                refused(Rule::Signature, "the server has not its key: another signed the handshake".into())
            }
            (
                _,
                Error::InvalidMessage(
                    InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
                ),
            ) => refused(Rule::Oversized, format!("has more than {MAX_CERTIFICATE} bytes")),
            _ => NotShown::Tls(tls.clone()),
        },
    }
}

/// Asks that a server's certificate has evidence of its key, and that the server has the key.
#[derive(Debug)]
struct Looker {
    algorithms: WebPkiSupportedAlgorithms,
}

impl Looker {
    fn new() -> Self {
        Self { algorithms: ring::default_provider().signature_verification_algorithms }
    }

    fn look(&self, certificate: &[u8]) -> Result<Speaks, Refusal> {
        let speaks = Certificate::read(certificate, &self.algorithms)?.evidence()?;
        speaks.quote()?;
        Ok(speaks)
    }
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        alone(intermediates)?;
        self.look(end_entity)?;
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
