//! The guest's network: who has which address.

use smoltcp::wire::EthernetAddress;
use std::net::Ipv4Addr;

/// The guest; it gets this by DHCP.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway: its ports are those of the host that are allowed.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server: its port 53 is that of the host's first one.
pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// The netmask.
pub const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The guest's Ethernet address.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The Ethernet address behind which all others are.
pub(crate) const OUR_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);

/// Length of the netmask.
pub(crate) const PREFIX: u8 = 24;

/// Whether an address is of the guest's network.
pub(crate) fn inside(ip: Ipv4Addr) -> bool {
    ip & MASK == GATEWAY & MASK
}
