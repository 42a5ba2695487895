//! The guest's network without root: an Ethernet wire on one side, the host's
//! ordinary sockets on the other.
//!
//! The guest is alone on 10.0.2.0/24 with a gateway, a name server and a DHCP
//! server, which are all here. Its TCP connections end here and go on as
//! connections of the host (`tcp`); its UDP conversations and pings have a
//! socket of the host each (`datagrams`). `policy` decides what it may reach.
//!
//! | threat | guard |
//! |---|---|
//! | services of the host itself | its addresses are refused, whichever they are at the time; ports of its loopback by name only |
//! | metadata services, neighbours by broadcast or multicast | refused |
//! | broken frames, packets, options | parsed by smoltcp with lengths checked; what is wrong is dropped |
//! | floods of connections, datagrams, pings | tables of fixed size, a budget for new ones |
//! | a guest that does not read, or a peer that does not | fixed buffers for each connection; back-pressure both ways |
//! | connections that never stand | 64 at a time, 30 seconds each |
//! | forged source addresses | one address is the guest's, others are dropped |
//! | answers from strangers | the host's sockets are connected: its kernel drops them |
//! | strangers at published ports | they are on loopback unless the user says otherwise |
//! | a defect in here | the thread ends, not the process; the guest's network is down |

#![forbid(unsafe_code)]

mod addresses;
mod budget;
mod cable;
mod datagrams;
mod dhcp;
mod fuzz;
mod guest;
mod nat;
mod phy;
mod policy;
mod poll;
mod publish;
mod resolver;
mod tcp;
#[cfg(test)]
mod tests;

pub use addresses::{DNS, GATEWAY, GUEST, GUEST_MAC, MASK};
pub use policy::is_own;

use devices::virtio::net::HostLink;
use nat::{Bell, Nat};
use policy::Policy;
use publish::Published;
use resolver::Resolver;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Where the host keeps its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address and port on the host; port 0: any that is free.
    pub host: SocketAddr,
    /// Port in the guest.
    pub guest: u16,
}

/// What the user wants of the network.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Ports of the host that lead to the guest.
    pub publish: Vec<Publish>,
    /// Ports of the host's loopback that the guest finds at [`GATEWAY`].
    pub allow_host: BTreeSet<u16>,
    /// Services of the host, loopback or not, that the guest finds at TCP ports of
    /// [`GATEWAY`].
    pub services: BTreeMap<u16, SocketAddrV4>,
}

/// Why there is no network: one line with cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A port cannot be published.
    #[error("cannot publish {host}: {reason}")]
    Publish {
        /// Where.
        host: SocketAddr,
        /// Cause and remedy.
        reason: String,
    },
    /// The host.
    #[error("cannot set up the network: {0}; or run with --network none")]
    Host(#[from] io::Error),
}

impl NetError {
    fn publish(host: SocketAddr, e: &io::Error) -> Self {
        let reason = match e.kind() {
            ErrorKind::AddrInUse => "the port is in use; choose another, or 0 for one that is free".into(),
            ErrorKind::PermissionDenied => "ports below 1024 need root; choose another".into(),
            ErrorKind::AddrNotAvailable => "this host has no such address; leave it out for loopback".into(),
            _ => format!("{e}; choose another port"),
        };
        Self::Publish { host, reason }
    }
}

/// The guest's end of the network, as frames.
pub trait Wire: Send {
    /// The next frame from the guest.
    fn receive(&self) -> Option<Vec<u8>>;
    /// Whether there is one.
    fn has_frame(&self) -> bool;
    /// How many frames [`Wire::send`] would take.
    fn room(&self) -> usize;
    /// Queues a frame for the guest; false if there is no room.
    fn send(&self, frame: Vec<u8>) -> bool;
    /// Delivers what was queued, and lets the guest send again.
    fn flush(&self);
    /// `f` is to be called when there is a frame, or room where there was none.
    fn on_wake(&self, f: Box<dyn Fn() + Send + Sync>);
}

impl Wire for HostLink {
    fn receive(&self) -> Option<Vec<u8>> {
        HostLink::receive(self)
    }
    fn has_frame(&self) -> bool {
        HostLink::has_frame(self)
    }
    fn room(&self) -> usize {
        HostLink::room(self)
    }
    fn send(&self, frame: Vec<u8>) -> bool {
        HostLink::send(self, frame)
    }
    fn flush(&self) {
        HostLink::flush(self);
    }
    fn on_wake(&self, f: Box<dyn Fn() + Send + Sync>) {
        HostLink::on_wake(self, f);
    }
}

/// A network whose ports are taken, before there is a guest on it.
pub struct Network {
    policy: Policy,
    published: Published,
}

impl Network {
    /// Takes the published ports and reads which name servers the host has.
    ///
    /// # Errors
    /// [`NetError::Publish`] if a port cannot be had.
    pub fn new(config: &Config) -> Result<Self, NetError> {
        let published = Published::bind(&config.publish)?;
        // without it there are no names, as on the host
        let resolver = Resolver::of_file(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default());
        let policy = Policy::new(config.allow_host.clone(), resolver);
        Ok(Self { policy: policy.with_services(config.services.clone()), published })
    }

    /// The published ports, as they were taken.
    pub fn published(&self) -> Vec<Publish> {
        self.published.ports().collect()
    }

    /// Connects the guest.
    ///
    /// # Errors
    /// [`NetError::Host`] if the host gives no thread or event.
    pub fn connect(self, wire: impl Wire + 'static) -> Result<Connected, NetError> {
        let bell = Arc::new(Bell::new()?);
        let mut nat = Nat::new(Box::new(wire), bell.clone(), self.policy, self.published);
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| nat.run())).is_err() {
                tracing::error!("a defect of Kluis's own: the guest's network is down");
            }
        };
        let thread = std::thread::Builder::new().name("network".into()).spawn(work)?;
        Ok(Connected { bell, thread: Some(thread) })
    }
}

/// A network at work; dropping it ends it.
pub struct Connected {
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.bell.stop.store(true, Ordering::SeqCst);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whose socket it is.
#[derive(Clone, Copy, Debug)]
enum Who {
    Bell,
    Tcp(tcp::Key),
    Datagrams(datagrams::Key),
    Door(usize),
}

/// A hostile guest, for the fuzz targets: carries out the steps that `data`
/// describes and gives how many frames the guest got.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) -> usize {
    fuzz::run(data)
}
