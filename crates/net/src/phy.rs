//! The guest's wire as smoltcp's TCP sees it: IP packets.

use crate::guest::{Guest, checksums, frame};
use devices::virtio::net::MTU;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::EthernetProtocol;
use std::collections::VecDeque;

/// TCP packets of the guest that wait for the stack, and the way back.
pub(crate) struct Phy<'a> {
    pub(crate) received: &'a mut VecDeque<Vec<u8>>,
    pub(crate) guest: &'a Guest,
}

pub(crate) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

pub(crate) struct Transmit<'a>(&'a Guest);

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // there are no packets to a guest that has not been seen
        let to = self.0.mac.unwrap_or_default();
        let (bytes, result) = frame(to, EthernetProtocol::Ipv4, len, f);
        self.0.link.send(bytes);
        result
    }
}

impl Device for Phy<'_> {
    type RxToken<'b>
        = Received
    where
        Self: 'b;
    type TxToken<'b>
        = Transmit<'b>
    where
        Self: 'b;

    fn receive(&mut self, now: Instant) -> Option<(Received, Transmit<'_>)> {
        if self.guest.link.room() == 0 {
            return None;
        }
        let packet = self.received.pop_front()?;
        Some((Received(packet), self.transmit(now)?))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        (self.guest.link.room() > 0).then_some(Transmit(self.guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut about = DeviceCapabilities::default();
        about.medium = Medium::Ip;
        about.max_transmission_unit = usize::from(MTU);
        about.checksum = checksums();
        about
    }
}
