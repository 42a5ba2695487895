//! TLS that ends inside.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use enclave::report;
use enclave::sgx_abi::Targetinfo;
use enclave::sync::Mutex;
use enclave_tls::{Connection, Identity, Quotes, Server};

/// One key, and one client at a time.
pub struct Tls(Mutex<Parts>);

struct Parts {
    identity: Option<Identity>,
    server: Option<Server>,
    connection: Option<Connection>,
}

fn said(error: impl ToString) -> String {
    error.to_string()
}

impl Tls {
    pub const fn new() -> Self {
        Self(Mutex::new(Parts { identity: None, server: None, connection: None }))
    }

    /// Makes the key; the report's bytes.
    pub fn report(&self) -> Result<Vec<u8>, String> {
        let identity = Identity::generate().map_err(said)?;
        let report = report::report(&Targetinfo::default(), &identity.report_data());
        *self.0.lock() = Parts { identity: Some(identity), server: None, connection: None };
        Ok(zerocopy::IntoBytes::as_bytes(&report).to_vec())
    }

    /// Makes the certificate.
    pub fn serve(&self, quote: &[u8]) -> Result<Vec<u8>, String> {
        let mut parts = self.0.lock();
        let identity = parts.identity.as_ref().ok_or("there is no key")?;
        let server = identity.with_quotes(Quotes::new(quote.to_vec())).map_err(said)?;
        let certificate = server.certificate().to_vec();
        parts.server = Some(server);
        Ok(certificate)
    }

    /// A client's bytes in, bytes for it out.
    pub fn receive(&self, first: bool, bytes: &[u8]) -> Result<(Vec<u8>, bool), String> {
        let mut parts = self.0.lock();
        if first {
            let server = parts.server.as_ref().ok_or("there is no certificate")?;
            parts.connection = Some(server.accept().map_err(said)?);
        }
        let connection = parts.connection.as_mut().ok_or("there is no client")?;
        // after an error there is an alert to send
        let goes_on = connection.receive(bytes).is_ok();
        let heard = connection.take_received();
        if goes_on && !heard.is_empty() {
            connection.send(&heard.to_ascii_uppercase()).map_err(said)?;
        }
        if goes_on && connection.is_ended() {
            connection.close().map_err(said)?;
            return Ok((connection.take_outgoing(), false));
        }
        Ok((connection.take_outgoing(), goes_on))
    }
}
