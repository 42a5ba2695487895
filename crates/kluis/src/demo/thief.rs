//! A server with a key of its own that shows a quote it has recorded: everything in that is
//! genuine, but of another's key.

use crate::exit::Error;
use clinic_records::gift::KEPT;
use enclave_tls::evidence::{Claims, EVIDENCE, Evidence};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PublicKeyData};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long it waits for its victim to say something.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who waits for a client.
pub(super) struct Thief {
    pub(super) socket: PathBuf,
    /// How many bytes it heard of what the client says in TLS.
    heard: JoinHandle<usize>,
}

impl Thief {
    /// Waits in this folder, with that quote.
    ///
    /// # Errors
    /// There is no certificate or socket.
    pub(super) fn wait(folder: &Path, quote: &[u8]) -> Result<Self, Error> {
        let config =
            config(quote).map_err(|e| Error::failed(format!("the thief has no certificate: {e}")))?;
        let socket = folder.join("thief.socket");
        let listener = UnixListener::bind(&socket)
            .map_err(|e| Error::failed(format!("cannot listen at {}: {e}", socket.display())))?;
        let serve = move || {
            let Ok((stream, _)) = listener.accept() else { return 0 };
            let limited = stream.set_read_timeout(Some(PATIENCE));
            let Ok(connection) = ServerConnection::new(Arc::new(config)) else { return 0 };
            let mut stream = StreamOwned::new(connection, stream);
            let mut heard = [0; 64];
            let count = limited.and_then(|()| stream.read(&mut heard)).unwrap_or(0);
            // whoever believes it is not to notice
            let _ = stream.write_all(KEPT).and_then(|()| stream.flush());
            count
        };
        let heard = thread::Builder::new().spawn(serve).map_err(Error::no_thread)?;
        Ok(Self { socket, heard })
    }

    /// What it has got.
    ///
    /// # Errors
    /// It has come to no end.
    pub(super) fn heard(self) -> Result<usize, Error> {
        self.heard.join().map_err(|_| Error::failed("the thief has panicked"))
    }
}

fn config(quote: &[u8]) -> Result<ServerConfig, Box<dyn std::error::Error>> {
    let key = KeyPair::generate()?;
    // the claims are true: of this key. The quote binds others.
    let claims = Claims::of_key(&key.subject_public_key_info(), None).write();
    let evidence = Evidence { quote, claims: &claims }.write();
    let oid: Vec<u64> = EVIDENCE.arcs().map(u64::from).collect();
    let mut params = CertificateParams::default();
    params.custom_extensions.push(CustomExtension::from_oid_content(&oid, evidence));
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?)
}
