//! Packets to the guest, as Ethernet frames on its wire.

use crate::Wire;
use crate::addresses::{GATEWAY, GUEST, OUR_MAC};
use devices::virtio::net::MTU;
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    ArpPacket, ArpRepr, ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IPV4_HEADER_LEN, Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    UDP_HEADER_LEN, UdpPacket, UdpRepr,
};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Time to live of what comes from here.
const HOPS: u8 = 64;
/// What is quoted of a packet: as much as fits 576 bytes (*RFC 1812 §4.3.2.3*).
const QUOTE: usize = 576 - 2 * IPV4_HEADER_LEN - 8;
/// The longest datagram that fits a packet to the guest.
pub(crate) const MAX_UDP: usize = MTU as usize - IPV4_HEADER_LEN - UDP_HEADER_LEN;

/// The way to the guest.
pub(crate) struct Guest {
    pub(crate) link: Box<dyn Wire>,
    /// Its Ethernet address, once it has used its IP address: it is there.
    pub(crate) mac: Option<EthernetAddress>,
}

/// What is done to checksums: those from the guest may not have been computed.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut all = ChecksumCapabilities::default();
    (all.ipv4, all.udp, all.tcp, all.icmpv4) = (Checksum::Tx, Checksum::Tx, Checksum::Tx, Checksum::Tx);
    all
}

/// A frame from us to `to` with room for `len` bytes, which `fill` writes; and
/// what that returns.
pub(crate) fn frame<R>(
    to: EthernetAddress,
    ethertype: EthernetProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> R,
) -> (Vec<u8>, R) {
    let mut bytes = vec![0; ETHERNET_HEADER_LEN + len];
    let header = EthernetRepr { src_addr: OUR_MAC, dst_addr: to, ethertype };
    header.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    let result = fill(&mut bytes[ETHERNET_HEADER_LEN..]);
    (bytes, result)
}

/// An IP packet with a UDP datagram in it; `None` if it is too long.
pub(crate) fn udp(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Option<Vec<u8>> {
    let header = UdpRepr { src_port: from.port(), dst_port: to.port() };
    (data.len() <= MAX_UDP).then(|| {
        ipv4(*from.ip(), *to.ip(), IpProtocol::Udp, UDP_HEADER_LEN + data.len(), |payload| {
            header.emit(
                &mut UdpPacket::new_unchecked(payload),
                &(*from.ip()).into(),
                &(*to.ip()).into(),
                data.len(),
                |out| out.copy_from_slice(data),
                &checksums(),
            );
        })
    })
}

fn ipv4(
    src_addr: Ipv4Addr,
    dst_addr: Ipv4Addr,
    next_header: IpProtocol,
    payload_len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = vec![0; IPV4_HEADER_LEN + payload_len];
    let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: HOPS };
    header.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &checksums());
    fill(&mut bytes[IPV4_HEADER_LEN..]);
    bytes
}

impl Guest {
    /// Sends an IP packet; without room it is lost.
    pub(crate) fn ip(&self, packet: &[u8]) {
        if let Some(mac) = self.mac {
            self.ip_to(mac, packet);
        }
    }

    /// The same to a guest that has no address yet.
    pub(crate) fn ip_to(&self, mac: EthernetAddress, packet: &[u8]) {
        let copy = |out: &mut [u8]| out.copy_from_slice(packet);
        self.link.send(frame(mac, EthernetProtocol::Ipv4, packet.len(), copy).0);
    }

    /// Sends a UDP datagram to the guest's `port`.
    pub(crate) fn udp(&self, from: SocketAddrV4, port: u16, data: &[u8]) {
        if let Some(packet) = udp(from, SocketAddrV4::new(GUEST, port), data) {
            self.ip(&packet);
        }
    }

    /// Sends an ICMP message from `from`.
    pub(crate) fn icmp(&self, from: Ipv4Addr, message: &Icmpv4Repr<'_>) {
        let packet = ipv4(from, GUEST, IpProtocol::Icmp, message.buffer_len(), |payload| {
            message.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums());
        });
        self.ip(&packet);
    }

    /// Tells the guest that its packet, of which these are the header and what
    /// came after it, did not arrive.
    pub(crate) fn unreachable(&self, reason: Icmpv4DstUnreachable, header: Ipv4Repr, data: &[u8]) {
        let data = &data[..data.len().min(QUOTE)];
        self.icmp(GATEWAY, &Icmpv4Repr::DstUnreachable { reason, header, data });
    }

    /// Answers a question for an Ethernet address.
    pub(crate) fn arp(&self, to: EthernetAddress, answer: &ArpRepr) {
        let emit = |out: &mut [u8]| answer.emit(&mut ArpPacket::new_unchecked(out));
        self.link.send(frame(to, EthernetProtocol::Arp, answer.buffer_len(), emit).0);
    }
}
