//! The guest, the NAT between, and the host, driven in one thread.

use crate::cable::Cable;
use crate::nat::{Bell, Nat};
use crate::resolver::Resolver;
use crate::{
    Config, DNS, GATEWAY, GUEST, GUEST_MAC, Network, Policy, Published, addresses::OUR_MAC, addresses::PREFIX,
};
use smoltcp::iface::{Config as StackConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as StackTime;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress, Icmpv4Packet,
    Icmpv4Repr, IpCidr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Frames that wait in each direction, as in the device.
const ROOM: usize = 128;
pub(super) const MTU: usize = 65_520;

/// The guest's end as a device of its stack; what is no TCP or ARP is put aside.
struct End {
    cable: Cable,
    aside: VecDeque<Vec<u8>>,
    mtu: usize,
}

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}
struct Rx(Vec<u8>);
struct Tx(Cable);
impl TxToken for Tx {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.lock().from_guest.push_back(bytes);
        result
    }
}

impl Device for End {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx;
    fn receive(&mut self, now: StackTime) -> Option<(Rx, Tx)> {
        let tx = self.transmit(now)?;
        loop {
            let bytes = self.cable.lock().to_guest.pop_front()?;
            let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
            assert_eq!(frame.src_addr(), OUR_MAC);
            assert!(bytes.len() <= 14 + MTU);
            let for_stack = frame.ethertype() != EthernetProtocol::Ipv4
                || Ipv4Packet::new_checked(frame.payload()).unwrap().next_header() == IpProtocol::Tcp;
            if for_stack {
                return Some((Rx(bytes), tx));
            }
            self.aside.push_back(frame.payload().to_vec());
        }
    }
    fn transmit(&mut self, _: StackTime) -> Option<Tx> {
        (self.cable.lock().from_guest.len() < ROOM).then(|| Tx(self.cable.clone()))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut about = DeviceCapabilities::default();
        about.medium = Medium::Ethernet;
        about.max_transmission_unit = 14 + self.mtu;
        about
    }
}

/// All of it.
pub(super) struct World {
    pub(super) nat: Nat,
    end: End,
    stack: Interface,
    sockets: SocketSet<'static>,
    start: Instant,
    next_port: u16,
}

impl World {
    /// A world in which the guest may reach these ports of the host.
    pub(super) fn new(allowed: &[u16]) -> Self {
        Self::with(allowed, Published::bind(&[]).unwrap(), &[], MTU)
    }

    pub(super) fn published(config: &Config) -> (Self, Vec<crate::Publish>) {
        let network = Network::new(config).unwrap();
        let ports = network.published();
        (Self::with(&[], network.published, &[], MTU), ports)
    }

    pub(super) fn with(allowed: &[u16], published: Published, servers: &[SocketAddrV4], mtu: usize) -> Self {
        let cable = Cable::new(ROOM);
        let policy = Policy::new(allowed.iter().copied().collect(), Resolver::new(servers.to_vec()));
        let nat = Nat::new(Box::new(cable.clone()), Arc::new(Bell::new().unwrap()), policy, published);
        let mut end = End { cable, aside: VecDeque::new(), mtu };
        let mac = HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC));
        let mut stack = Interface::new(StackConfig::new(mac), &mut end, StackTime::ZERO);
        stack.update_ip_addrs(|a| a.push(IpCidr::new(GUEST.into(), PREFIX)).unwrap());
        stack.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        let sockets = SocketSet::new(Vec::new());
        Self { nat, end, stack, sockets, start: Instant::now(), next_port: 40_000 }
    }

    /// Everybody does what there is to do.
    pub(super) fn turn(&mut self) {
        let now = StackTime::from_micros(self.start.elapsed().as_micros() as i64);
        self.stack.poll(now, &mut self.end, &mut self.sockets);
        self.nat.turn(Some(Duration::from_millis(1)));
    }

    /// Goes on until `done`; a test that gets nowhere fails.
    pub(super) fn until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = done(self) {
                return value;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "{what} does not happen");
            self.turn();
        }
    }

    pub(super) fn settle(&mut self) {
        (0..50).for_each(|_| self.turn());
    }

    /// A connection of the guest, begun.
    pub(super) fn connect(&mut self, ip: Ipv4Addr, port: u16) -> SocketHandle {
        let handle = self.sockets.add(socket());
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket>(handle);
        socket.connect(self.stack.context(), (ip, port), self.next_port).unwrap();
        handle
    }

    /// A listener of the guest.
    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let mut socket = socket();
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Puts a frame on the wire.
    pub(super) fn frame(&mut self, bytes: &[u8]) {
        self.end.cable.lock().from_guest.push_back(bytes.to_vec());
    }

    /// Sends an IP packet from the guest.
    pub(super) fn packet(&mut self, packet: &[u8]) {
        let header = EthernetRepr {
            src_addr: EthernetAddress(GUEST_MAC),
            dst_addr: OUR_MAC,
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = vec![0; 14];
        header.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
        bytes.extend(packet);
        self.frame(&bytes);
    }

    pub(super) fn udp(&mut self, from: u16, to: SocketAddrV4, data: &[u8]) {
        self.packet(&crate::guest::udp(SocketAddrV4::new(GUEST, from), to, data).unwrap());
    }

    pub(super) fn ping(&mut self, to: Ipv4Addr, ident: u16, data: &[u8]) {
        let message = Icmpv4Repr::EchoRequest { ident, seq_no: 7, data };
        let header = Ipv4Repr {
            src_addr: GUEST,
            dst_addr: to,
            next_header: IpProtocol::Icmp,
            payload_len: message.buffer_len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; 20 + message.buffer_len()];
        header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &Default::default());
        message.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[20..]), &Default::default());
        self.packet(&bytes);
    }

    /// The next IP packet to the guest that is not TCP, if one comes soon.
    pub(super) fn received(&mut self) -> Option<Received> {
        for _ in 0..200 {
            self.turn();
            if let Some(packet) = self.end.aside.pop_front() {
                return Some(Received::of(&packet));
            }
        }
        None
    }
}

fn socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 200_000]);
    Socket::new(buffer(), buffer())
}

/// A packet to the guest; its checksums were right.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    Udp {
        from: SocketAddrV4,
        port: u16,
        data: Vec<u8>,
    },
    Echo {
        from: Ipv4Addr,
        ident: u16,
        data: Vec<u8>,
    },
    /// Kind and code, and the destination that it is about.
    Unreachable {
        code: u8,
        about: Ipv4Addr,
    },
}

impl Received {
    fn of(packet: &[u8]) -> Self {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        assert!(ip.verify_checksum());
        let (from, to) = (ip.src_addr(), ip.dst_addr());
        if ip.next_header() == IpProtocol::Udp {
            let udp = UdpPacket::new_checked(ip.payload()).unwrap();
            assert!(udp.verify_checksum(&from.into(), &to.into()));
            let from = SocketAddrV4::new(from, udp.src_port());
            return Self::Udp { from, port: udp.dst_port(), data: udp.payload().to_vec() };
        }
        assert_eq!((ip.next_header(), to), (IpProtocol::Icmp, GUEST));
        match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(ip.payload()).unwrap(), &Default::default())
            .unwrap()
        {
            Icmpv4Repr::EchoReply { ident, data, seq_no: 7 } => {
                Self::Echo { from, ident, data: data.to_vec() }
            }
            Icmpv4Repr::DstUnreachable { reason, header, .. } => {
                assert_eq!((from, header.src_addr), (GATEWAY, GUEST));
                Self::Unreachable { code: reason.into(), about: header.dst_addr }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Bytes that tell where they belong.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

pub(super) const NAME_SERVER: SocketAddrV4 = SocketAddrV4::new(DNS, 53);
