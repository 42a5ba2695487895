//! The guest's network.

use crate::exit::Error;
use devices::virtio::Net;
use devices::virtio::net::HostLink;
use net::{Connected, DNS, GATEWAY, GUEST, GUEST_MAC, MASK, NetError, Network, Protocol};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;

/// The guest's address as the kernel's command line has it
/// (*Documentation/admin-guide/nfs/nfsroot.rst*): our own init takes it from
/// there, and need not wait for DHCP.
pub(super) fn address() -> String {
    format!("ip={GUEST}::{GATEWAY}:{MASK}:kluis:eth0:off:{DNS}")
}

/// A network whose ports are taken.
pub(super) struct Ready {
    network: Network,
    link: HostLink,
    services: BTreeMap<u16, SocketAddrV4>,
}

/// Takes the ports that are to be published; gives the machine's device too.
///
/// # Errors
/// A port cannot be had.
pub(super) fn prepare(config: &Option<net::Config>) -> Result<Option<(Ready, Net)>, Error> {
    let Some(config) = config else { return Ok(None) };
    let network = Network::new(config).map_err(fail)?;
    let (device, link) = Net::new(GUEST_MAC);
    Ok(Some((Ready { network, link, services: config.services.clone() }, device)))
}

impl Ready {
    /// Connects the machine, and tells of ports that the user did not choose, and of
    /// services of the host that the user did not name.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(super) fn connect(self, quiet: bool) -> Result<Connected, Error> {
        for port in self.network.published() {
            if !quiet {
                let udp = if port.protocol == Protocol::Udp { "/udp" } else { "" };
                eprintln!("kluis: {}{udp} leads to the guest's port {}", port.host, port.guest);
            }
        }
        for (port, service) in &self.services {
            if !quiet {
                eprintln!("kluis: the guest's apt has this host's proxy {service} as {GATEWAY}:{port}");
            }
        }
        self.network.connect(self.link).map_err(fail)
    }
}

fn fail(e: NetError) -> Error {
    match e {
        NetError::Publish { .. } => Error::bad(e),
        NetError::Host(_) => Error::failed(e),
    }
}
