//! HTTPS for services on the user's own host.
//!
//! * [`authority`]: a certificate authority whom clients can be told to believe, because it
//!   can vouch for this host and private networks alone
//! * [`server`]: TLS and HTTP/1.1 with a bound for whatever a client can send, hold or delay
//!
//! What is answered is a plain function of a request: [`server::Handler`].
#![forbid(unsafe_code)]

pub mod authority;
pub mod server;

pub use authority::{Authority, Key, Leaves};
pub use server::{Limits, Server};
