//! TCP: a connection of the guest ends here, and goes on as one of the host.
//!
//! The guest's first segment is kept until the host's connection stands; what
//! became of that is then the guest's answer. A segment of no known connection,
//! or to where the guest may not go, is answered by the stack itself, with a
//! reset.

use crate::Who;
use crate::addresses::{GATEWAY, GUEST, PREFIX};
use crate::budget::Budget;
use crate::guest::Guest;
use crate::phy::Phy;
use crate::policy::Policy;
use crate::poll::Interest;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{HardwareAddress, Icmpv4DstUnreachable, IpCidr, Ipv4Packet, Ipv4Repr, TcpPacket};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

/// The most connections.
pub(crate) const MAX_FLOWS: usize = 512;
/// The most of them that do not stand yet.
pub(crate) const MAX_CONNECTING: usize = 64;
/// Bytes buffered for a connection in each direction.
const BUFFER: usize = 128 << 10;
/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(30);
/// A connection so long without data may make room for a new one.
const IDLE: Duration = Duration::from_secs(60);
/// First port that published connections come from.
const FIRST_PORT: u16 = 49_152;

/// A connection: the guest's port, and the other end as the guest sees it.
pub(crate) type Key = (u16, SocketAddrV4);

enum Stage {
    /// The host's connection does not stand yet; the guest's first segment.
    Connecting { syn: Vec<u8> },
    /// The stack has the guest's end.
    Open(SocketHandle),
}

struct Flow {
    host: TcpStream,
    stage: Stage,
    /// When data moved last, or it began.
    active: Instant,
    /// The host's end may have something to read.
    readable: bool,
    /// The host's end takes no more for now.
    blocked: bool,
    /// The host's end has sent all.
    host_done: bool,
    /// The guest has sent all, and the host's end knows.
    guest_done: bool,
}

/// All connections.
pub(crate) struct Tcp {
    interface: Interface,
    sockets: SocketSet<'static>,
    received: VecDeque<Vec<u8>>,
    flows: HashMap<Key, Flow>,
    /// The stack's time zero.
    start: Instant,
    next_port: u16,
}

impl Tcp {
    pub(crate) fn new(guest: &Guest, now: Instant) -> Self {
        let mut received = VecDeque::new();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = RandomState::new().build_hasher().finish();
        let mut phy = Phy { received: &mut received, guest };
        let mut interface = Interface::new(config, &mut phy, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // there is room for the first
            let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX));
        });
        // all addresses are ours, by a route through ourselves
        interface.set_any_ip(true);
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY);
        Self {
            interface,
            sockets: SocketSet::new(Vec::new()),
            received,
            flows: HashMap::new(),
            start: now,
            next_port: FIRST_PORT,
        }
    }

    /// Takes a TCP packet of the guest.
    pub(crate) fn packet(
        &mut self,
        header: &Ipv4Repr,
        packet: &[u8],
        policy: &mut Policy,
        budget: &mut Budget,
        guest: &Guest,
        now: Instant,
    ) {
        let Ok(ip) = Ipv4Packet::new_checked(packet) else { return };
        let Ok(segment) = TcpPacket::new_checked(ip.payload()) else { return };
        let seen = SocketAddrV4::new(header.dst_addr, segment.dst_port());
        let key = (segment.src_port(), seen);
        match self.flows.get(&key) {
            Some(Flow { stage: Stage::Connecting { .. }, .. }) => {
                if segment.rst() {
                    self.flows.remove(&key);
                }
                return;
            }
            None if segment.syn() && !segment.ack() => {
                if let Some(to) = policy.connection(seen) {
                    if self.make_room(now) && budget.take(now) {
                        self.connect(key, to, packet.to_vec(), guest, now);
                    }
                    // else the guest will try again
                    return;
                }
            }
            _ => {}
        }
        self.received.push_back(packet.to_vec());
    }

    /// Whether there is room for one more connection; makes it if there is an
    /// idle one.
    fn make_room(&mut self, now: Instant) -> bool {
        let connecting = |f: &&Flow| matches!(f.stage, Stage::Connecting { .. });
        if self.flows.values().filter(connecting).count() >= MAX_CONNECTING {
            return false;
        }
        if self.flows.len() < MAX_FLOWS {
            return true;
        }
        let idlest = self.flows.iter().min_by_key(|(_, flow)| flow.active);
        match idlest.map(|(key, flow)| (*key, flow.active)) {
            Some((key, active)) if now.saturating_duration_since(active) > IDLE => {
                self.remove(key);
                true
            }
            _ => false,
        }
    }

    /// Begins the host's part of a connection.
    fn connect(&mut self, key: Key, to: SocketAddrV4, syn: Vec<u8>, guest: &Guest, now: Instant) {
        let begin = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match connect(&socket, &to) {
                Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
                Err(e) => Err(e),
            }
        };
        match begin() {
            Ok(host) => {
                self.flows.insert(key, Flow::new(host, Stage::Connecting { syn }, now));
            }
            Err(e) => self.failed(syn, e, guest),
        }
    }

    /// Tells the guest that its connection cannot be.
    fn failed(&mut self, syn: Vec<u8>, why: Errno, guest: &Guest) {
        let reason = match why {
            Errno::NETUNREACH => Icmpv4DstUnreachable::NetUnreachable,
            Errno::HOSTUNREACH | Errno::TIMEDOUT | Errno::ACCESS | Errno::PERM => {
                Icmpv4DstUnreachable::HostUnreachable
            }
            // nobody listens here either
            _ => return self.received.push_back(syn),
        };
        if let Ok(ip) = Ipv4Packet::new_checked(syn.as_slice())
            && let Ok(header) = Ipv4Repr::parse(&ip, &crate::guest::checksums())
        {
            guest.unreachable(reason, header, ip.payload());
        }
    }

    /// A connection from outside to the guest's `port`; dropped if there is no
    /// room.
    pub(crate) fn accept(&mut self, host: TcpStream, port: u16, now: Instant) {
        if host.set_nonblocking(true).is_err() || !self.make_room(now) {
            return;
        }
        // there are more ports than connections
        let key = loop {
            let key = (port, SocketAddrV4::new(GATEWAY, self.next_port));
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.flows.contains_key(&key) {
                break key;
            }
        };
        let mut socket = new_socket();
        if socket.connect(self.interface.context(), (GUEST, port), key.1).is_ok() {
            let handle = self.sockets.add(socket);
            self.flows.insert(key, Flow::new(host, Stage::Open(handle), now));
        }
    }

    /// What is to be waited for.
    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a, Who>) {
        for (key, flow) in &self.flows {
            let (readable, writable) = match flow.stage {
                Stage::Connecting { .. } => (false, true),
                Stage::Open(handle) => {
                    let room = self.sockets.get::<Socket>(handle).can_send();
                    (room && !flow.readable && !flow.host_done, flow.blocked)
                }
            };
            interest.add(Who::Tcp(*key), &flow.host, readable, writable);
        }
    }

    /// Something happened to the host's end of a connection.
    pub(crate) fn ready(&mut self, key: Key, guest: &Guest, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        (flow.readable, flow.blocked) = (true, false);
        let Stage::Connecting { syn } = &mut flow.stage else { return };
        let syn = std::mem::take(syn);
        match flow.host.take_error() {
            Ok(None) => {
                let mut socket = new_socket();
                // the guest's port 0 is none: such a segment never got here
                let _ = socket.listen(key.1);
                flow.stage = Stage::Open(self.sockets.add(socket));
                flow.active = now;
                self.received.push_back(syn);
            }
            Ok(Some(e)) | Err(e) => {
                self.flows.remove(&key);
                self.failed(syn, Errno::from_io_error(&e).unwrap_or(Errno::CONNREFUSED), guest);
            }
        }
    }

    /// Moves what can be moved, between the ends of all connections and on the
    /// wire.
    pub(crate) fn turn(&mut self, guest: &Guest, now: Instant) {
        self.poll(guest, now);
        for flow in self.flows.values_mut() {
            if let Stage::Open(handle) = flow.stage {
                flow.pump(self.sockets.get_mut(handle), now);
            }
        }
        self.poll(guest, now);
        // what the guest is to hear last is on the wire
        if guest.link.room() > 0 {
            let over = |(key, flow): (&Key, &Flow)| self.is_over(flow, now).then_some(*key);
            let over: Vec<Key> = self.flows.iter().filter_map(over).collect();
            over.into_iter().for_each(|key| self.remove(key));
        }
    }

    fn poll(&mut self, guest: &Guest, now: Instant) {
        let time = self.time(now);
        let mut phy = Phy { received: &mut self.received, guest };
        // one segment a connection and round
        while self.interface.poll(time, &mut phy, &mut self.sockets) == PollResult::SocketStateChanged
            && guest.link.room() > 0
        {}
    }

    fn is_over(&self, flow: &Flow, now: Instant) -> bool {
        let young = now.saturating_duration_since(flow.active) <= CONNECT;
        match flow.stage {
            Stage::Connecting { .. } => !young,
            Stage::Open(handle) => {
                let socket = self.sockets.get::<Socket>(handle);
                match socket.state() {
                    State::Closed | State::TimeWait => socket.recv_queue() == 0,
                    // a listener whose guest has gone away again
                    State::Listen => true,
                    State::SynSent | State::SynReceived => !young,
                    _ => false,
                }
            }
        }
    }

    /// Ends a connection on the host; the end is a reset if it was cut off.
    fn remove(&mut self, key: Key) {
        let Some(flow) = self.flows.remove(&key) else { return };
        if !(flow.host_done && flow.guest_done) {
            // if it fails, the end is a friendlier one
            let _ = sockopt::set_socket_linger(&flow.host, Some(Duration::ZERO));
        }
        if let Stage::Open(handle) = flow.stage {
            self.sockets.remove(handle);
        }
    }

    /// How long there is nothing to do if nothing happens.
    pub(crate) fn patience(&mut self, now: Instant) -> Option<Duration> {
        let time = self.time(now);
        let stack = self.interface.poll_delay(time, &self.sockets).map(Duration::from);
        let young = |flow: &Flow| match flow.stage {
            Stage::Connecting { .. } => true,
            Stage::Open(handle) => {
                matches!(self.sockets.get::<Socket>(handle).state(), State::SynSent | State::SynReceived)
            }
        };
        let connecting = self.flows.values().any(young).then_some(Duration::from_secs(1));
        stack.into_iter().chain(connecting).min()
    }

    fn time(&self, now: Instant) -> smoltcp::time::Instant {
        let since = now.saturating_duration_since(self.start);
        smoltcp::time::Instant::from_micros(since.as_micros() as i64)
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; BUFFER]);
    let mut socket = Socket::new(buffer(), buffer());
    // nothing is gained by waiting on a wire within one machine
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

impl Flow {
    fn new(host: TcpStream, stage: Stage, now: Instant) -> Self {
        // if it fails, small writes are slower
        let _ = host.set_nodelay(true);
        let (readable, blocked) = (false, false);
        Self { host, stage, active: now, readable, blocked, host_done: false, guest_done: false }
    }

    fn pump(&mut self, socket: &mut Socket<'_>, now: Instant) {
        while !self.blocked && socket.can_recv() {
            let mut host = &self.host;
            let written = socket.recv(|data| match host.write(data) {
                Ok(n) => (n, Ok(n)),
                Err(e) => (0, Err(e.kind())),
            });
            match written {
                Ok(Ok(1..)) => self.active = now,
                Ok(Err(ErrorKind::WouldBlock)) => self.blocked = true,
                Ok(Err(ErrorKind::Interrupted)) => {}
                // the host's end is broken
                _ => return self.break_off(socket),
            }
        }
        let said_all =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if said_all && socket.recv_queue() == 0 && !self.guest_done {
            self.guest_done = true;
            // if it is gone, reading will tell
            let _ = self.host.shutdown(Shutdown::Write);
        }
        while self.readable && !self.host_done && socket.can_send() {
            let mut host = &self.host;
            let read = socket.send(|room| match host.read(room) {
                Ok(n) => (n, Ok(n)),
                Err(e) => (0, Err(e.kind())),
            });
            match read {
                Ok(Ok(0)) => {
                    self.host_done = true;
                    socket.close();
                }
                Ok(Ok(_)) => self.active = now,
                Ok(Err(ErrorKind::WouldBlock)) => self.readable = false,
                Ok(Err(ErrorKind::Interrupted)) => {}
                _ => return self.break_off(socket),
            }
        }
    }

    /// The host's end broke: so does the guest's.
    fn break_off(&mut self, socket: &mut Socket<'_>) {
        socket.abort();
        // nobody takes it any more
        while socket.recv(|data| (data.len(), ())).is_ok() {}
        (self.readable, self.blocked, self.host_done) = (false, false, true);
    }
}
