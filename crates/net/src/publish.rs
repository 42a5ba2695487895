//! Ports of the host that lead to the guest.

use crate::addresses::GATEWAY;
use crate::guest::{Guest, MAX_UDP};
use crate::poll::Interest;
use crate::tcp::Tcp;
use crate::{NetError, Protocol, Publish, Who};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// The most correspondents of published UDP ports.
const MAX_PEERS: usize = 256;
/// How long one may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// Connections or datagrams taken at once.
const BATCH: usize = 32;
/// First port that published datagrams come from.
const FIRST_PORT: u16 = 49_152;

enum Door {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

struct Peer {
    door: usize,
    address: SocketAddr,
    until: Instant,
}

/// The published ports.
pub(crate) struct Published {
    doors: Vec<(Door, Publish)>,
    /// Correspondents over UDP, by the gateway's port that stands for each.
    peers: HashMap<u16, Peer>,
    next_port: u16,
}

impl Published {
    /// Takes the ports.
    ///
    /// # Errors
    /// [`NetError::Publish`] for the first that cannot be had.
    pub(crate) fn bind(ports: &[Publish]) -> Result<Self, NetError> {
        let mut doors = Vec::new();
        for port in ports {
            let fail = |e: std::io::Error| NetError::publish(port.host, &e);
            let (door, host) = match port.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(port.host).map_err(fail)?;
                    listener.set_nonblocking(true).map_err(fail)?;
                    let at = listener.local_addr().map_err(fail)?;
                    (Door::Tcp(listener), at)
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(port.host).map_err(fail)?;
                    socket.set_nonblocking(true).map_err(fail)?;
                    let at = socket.local_addr().map_err(fail)?;
                    (Door::Udp(socket), at)
                }
            };
            doors.push((door, Publish { host, ..*port }));
        }
        Ok(Self { doors, peers: HashMap::new(), next_port: FIRST_PORT })
    }

    /// The ports, as they are taken.
    pub(crate) fn ports(&self) -> impl Iterator<Item = Publish> {
        self.doors.iter().map(|(_, about)| *about)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// What is to be waited for: nobody is let in before the guest is there.
    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a, Who>, guest: &Guest) {
        if guest.mac.is_none() || guest.link.room() == 0 {
            return;
        }
        for (i, (door, _)) in self.doors.iter().enumerate() {
            match door {
                Door::Tcp(listener) => interest.add(Who::Door(i), listener, true, false),
                Door::Udp(socket) => interest.add(Who::Door(i), socket, true, false),
            }
        }
    }

    /// Somebody is at a door.
    pub(crate) fn ready(&mut self, i: usize, tcp: &mut Tcp, guest: &Guest, now: Instant) {
        let Some((door, about)) = self.doors.get(i) else { return };
        let port = about.guest;
        match door {
            Door::Tcp(listener) => {
                for _ in 0..BATCH {
                    match listener.accept() {
                        Ok((stream, _)) => tcp.accept(stream, port, now),
                        Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                        Err(_) => break,
                    }
                }
            }
            Door::Udp(socket) => {
                let mut buffer = vec![0; MAX_UDP + 1];
                let mut arrived = Vec::new();
                for _ in 0..BATCH.min(guest.link.room()) {
                    match socket.recv_from(&mut buffer) {
                        Ok((n, from)) if n <= MAX_UDP => arrived.push((from, buffer[..n].to_vec())),
                        Ok(_) => {}
                        Err(_) => break,
                    }
                }
                for (from, data) in arrived {
                    if let Some(stands) = self.stand_for(i, from, now) {
                        guest.udp(SocketAddrV4::new(GATEWAY, stands), port, &data);
                    }
                }
            }
        }
    }

    /// The gateway's port that stands for a correspondent.
    fn stand_for(&mut self, door: usize, address: SocketAddr, now: Instant) -> Option<u16> {
        let until = now + IDLE;
        let known = self.peers.iter_mut().find(|(_, p)| p.door == door && p.address == address);
        if let Some((port, peer)) = known {
            peer.until = until;
            return Some(*port);
        }
        if self.peers.len() >= MAX_PEERS {
            return None;
        }
        // there are more ports than correspondents
        while self.peers.contains_key(&self.next_port) {
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        }
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        self.peers.insert(port, Peer { door, address, until });
        Some(port)
    }

    /// Takes a datagram that the guest sent from `port` to the gateway's port
    /// `to`; false if that stands for nobody.
    pub(crate) fn reply(&mut self, port: u16, to: u16, data: &[u8], now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&to) else { return false };
        match self.doors.get(peer.door) {
            Some((Door::Udp(socket), about)) if about.guest == port => {
                peer.until = now + IDLE;
                // a datagram may get lost
                let _ = socket.send_to(data, peer.address);
                true
            }
            _ => false,
        }
    }

    /// Forgets correspondents that have been silent.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.peers.retain(|_, peer| peer.until > now);
    }
}
