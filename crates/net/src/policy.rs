//! What the guest may reach, and where that is.

use crate::addresses::{DNS, GATEWAY, inside};
use crate::resolver::Resolver;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getsockname, socket_with};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Link-local services of clouds that have ordinary addresses: Azure, Alibaba.
const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200)];

/// Decides over destinations.
pub(crate) struct Policy {
    /// Ports of the host's loopback that the gateway has.
    allowed: BTreeSet<u16>,
    /// TCP ports of the gateway, and the services that are there.
    services: BTreeMap<u16, SocketAddrV4>,
    pub(crate) resolver: Resolver,
}

impl Policy {
    pub(crate) fn new(allowed: BTreeSet<u16>, resolver: Resolver) -> Self {
        Self { allowed, services: BTreeMap::new(), resolver }
    }

    /// The same with services of the host at TCP ports of the gateway.
    pub(crate) fn with_services(self, services: BTreeMap<u16, SocketAddrV4>) -> Self {
        Self { services, ..self }
    }

    /// Where a TCP connection of the guest to `to` goes on the host; `None`: nowhere.
    pub(crate) fn connection(&mut self, to: SocketAddrV4) -> Option<SocketAddrV4> {
        match self.services.get(&to.port()) {
            Some(service) if *to.ip() == GATEWAY => Some(*service),
            _ => self.destination(to),
        }
    }

    /// Where a packet of the guest to `to` goes on the host; `None`: nowhere.
    pub(crate) fn destination(&mut self, to: SocketAddrV4) -> Option<SocketAddrV4> {
        if *to.ip() == GATEWAY {
            let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, to.port());
            return self.allowed.contains(&to.port()).then_some(loopback);
        }
        if *to.ip() == DNS {
            return if to.port() == 53 { self.resolver.server() } else { None };
        }
        (to.port() != 0 && self.may_reach(*to.ip())).then_some(to)
    }

    /// Whether `ip` is of another machine: not the host itself, nor what only it
    /// is to see.
    pub(crate) fn may_reach(&self, ip: Ipv4Addr) -> bool {
        let special = ip.octets()[0] == 0
            || ip.octets()[0] >= 240
            || ip.is_loopback()
            || ip.is_link_local()
            || ip.is_multicast()
            || METADATA.contains(&ip);
        !special && !inside(ip) && !is_own(ip)
    }
}

/// Whether `ip` is an address of the host. Its kernel is asked, each time: what
/// goes to an own address comes from there. Nothing is sent.
#[must_use]
pub fn is_own(ip: Ipv4Addr) -> bool {
    let from = || {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrV4::new(ip, 9))?;
        getsockname(&socket).and_then(SocketAddrV4::try_from)
    };
    match from() {
        Ok(from) => *from.ip() == ip || from.ip().is_loopback(),
        // the packet itself will have the same answer
        Err(Errno::NETUNREACH | Errno::HOSTUNREACH) => false,
        // broadcast addresses
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn to(ip: [u8; 4], port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(ip.into(), port)
    }

    fn policy(allowed: &[u16]) -> Policy {
        Policy::new(allowed.iter().copied().collect(), Resolver::new(vec![to([127, 0, 0, 53], 53)]))
    }

    #[test]
    fn gateway_has_the_allowed_ports_only() {
        let mut p = policy(&[8080]);
        assert_eq!(p.destination(to([10, 0, 2, 2], 8080)), Some(to([127, 0, 0, 1], 8080)));
        assert_eq!(p.destination(to([10, 0, 2, 2], 8081)), None);
        assert_eq!(policy(&[]).destination(to([10, 0, 2, 2], 8080)), None);
    }

    #[test]
    fn service_is_at_the_gateway_by_tcp_alone() {
        let service = to([192, 0, 2, 7], 8123);
        let mut p = policy(&[8123]).with_services([(3142, service)].into());
        assert_eq!(p.connection(to([10, 0, 2, 2], 3142)), Some(service));
        assert_eq!(p.connection(to([10, 0, 2, 2], 8123)), Some(to([127, 0, 0, 1], 8123)));
        assert_eq!(p.connection(to([10, 0, 2, 3], 3142)), None);
        assert_eq!(p.destination(to([10, 0, 2, 2], 3142)), None);
    }

    #[test]
    fn name_server_has_one_port() {
        let mut p = policy(&[80]);
        assert_eq!(p.destination(to([10, 0, 2, 3], 53)), Some(to([127, 0, 0, 53], 53)));
        assert_eq!(p.destination(to([10, 0, 2, 3], 80)), None);
        let mut none = Policy::new(BTreeSet::new(), Resolver::new(Vec::new()));
        assert_eq!(none.destination(to([10, 0, 2, 3], 53)), None);
    }

    #[test]
    fn host_and_special_addresses_are_refused() {
        let mut p = policy(&[80]);
        for ip in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [127, 9, 9, 9],
            [169, 254, 169, 254],
            [168, 63, 129, 16],
            [100, 100, 100, 200],
            [224, 0, 0, 1],
            [239, 255, 255, 250],
            [240, 0, 0, 1],
            [255, 255, 255, 255],
            [10, 0, 2, 0],
            [10, 0, 2, 15],
            [10, 0, 2, 77],
            [10, 0, 2, 255],
        ] {
            assert_eq!(p.destination(to(ip, 80)), None, "{ip:?}");
        }
    }

    #[test]
    fn addresses_of_the_hosts_interfaces_are_its_own() {
        // the address by which this host would go out, if it has one
        let out = UdpSocket::bind("0.0.0.0:0").unwrap();
        if out.connect("198.51.100.1:9").is_ok()
            && let Ok(std::net::SocketAddr::V4(own)) = out.local_addr()
        {
            assert!(is_own(*own.ip()));
            assert!(!is_own(Ipv4Addr::new(198, 51, 100, 1)));
        }
        assert!(is_own(Ipv4Addr::LOCALHOST));
        assert!(is_own(Ipv4Addr::new(127, 3, 2, 1)));
        assert!(is_own(Ipv4Addr::BROADCAST));
    }
}
