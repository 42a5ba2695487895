//! UDP and ICMP echo: for each conversation a connected socket of the host, that
//! takes answers from nobody else, until it has been silent for a while.

use crate::Who;
use crate::addresses::DNS;
use crate::budget::Budget;
use crate::guest::{Guest, MAX_UDP, checksums};
use crate::policy::Policy;
use crate::poll::Interest;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, send, socket_with,
};
use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, Ipv4Repr, UdpPacket};
use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The most conversations.
pub(crate) const MAX_FLOWS: usize = 256;
/// How long one may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// The same for questions that have one answer.
const QUESTION: Duration = Duration::from_secs(10);
/// Datagrams taken from a socket at once.
const BATCH: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Udp,
    Echo,
}

/// A conversation: the guest's port or identifier, and the other end as the guest
/// and as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    kind: Kind,
    guest: u16,
    seen: SocketAddrV4,
    to: SocketAddrV4,
}

struct Flow {
    socket: OwnedFd,
    until: Instant,
}

/// All conversations.
#[derive(Default)]
pub(crate) struct Datagrams {
    flows: HashMap<Key, Flow>,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// Takes a UDP datagram of the guest, whose packet began with `header`.
    pub(crate) fn udp(
        &mut self,
        header: Ipv4Repr,
        datagram: &UdpPacket<&[u8]>,
        policy: &mut Policy,
        budget: &mut Budget,
        guest: &Guest,
        now: Instant,
    ) {
        let seen = SocketAddrV4::new(header.dst_addr, datagram.dst_port());
        if *seen.ip() == DNS {
            policy.resolver.ask(now);
        }
        let result = match policy.destination(seen) {
            Some(to) => {
                let key = Key { kind: Kind::Udp, guest: datagram.src_port(), seen, to };
                self.send(key, datagram.payload(), budget, now)
            }
            None if header.dst_addr.is_multicast() || header.dst_addr.is_broadcast() => return,
            None => Err(Errno::CONNREFUSED),
        };
        if let Err(e) = result
            && let Some(reason) = reason(e)
        {
            guest.unreachable(reason, header, datagram.as_ref());
        }
    }

    /// Takes an echo request of the guest to another machine.
    pub(crate) fn echo(
        &mut self,
        header: Ipv4Repr,
        message: &Icmpv4Packet<&[u8]>,
        budget: &mut Budget,
        guest: &Guest,
        now: Instant,
    ) {
        let to = SocketAddrV4::new(header.dst_addr, 0);
        let key = Key { kind: Kind::Echo, guest: message.echo_ident(), seen: to, to };
        let mut bytes = message.as_ref().to_vec();
        // the host's kernel has an identifier of its own
        Icmpv4Packet::new_unchecked(&mut bytes).set_echo_ident(0);
        match self.send(key, &bytes, budget, now) {
            // the host does not let its users ping
            Err(Errno::ACCESS | Errno::PERM) => {
                guest.unreachable(Icmpv4DstUnreachable::CommProhibited, header, message.as_ref());
            }
            Err(e) => {
                if let Some(reason) = reason(e) {
                    guest.unreachable(reason, header, message.as_ref());
                }
            }
            Ok(()) => {}
        }
    }

    /// Sends to the other end of a conversation, which begins if there is none.
    /// What the host's kernel has no room for is lost, as datagrams may be.
    fn send(&mut self, key: Key, data: &[u8], budget: &mut Budget, now: Instant) -> Result<(), Errno> {
        if !self.flows.contains_key(&key) {
            if !budget.take(now) {
                return Ok(());
            }
            if self.flows.len() >= MAX_FLOWS
                && let Some(oldest) =
                    self.flows.iter().min_by_key(|(_, flow)| flow.until).map(|(key, _)| *key)
            {
                self.flows.remove(&oldest);
            }
            self.flows.insert(key, Flow { socket: open(key)?, until: now });
        }
        let Some(flow) = self.flows.get_mut(&key) else { return Ok(()) };
        flow.until = now + key.idle();
        match send(&flow.socket, data, SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// What is to be waited for.
    pub(crate) fn interest<'a>(&'a self, interest: &mut Interest<'a, Who>, guest: &Guest) {
        if guest.link.room() > 0 {
            for (key, flow) in &self.flows {
                interest.add(Who::Datagrams(*key), &flow.socket, true, false);
            }
        }
    }

    /// Takes answers from a conversation's socket to the guest.
    pub(crate) fn ready(&mut self, key: Key, policy: &mut Policy, guest: &Guest, now: Instant) {
        let Some(flow) = self.flows.get_mut(&key) else { return };
        self.buffer.resize(MAX_UDP + 1, 0);
        for _ in 0..BATCH {
            if guest.link.room() == 0 {
                break;
            }
            match recv(&flow.socket, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((n, len)) if n == len => {
                    flow.until = now + key.idle();
                    if *key.seen.ip() == DNS {
                        policy.resolver.answered();
                    }
                    key.answer(&self.buffer[..n], guest);
                }
                // longer than the wire takes
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(e) => {
                    if let Some(reason) = reason(e) {
                        key.unreachable(reason, guest);
                    }
                    break;
                }
            }
        }
    }

    /// Ends conversations that have been silent.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| flow.until > now);
    }

    /// How long until the next one ends.
    pub(crate) fn patience(&self, now: Instant) -> Option<Duration> {
        self.flows.values().map(|flow| flow.until.saturating_duration_since(now)).min()
    }

    /// How many conversations there are.
    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }
}

fn open(key: Key) -> Result<OwnedFd, Errno> {
    let protocol = match key.kind {
        Kind::Udp => None,
        // without privileges: ping_group_range (icmp(7))
        Kind::Echo => Some(ipproto::ICMP),
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, protocol)?;
    connect(&socket, &key.to)?;
    Ok(socket)
}

/// What the guest is told of an error, if anything.
fn reason(e: Errno) -> Option<Icmpv4DstUnreachable> {
    match e {
        Errno::CONNREFUSED => Some(Icmpv4DstUnreachable::PortUnreachable),
        Errno::NETUNREACH => Some(Icmpv4DstUnreachable::NetUnreachable),
        Errno::HOSTUNREACH => Some(Icmpv4DstUnreachable::HostUnreachable),
        _ => None,
    }
}

impl Key {
    fn idle(&self) -> Duration {
        if self.kind == Kind::Echo || *self.seen.ip() == DNS { QUESTION } else { IDLE }
    }

    /// Gives an answer to the guest.
    fn answer(&self, data: &[u8], guest: &Guest) {
        match self.kind {
            Kind::Udp => guest.udp(self.seen, self.guest, data),
            Kind::Echo => {
                let Ok(message) = Icmpv4Packet::new_checked(data) else { return };
                if let Ok(Icmpv4Repr::EchoReply { seq_no, data, .. }) =
                    Icmpv4Repr::parse(&message, &checksums())
                {
                    guest.icmp(*self.seen.ip(), &Icmpv4Repr::EchoReply { ident: self.guest, seq_no, data });
                }
            }
        }
    }

    /// Tells the guest that what it sent last did not arrive.
    fn unreachable(&self, reason: Icmpv4DstUnreachable, guest: &Guest) {
        let from = SocketAddrV4::new(crate::addresses::GUEST, self.guest);
        if self.kind == Kind::Udp
            && let Some(packet) = crate::guest::udp(from, self.seen, &[])
            && let Ok(ip) = smoltcp::wire::Ipv4Packet::new_checked(packet.as_slice())
            && let Ok(header) = Ipv4Repr::parse(&ip, &checksums())
        {
            guest.unreachable(reason, header, ip.payload());
        }
    }
}
