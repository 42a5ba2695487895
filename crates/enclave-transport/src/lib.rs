//! How the host program of an enclave serves clients elsewhere: on the machine around its
//! own, by a published port or a vsock, or beside it.
//!
//! What clients may ask for is an interface like that of the enclave: a trait, of which
//! both sides are built.
//!
//! ```
//! use enclave_interface::interface;
//! use enclave_transport::{Client, Limits, Server};
//!
//! #[interface]
//! pub trait Echo {
//!     fn echo(&self, text: &str) -> String;
//! }
//! # struct Same;
//! # impl Echo for Same { fn echo(&self, text: &str) -> String { text.into() } }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // in the machine: `tcp:0.0.0.0:7000` or `vsock:7000`
//! # let folder = tempfile::tempdir()?;
//! # let endpoint = format!("unix:{}", folder.path().join("echo").display());
//! let server = Server::bind(&endpoint.parse()?, Limits::default())?;
//! # std::thread::spawn(move ||
//! server.serve(|function, arguments| Same.dispatch(function, arguments))
//! # );
//! # ;
//! // outside: `tcp:127.0.0.1:7000`, or the socket that the vsock's port has there
//! let client = Client::connect(&endpoint.parse()?, Limits::default())?;
//! assert_eq!(EchoClient(client).echo("hello")?, "hello");
//! # Ok(())
//! # }
//! ```
//!
//! * [`Endpoint`]: where a server is
//! * [`Server`], [`Client`]: requests and responses, by the functions of an interface
//! * [`frame`]: what they are on the stream
//! * [`Listener`], [`Stream`]: for those who speak otherwise, TLS that ends in an enclave, say
//!
//! Neither side trusts the other: a message is at most as long as the receiver says, has to
//! arrive in time, and is decoded by its type. What is secret is encrypted by those whom
//! it concerns: nothing here is.

mod client;
mod endpoint;
pub mod frame;
mod server;
mod stream;
mod vsock;

use std::time::Duration;

pub use client::{Client, Error};
pub use endpoint::{BadEndpoint, Endpoint};
pub use server::Server;
pub use stream::{Listener, Stream, Timed};

/// What a side grants the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a message.
    pub message: usize,
    /// Most connections that a server has at a time; others wait.
    pub connections: usize,
    /// How long a message may take, from when it is waited for until it is there as a
    /// whole; a client tries as long to find its server.
    pub patience: Duration,
}

impl Default for Limits {
    /// 1 MiB, 64 connections, a minute.
    fn default() -> Self {
        Self { message: 1 << 20, connections: 64, patience: Duration::from_secs(60) }
    }
}
