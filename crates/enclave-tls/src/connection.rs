//! A client's connection: bytes of the network in, data out, and the other way round.
//!
//! Nothing here waits or calls the host; so a connection is a value that the enclave keeps
//! between two calls.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{Error, ServerConfig, version};

use crate::provider::provider;

/// The most that is kept of what a client has sent before it can be read, in bytes: a
/// handshake message and its records.
const MAX_INCOMPLETE: usize = 128 << 10;

/// Takes connections in the name of an [`Identity`](crate::Identity).
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

impl Server {
    pub(crate) fn new(certificate: CertificateDer<'static>, key: SingleCertAndKey) -> Result<Self, Error> {
        let mut config = ServerConfig::builder_with_details(Arc::new(provider()), Arc::new(NoClock))
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(key));
        // every connection shows the evidence
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// The certificate in DER. It is no secret.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// A new connection, of which nothing has come yet.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn accept(&self) -> Result<Connection, TlsError> {
        let tls = UnbufferedServerConnection::new(self.config.clone())?;
        Ok(Connection {
            tls,
            incoming: Vec::new(),
            received: Vec::new(),
            outgoing: Vec::new(),
            state: State::Handshake,
        })
    }
}

/// Only the age of tickets is asked for, and there are none.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(core::time::Duration::ZERO))
    }
}

/// Why a connection does not go on.
#[derive(Clone, Debug, PartialEq)]
pub enum TlsError {
    /// The other side does not keep to the protocol, has ended it, or has nothing in common
    /// with this one.
    Tls(Error),
    /// It has sent more than a message can have before one was whole.
    TooLong,
    /// Nothing can be sent yet: the handshake goes on.
    Handshake,
    /// This side has said that it is done, or an error has ended the connection.
    Over,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::TooLong => f.write_str("the client sends what is longer than any message"),
            Self::Handshake => f.write_str("the handshake is not finished: receive more first"),
            Self::Over => f.write_str("the connection is over"),
        }
    }
}

impl core::error::Error for TlsError {}

impl From<Error> for TlsError {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Keys are not agreed on.
    Handshake,
    /// Data goes both ways.
    Traffic,
    /// The client has said that there is no more.
    Ended,
    /// After [`Connection::close`] or an error.
    Over,
}

/// A connection.
pub struct Connection {
    tls: UnbufferedServerConnection,
    /// From the network, not read yet.
    incoming: Vec<u8>,
    /// Data of the client's.
    received: Vec<u8>,
    /// For the network.
    outgoing: Vec<u8>,
    state: State,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Connection {
    /// Takes what has come from the network, in pieces of any length. There may be something
    /// to send afterwards, also after an error: then it is the alert that tells the client.
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        if self.state == State::Over {
            return Err(TlsError::Over);
        }
        self.incoming.extend_from_slice(bytes);
        let done = self.advance().and_then(|()| match self.incoming.len() {
            0..=MAX_INCOMPLETE => Ok(()),
            _ => Err(TlsError::TooLong),
        });
        if done.is_err() {
            self.flush();
            self.state = State::Over;
            self.incoming = Vec::new();
        }
        done
    }

    /// Encrypts data for the client.
    ///
    /// # Errors
    /// It cannot be sent yet, or not any more.
    pub fn send(&mut self, data: &[u8]) -> Result<(), TlsError> {
        self.write(|traffic, to| traffic.encrypt(data, to))
    }

    /// Tells the client that there is no more.
    ///
    /// # Errors
    /// As of [`Connection::send`].
    pub fn close(&mut self) -> Result<(), TlsError> {
        self.write(|traffic, to| traffic.queue_close_notify(to))?;
        self.state = State::Over;
        Ok(())
    }

    /// The client's data that has come since it was asked for.
    pub fn take_received(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.received)
    }

    /// What is to go to the network, in this order.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.outgoing)
    }

    /// Whether data can be sent: the handshake is finished, this side has not closed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Traffic | State::Ended)
    }

    /// Whether the client has said that there is no more. Data without that may have been
    /// cut by the host.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Goes on until more must come from the network.
    fn advance(&mut self) -> Result<(), TlsError> {
        while self.step()? {}
        Ok(())
    }

    /// Handles one state of the protocol; whether there may be another.
    fn step(&mut self) -> Result<bool, TlsError> {
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
        let handled = match state {
            Ok(ConnectionState::EncodeTlsData(mut encode)) => {
                append(&mut self.outgoing, |to| encode.encode(to)).map(|()| true)
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                transmit.done();
                Ok(true)
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => self.received.extend_from_slice(record.payload),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Ok(true),
                }
            },
            Ok(ConnectionState::PeerClosed) => {
                self.state = State::Ended;
                Ok(true)
            }
            Ok(ConnectionState::WriteTraffic(_)) => {
                if self.state == State::Handshake {
                    self.state = State::Traffic;
                }
                Ok(false)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(false),
            // early data, which is not offered
            Ok(_) => Err(Error::General("an unknown state of TLS".into()).into()),
            Err(error) => Err(error.into()),
        };
        // also after an error: rustls counts on it
        self.incoming.drain(..discard);
        handled
    }

    /// Takes out the alert of an error: what is to be sent comes before the error is told again.
    fn flush(&mut self) {
        while self.step() == Ok(true) {}
    }

    fn write(
        &mut self,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        match self.state {
            State::Handshake => return Err(TlsError::Handshake),
            State::Over => return Err(TlsError::Over),
            State::Traffic | State::Ended => {}
        }
        // answers of the protocol's own come first
        self.receive(&[])?;
        let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.incoming);
        let written = match state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                append(&mut self.outgoing, |to| write(&mut traffic, to))
            }
            // `receive` has left nothing else
            _ => Err(TlsError::Over),
        };
        self.incoming.drain(..discard);
        written
    }
}

type WriteTraffic<'a> = rustls::unbuffered::WriteTraffic<'a, rustls::server::ServerConnectionData>;

/// What can be written when there is room.
trait NeedsRoom {
    /// How much it takes.
    fn room(&self) -> Option<usize>;
}

impl NeedsRoom for EncodeError {
    fn room(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl NeedsRoom for EncryptError {
    fn room(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(size) => Some(size.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Appends what `write` writes, once it has said how much that is.
fn append<E: NeedsRoom>(
    to: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), TlsError> {
    let start = to.len();
    let written = write(&mut []).or_else(|error| {
        let room = error.room().ok_or(error)?;
        to.resize(start + room, 0);
        write(&mut to[start..])
    });
    to.truncate(start + written.as_ref().map_or(0, |&written| written));
    // keys that were used too often, after 2^24 records of which each has new ones
    written.map(drop).map_err(|_| TlsError::Tls(Error::EncryptError))
}
