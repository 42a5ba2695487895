//! A server inside an enclave, and a client of it, in one process.

// each test uses its part
#![allow(dead_code)]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use dcap::testing::{Bundle, Parts};
use enclave_tls::{Connection, Identity, Quotes, Server};
use ratls::{Policy, Root, Time, Verifier, client_config};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, Error};

/// An enclave's identity, the quotes that a platform gives it, and what verifies them.
pub(crate) struct Enclave {
    pub(crate) identity: Identity,
    pub(crate) server: Server,
    pub(crate) bundle: Bundle,
}

impl Enclave {
    /// One whose platform and report are changed before they are signed.
    pub(crate) fn new(change: impl Fn(&mut Parts)) -> Self {
        let identity = Identity::with_nonce(Some(b"nonce")).unwrap();
        let bundle = quoted(&change, identity.report_data());
        let server = identity.with_quotes(Quotes::new(bundle.quote.clone())).unwrap();
        Self { identity, server, bundle }
    }

    /// A verifier that accepts it, but for what the policy says.
    pub(crate) fn verifier(&self, policy: Policy) -> Verifier {
        let root = Root::from_der(&self.bundle.root).unwrap();
        Verifier::new(root, self.bundle.collateral.clone(), policy)
    }
}

/// A platform, and its quote of a report with these report data.
pub(crate) fn quoted(change: &impl Fn(&mut Parts), report_data: [u8; 64]) -> Bundle {
    let mut parts = Parts::default();
    change(&mut parts);
    parts.report.reportdata = report_data;
    parts.bundle().unwrap()
}

/// The policy of somebody who knows that the platform is software.
pub(crate) fn software() -> Policy {
    Policy { accept_software_platform: true, ..Policy::default() }
}

/// A clock that stands still.
#[derive(Debug)]
struct At(Time);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.unix())))
    }
}

/// A client's configuration as of a time.
pub(crate) fn config_at(verifier: Verifier, at: Time) -> ClientConfig {
    let mut config = client_config(verifier);
    config.time_provider = Arc::new(At(at));
    config
}

/// A client that takes up a connection.
pub(crate) fn connect(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(config.clone(), "enclave".try_into().unwrap()).unwrap()
}

/// All that one side has to say goes to the other, in pieces, until neither has more; the
/// data that the client has heard.
pub(crate) fn exchange(client: &mut ClientConnection, server: &mut Connection) -> Result<Vec<u8>, Error> {
    let mut heard = Vec::new();
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        for piece in to_server.chunks(1000) {
            // the client's alert, when it does not believe the server, is an error here
            let _ = server.receive(piece);
        }
        let to_client = server.take_outgoing();
        if to_server.is_empty() && to_client.is_empty() {
            return Ok(heard);
        }
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
            // the end of what there is now is an error to it
            let _ = client.reader().read_to_end(&mut heard);
        }
    }
}

/// A whole handshake.
pub(crate) fn handshake(
    config: &Arc<ClientConfig>,
    server: &Server,
) -> Result<(ClientConnection, Connection), Error> {
    let (mut client, mut connection) = (connect(config), server.accept().unwrap());
    exchange(&mut client, &mut connection)?;
    Ok((client, connection))
}
