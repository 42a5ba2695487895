//! Network device (*virtio 1.2 §5.1*): Ethernet frames between the guest's
//! rings and a [`HostLink`].
//!
//! There is no segmentation offload. The device offers an MTU of almost 64 KiB
//! instead, which saves a guest as much work and needs no header of the guest's to
//! be believed; and the guest need neither compute nor check checksums.
//!
//! Nothing is lost in either direction while the driver runs: what does not fit
//! waits on the side it comes from.
//!
//! | threat | guard |
//! |---|---|
//! | guest sends faster than the host takes | back-pressure: chains stay in the ring while [`QUEUE_FRAMES`] wait |
//! | guest does not receive | [`HostLink::send`] takes no more than [`QUEUE_FRAMES`] |
//! | frames of any length, without a header | [`MIN_FRAME`] to [`MAX_FRAME`] bytes, others are dropped |
//! | offloads in the header that were not negotiated | the frame is dropped; checksum offsets are not looked at |
//! | receive buffers that no frame fits | the frame is dropped once the ring holds no more |

mod host;
#[cfg(test)]
mod tests;

pub use host::{HostLink, connect};

use super::{Chain, QueueError, Queues, VirtioDevice};
use crate::bytes::read_image;
use crate::device::StateError;
use crate::pci::Class;
use host::Shared;
use std::io::{Read, Write};
use std::sync::Arc;
use vm_memory::GuestMemory;

const F_CSUM: u64 = 1 << 0;
const F_GUEST_CSUM: u64 = 1 << 1;
const F_MTU: u64 = 1 << 3;
const F_MAC: u64 = 1 << 5;
const F_MRG_RXBUF: u64 = 1 << 15;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUE_SIZE: u16 = 256;

/// Length of struct virtio_net_hdr (*§5.1.6*).
const HEADER: usize = 12;
/// VIRTIO_NET_HDR_F_DATA_VALID: the checksums are right.
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;

/// The MTU offered: a multiple of 8 as large as an IP packet can be.
pub const MTU: u16 = 65_520;
/// Length of an Ethernet header.
pub const MIN_FRAME: usize = 14;
/// The longest frame, without checksum.
pub const MAX_FRAME: usize = MIN_FRAME + MTU as usize;
/// The most frames that wait in each direction.
pub const QUEUE_FRAMES: usize = 128;

/// The network device.
pub struct Net {
    mac: [u8; 6],
    host: Arc<Shared>,
    mergeable: bool,
    checked: bool,
}

impl Net {
    /// A device with this address, and the host's end of its wire; [`connect`]
    /// it once it is behind its transport.
    pub fn new(mac: [u8; 6]) -> (Self, HostLink) {
        let host = Arc::new(Shared::default());
        let link = HostLink::new(&host);
        (Self { mac, host, mergeable: false, checked: false }, link)
    }

    /// Takes frames from the guest as long as the host has room.
    fn transmit<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        let mut sent = false;
        for _ in 0..queues.available(TRANSMIT)? {
            let mut side = self.host.lock();
            if side.from_guest.len() >= QUEUE_FRAMES {
                side.guest_waits = true;
                break;
            }
            let Some(chain) = queues.pop(TRANSMIT)? else { break };
            let head = chain.head_index();
            if let Some(frame) = read_frame(queues.mem(), chain) {
                side.from_guest.push_back(frame);
                sent = true;
            }
            drop(side);
            queues.complete(TRANSMIT, head, 0)?;
        }
        if sent {
            self.host.wake();
        }
        Ok(())
    }

    /// Puts the host's frames into the guest's buffers.
    fn receive<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        let mut side = self.host.lock();
        let full = side.to_guest.len() >= QUEUE_FRAMES;
        for _ in 0..side.to_guest.len() {
            let Some(frame) = side.to_guest.front() else { break };
            if !self.deliver(frame, queues)? {
                break;
            }
            side.to_guest.pop_front();
        }
        let wake = full && side.to_guest.len() < QUEUE_FRAMES;
        drop(side);
        if wake {
            self.host.wake();
        }
        Ok(())
    }

    /// Delivers or drops one frame; false if it waits for more buffers.
    fn deliver<M: GuestMemory>(&self, frame: &[u8], queues: &mut Queues<'_, M>) -> Result<bool, QueueError> {
        let need = HEADER + frame.len();
        let most = if self.mergeable { queues.available(RECEIVE)? } else { 1 };
        let mut chains = Vec::new();
        let mut room = 0usize;
        while room < need && chains.len() < usize::from(most) {
            let Some(chain) = queues.pop(RECEIVE)? else { break };
            // a chain outside memory holds nothing
            let len = chain.clone().writer(queues.mem()).map_or(0, |w| w.available_bytes());
            room = room.saturating_add(len);
            chains.push(chain);
        }
        if room < need {
            let hopeless = chains.len() == usize::from(if self.mergeable { queues.size(RECEIVE) } else { 1 });
            (0..chains.len()).for_each(|_| queues.unpop(RECEIVE));
            return Ok(hopeless);
        }
        let mut header = [0; HEADER];
        header[0] = if self.checked { DATA_VALID } else { 0 };
        header[10..].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        let mut rest = [&header[..], frame];
        let mut used = Vec::with_capacity(chains.len());
        for chain in chains {
            let head = chain.head_index();
            let written = match chain.writer(queues.mem()) {
                Ok(mut writer) => fill(&mut writer, &mut rest),
                Err(_) => 0,
            };
            used.push((head, written));
        }
        queues.complete_together(RECEIVE, &used)?;
        Ok(true)
    }
}

/// Fills a buffer from what is left of header and frame; how many bytes.
fn fill(writer: &mut impl Write, rest: &mut [&[u8]; 2]) -> u32 {
    let mut written = 0;
    for part in rest {
        while !part.is_empty()
            && let Ok(n @ 1..) = writer.write(part)
        {
            *part = &part[n..];
            written += n as u32;
        }
    }
    written
}

/// The frame in a chain, if it is one.
fn read_frame<M: GuestMemory>(mem: &M, chain: Chain<'_, M>) -> Option<Vec<u8>> {
    let mut reader = chain.reader(mem).ok()?;
    let len = reader.available_bytes().checked_sub(HEADER)?;
    if !(MIN_FRAME..=MAX_FRAME).contains(&len) {
        return None;
    }
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).ok()?;
    if header[1] != GSO_NONE {
        return None;
    }
    let mut frame = vec![0; len];
    reader.read_exact(&mut frame).ok()?;
    Some(frame)
}

impl VirtioDevice for Net {
    /// What was negotiated is in the transport's state, and frames may get lost.
    type State = ();

    fn device_type(&self) -> u16 {
        1
    }

    fn class(&self) -> Class {
        Class { base: 2, sub: 0, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn features(&self) -> u64 {
        // without STATUS the link is up from the start
        F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_MRG_RXBUF
    }

    fn activate(&mut self, features: u64) {
        self.mergeable = features & F_MRG_RXBUF != 0;
        self.checked = features & F_GUEST_CSUM != 0;
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_net_config up to mtu
        let mut config = [0; 12];
        config[0..6].copy_from_slice(&self.mac);
        config[10..12].copy_from_slice(&MTU.to_le_bytes());
        read_image(&config, offset, data, 0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        match queue {
            RECEIVE => self.receive(queues),
            TRANSMIT => self.transmit(queues),
            _ => Ok(()),
        }
    }

    fn reset(&mut self) {
        (self.mergeable, self.checked) = (false, false);
        self.host.lock().clear();
    }

    fn save(&self) {}

    fn load(&mut self, _state: ()) -> Result<(), StateError> {
        self.host.lock().clear();
        Ok(())
    }
}
