//! The DHCP server (*RFC 2131*): one lease, always the same.

use crate::addresses::{DNS, GATEWAY, GUEST, MASK};
use smoltcp::wire::{DhcpMessageType as Message, DhcpPacket, DhcpRepr, EthernetAddress};
use std::net::Ipv4Addr;

/// The server's port.
pub(crate) const SERVER_PORT: u16 = 67;
/// The client's port.
pub(crate) const CLIENT_PORT: u16 = 68;
/// Seconds; the lease is for as long as the machine runs, and renewed in vain.
const LEASE: u32 = 86_400;

/// The answer to a client's message and the Ethernet address it is for; `None`
/// if it needs none.
pub(crate) fn answer(message: &[u8]) -> Option<(EthernetAddress, Vec<u8>)> {
    let packet = DhcpPacket::new_checked(message).ok()?;
    let asked = DhcpRepr::parse(&packet).ok()?;
    if asked.server_identifier.is_some_and(|server| server != GATEWAY) {
        return None;
    }
    let wanted = asked.requested_ip.unwrap_or(asked.client_ip);
    let message_type = match asked.message_type {
        Message::Discover => Message::Offer,
        Message::Request if wanted == GUEST => Message::Ack,
        Message::Request => Message::Nak,
        Message::Inform => Message::Ack,
        _ => return None,
    };
    let leased =
        matches!(message_type, Message::Offer | Message::Ack) && asked.message_type != Message::Inform;
    let told = message_type != Message::Nak;
    let reply = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: if told { asked.client_ip } else { Ipv4Addr::UNSPECIFIED },
        your_ip: if leased { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: told.then_some(GATEWAY),
        subnet_mask: told.then_some(MASK),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: told.then(|| [DNS].into_iter().collect()),
        max_size: None,
        lease_duration: leased.then_some(LEASE),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).ok()?;
    Some((asked.client_hardware_address, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 9]);

    fn message(kind: Message, change: impl FnOnce(&mut DhcpRepr<'static>)) -> Vec<u8> {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut repr = DhcpRepr {
            message_type: kind,
            transaction_id: 0x1234_5678,
            secs: 1,
            client_hardware_address: MAC,
            client_ip: zero,
            your_ip: zero,
            server_ip: zero,
            router: None,
            subnet_mask: None,
            relay_agent_ip: zero,
            broadcast: false,
            requested_ip: None,
            client_identifier: Some(MAC),
            server_identifier: None,
            parameter_request_list: Some(&[1, 3, 6]),
            dns_servers: None,
            max_size: Some(1500),
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        change(&mut repr);
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes)).unwrap();
        bytes
    }

    fn check(message: &[u8], expected: Message, ip: Ipv4Addr) {
        let (to, bytes) = answer(message).unwrap();
        let packet = DhcpPacket::new_unchecked(bytes.as_slice());
        let reply = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(to, MAC);
        assert_eq!((reply.message_type, reply.your_ip, reply.transaction_id), (expected, ip, 0x1234_5678));
        assert_eq!(reply.server_identifier, Some(GATEWAY));
        if expected != Message::Nak {
            assert_eq!((reply.router, reply.subnet_mask), (Some(GATEWAY), Some(MASK)));
            assert_eq!(reply.dns_servers.unwrap().as_slice(), [DNS]);
        }
    }

    #[test]
    fn one_address_is_offered_and_leased() {
        let none = Ipv4Addr::UNSPECIFIED;
        check(&message(Message::Discover, |_| {}), Message::Offer, GUEST);
        check(&message(Message::Request, |m| m.requested_ip = Some(GUEST)), Message::Ack, GUEST);
        check(&message(Message::Request, |m| m.client_ip = GUEST), Message::Ack, GUEST);
        check(
            &message(Message::Request, |m| m.requested_ip = Some([10, 0, 2, 99].into())),
            Message::Nak,
            none,
        );
        check(&message(Message::Inform, |m| m.client_ip = GUEST), Message::Ack, none);
    }

    #[test]
    fn what_is_for_others_or_broken_is_not_answered() {
        let other = message(Message::Request, |m| m.server_identifier = Some([10, 0, 2, 99].into()));
        assert!(answer(&other).is_none());
        assert!(answer(&message(Message::Release, |_| {})).is_none());
        let whole = message(Message::Discover, |_| {});
        for len in 0..240 {
            assert!(answer(&whole[..len]).is_none());
        }
        assert!(answer(&[0xff; 576]).is_none());
    }
}
