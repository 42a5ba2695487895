//! The loopback interface, and the one that the kernel's command line describes.
//!
//! `ip=CLIENT::GATEWAY:NETMASK:HOSTNAME:DEVICE:off:DNS` is the kernel's own way
//! (*Documentation/admin-guide/nfs/nfsroot.rst*); one built without it leaves it to
//! us. The address is known, so that nothing waits for DHCP.

use crate::log;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// What programs ask for names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Debug, PartialEq, Eq)]
struct Interface<'a> {
    device: &'a str,
    address: Ipv4Addr,
    mask: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    dns: Option<Ipv4Addr>,
}

/// Brings both up. Quietly does nothing in a kernel without networking.
pub fn start() {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0") else {
        return;
    };
    if let Err(e) = up(&socket, "lo") {
        log::error(format!("cannot bring the loopback interface up: {e}"));
    }
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if let Some(interface) = parse(&cmdline)
        && let Err(e) = configure(&socket, &interface)
    {
        log::error(format!("cannot bring {} up: {e}", interface.device));
    }
}

/// The interface on a kernel command line, if it has a fixed address.
fn parse(cmdline: &str) -> Option<Interface<'_>> {
    let fields: Vec<&str> =
        cmdline.split_whitespace().find_map(|w| w.strip_prefix("ip="))?.split(':').collect();
    let field = |n: usize| fields.get(n).copied().unwrap_or_default();
    let device = field(5);
    // the kernel's own limit, without its zero
    (!device.is_empty() && device.len() < libc::IFNAMSIZ).then_some(())?;
    Some(Interface {
        device,
        address: field(0).parse().ok()?,
        mask: field(3).parse().ok()?,
        gateway: field(2).parse().ok(),
        dns: field(7).parse().ok(),
    })
}

fn configure(socket: &UdpSocket, i: &Interface<'_>) -> io::Result<()> {
    for (what, ip) in [(libc::SIOCSIFADDR, i.address), (libc::SIOCSIFNETMASK, i.mask)] {
        let mut request = request(i.device);
        request.ifr_ifru.ifru_addr = socket_address(ip);
        ioctl(socket, what, &request)?;
    }
    up(socket, i.device)?;
    if let Some(gateway) = i.gateway {
        // SAFETY: `rtentry` is plain data for which all zeroes is valid.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        ioctl(socket, libc::SIOCADDRT, &route)?;
    }
    if let Some(dns) = i.dns {
        fs::write(RESOLV_CONF, format!("nameserver {dns}\n"))?;
    }
    Ok(())
}

fn up(socket: &UdpSocket, device: &str) -> io::Result<()> {
    let mut request = request(device);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    ioctl(socket, libc::SIOCSIFFLAGS, &request)
}

fn request(device: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // the last byte stays zero
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request
}

/// An address as *ip(7)* lays it out: family, port, address, padding.
fn socket_address(ip: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data[2..6].iter_mut().zip(ip.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

/// A request of *netdevice(7)* or *rtnetlink*'s elder, with its argument.
fn ioctl<T>(socket: &UdpSocket, what: libc::c_ulong, argument: &T) -> io::Result<()> {
    // SAFETY: the descriptor is a socket, and each caller gives the request the
    // whole structure that it takes.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what as _, argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_as_the_kernel_does() {
        let cmdline = "console=ttyS0 ip=10.0.2.15::10.0.2.2:255.255.255.0:kluis:eth0:off:10.0.2.3 x=y\n";
        let expected = Interface {
            device: "eth0",
            address: [10, 0, 2, 15].into(),
            mask: [255, 255, 255, 0].into(),
            gateway: Some([10, 0, 2, 2].into()),
            dns: Some([10, 0, 2, 3].into()),
        };
        assert_eq!(parse(cmdline), Some(expected));
        let short = parse("ip=10.0.0.2:::255.0.0.0::eth1").unwrap();
        assert_eq!((short.device, short.gateway, short.dns), ("eth1", None, None));
        for none in
            ["", "ip=", "ip=dhcp", "ip=:::::eth0:dhcp", "ip=10.0.0.2:::255.0.0.0::much-too-long-a-name"]
        {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
