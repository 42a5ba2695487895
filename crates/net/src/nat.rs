//! The thread that everything here runs in: frames in, frames out, sockets.

use crate::addresses::{DNS, GATEWAY, GUEST, OUR_MAC};
use crate::budget::Budget;
use crate::datagrams::Datagrams;
use crate::dhcp;
use crate::guest::{Guest, checksums, udp};
use crate::policy::Policy;
use crate::poll::Interest;
use crate::publish::Published;
use crate::tcp::Tcp;
use crate::{Who, Wire};
use devices::virtio::net::QUEUE_FRAMES;
use rustix::io::{read, write};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet,
    Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the guest is asked for.
const LOOK: Duration = Duration::from_millis(200);

/// How others get the thread's attention.
pub(crate) struct Bell {
    event: OwnedFd,
    sleeping: AtomicBool,
    pub(crate) stop: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, sleeping: AtomicBool::new(false), stop: AtomicBool::new(false) })
    }

    /// Wakes the thread if it sleeps.
    pub(crate) fn ring(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            // a full counter wakes as well
            let _ = write(&self.event, &1u64.to_ne_bytes());
        }
    }

    fn quiet(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
        let _ = read(&self.event, &mut [0; 8]);
    }
}

/// The NAT.
pub(crate) struct Nat {
    bell: Arc<Bell>,
    guest: Guest,
    policy: Policy,
    budget: Budget,
    pub(crate) tcp: Tcp,
    pub(crate) datagrams: Datagrams,
    published: Published,
    /// When to ask for the guest again.
    next_look: Instant,
}

impl Nat {
    pub(crate) fn new(wire: Box<dyn Wire>, bell: Arc<Bell>, policy: Policy, published: Published) -> Self {
        let ringer = bell.clone();
        wire.on_wake(Box::new(move || ringer.ring()));
        let now = Instant::now();
        let guest = Guest { link: wire, mac: None };
        let tcp = Tcp::new(&guest, now);
        Self {
            bell,
            policy,
            budget: Budget::new(now),
            tcp,
            datagrams: Datagrams::default(),
            published,
            next_look: now,
            guest,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(&mut self) {
        while !self.bell.stop.load(Ordering::SeqCst) {
            self.turn(None);
        }
    }

    /// Does what there is to do, and waits for more, at most `limit`.
    pub(crate) fn turn(&mut self, limit: Option<Duration>) {
        let now = Instant::now();
        self.datagrams.expire(now);
        self.published.expire(now);
        while let Some(frame) = self.guest.link.receive() {
            self.frame(&frame, now);
        }
        self.tcp.turn(&self.guest, now);
        self.look_for_guest(now);
        self.guest.link.flush();
        self.wait(limit);
    }

    fn wait(&mut self, limit: Option<Duration>) {
        let now = Instant::now();
        // without room, only the guest can change anything
        let stack = self.tcp.patience(now).filter(|_| self.guest.link.room() > 0);
        let looking = (self.guest.mac.is_none() && !self.published.is_empty()).then_some(LOOK);
        let datagrams = self.datagrams.patience(now);
        let timeout = stack.into_iter().chain(datagrams).chain(looking).chain(limit).min();
        self.bell.sleeping.store(true, Ordering::SeqCst);
        let busy = self.guest.link.has_frame() || self.bell.stop.load(Ordering::SeqCst);
        let timeout = if busy { Some(Duration::ZERO) } else { timeout };
        let mut interest = Interest::new();
        interest.add(Who::Bell, &self.bell.event, true, false);
        self.tcp.interest(&mut interest);
        self.datagrams.interest(&mut interest, &self.guest);
        self.published.interest(&mut interest, &self.guest);
        let happened = interest.wait(timeout);
        self.bell.quiet();
        let now = Instant::now();
        for who in happened {
            match who {
                Who::Bell => {}
                Who::Tcp(key) => self.tcp.ready(key, &self.guest, now),
                Who::Datagrams(key) => self.datagrams.ready(key, &mut self.policy, &self.guest, now),
                Who::Door(i) => self.published.ready(i, &mut self.tcp, &self.guest, now),
            }
        }
    }

    fn frame(&mut self, bytes: &[u8], now: Instant) {
        let Ok(frame) = EthernetFrame::new_checked(bytes) else { return };
        let (from, to) = (frame.src_addr(), frame.dst_addr());
        if !from.is_unicast() || !(to == OUR_MAC || to.is_broadcast()) {
            return;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => self.arp(from, frame.payload()),
            EthernetProtocol::Ipv4 => self.ipv4(from, frame.payload(), now),
            _ => {}
        }
    }

    /// Asks whether the guest is there, if somebody wants to know: it need not say
    /// a word by itself.
    fn look_for_guest(&mut self, now: Instant) {
        let idle = self.guest.link.room() >= QUEUE_FRAMES;
        if self.guest.mac.is_some() || self.published.is_empty() || !idle || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: OUR_MAC,
            source_protocol_addr: GATEWAY,
            target_hardware_addr: EthernetAddress::default(),
            target_protocol_addr: GUEST,
        };
        self.guest.arp(EthernetAddress::BROADCAST, &question);
    }

    /// Our addresses are asked for, and only they are told: a guest that asks
    /// whether somebody has its own address must not be told so.
    fn arp(&mut self, from: EthernetAddress, bytes: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(bytes) else { return };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        if source_protocol_addr == GUEST {
            self.guest.mac = Some(from);
        }
        let ours = target_protocol_addr == GATEWAY || target_protocol_addr == DNS;
        if operation == ArpOperation::Request && ours {
            let answer = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: OUR_MAC,
                source_protocol_addr: target_protocol_addr,
                target_hardware_addr: source_hardware_addr,
                target_protocol_addr: source_protocol_addr,
            };
            self.guest.arp(from, &answer);
        }
    }

    fn ipv4(&mut self, from: EthernetAddress, bytes: &[u8], now: Instant) {
        let Ok(ip) = Ipv4Packet::new_checked(bytes) else { return };
        // fragments are refused here too
        let Ok(header) = Ipv4Repr::parse(&ip, &checksums()) else { return };
        if header.next_header == IpProtocol::Udp
            && let Ok(datagram) = UdpPacket::new_checked(ip.payload())
            && datagram.dst_port() == dhcp::SERVER_PORT
            && [Ipv4Addr::BROADCAST, GATEWAY].contains(&header.dst_addr)
        {
            return self.dhcp(&datagram);
        }
        if header.src_addr != GUEST {
            return;
        }
        self.guest.mac = Some(from);
        match header.next_header {
            IpProtocol::Tcp => {
                let packet = &bytes[..usize::from(ip.total_len())];
                self.tcp.packet(&header, packet, &mut self.policy, &mut self.budget, &self.guest, now);
            }
            IpProtocol::Udp => {
                let Ok(datagram) = UdpPacket::new_checked(ip.payload()) else { return };
                let (port, to) = (datagram.src_port(), datagram.dst_port());
                if header.dst_addr == GATEWAY && self.published.reply(port, to, datagram.payload(), now) {
                    return;
                }
                self.datagrams.udp(header, &datagram, &mut self.policy, &mut self.budget, &self.guest, now);
            }
            IpProtocol::Icmp => self.icmp(header, ip.payload(), now),
            _ => {}
        }
    }

    fn dhcp(&self, datagram: &UdpPacket<&[u8]>) {
        if let Some((mac, answer)) = dhcp::answer(datagram.payload()) {
            let from = SocketAddrV4::new(GATEWAY, dhcp::SERVER_PORT);
            let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, dhcp::CLIENT_PORT);
            if let Some(packet) = udp(from, to, &answer) {
                self.guest.ip_to(mac, &packet);
            }
        }
    }

    fn icmp(&mut self, header: Ipv4Repr, bytes: &[u8], now: Instant) {
        let Ok(message) = Icmpv4Packet::new_checked(bytes) else { return };
        let Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) = Icmpv4Repr::parse(&message, &checksums())
        else {
            return;
        };
        let to = header.dst_addr;
        if to == GATEWAY || to == DNS {
            self.guest.icmp(to, &Icmpv4Repr::EchoReply { ident, seq_no, data });
        } else if self.policy.may_reach(to) {
            self.datagrams.echo(header, &message, &mut self.budget, &self.guest, now);
        }
    }
}
