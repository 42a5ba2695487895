//! Socket device (*virtio 1.2 §5.10*): stream connections between programs of
//! the guest and of the host, named by ports.
//!
//! On the host a connection is a [`HostStream`]. The guest's requests go to the
//! [`HostSide`]; a program of the host that wants to talk to the guest comes in
//! by [`Vsock::connect`]. Whoever waits for the host's descriptors calls
//! [`VirtioPci::kick`](super::VirtioPci::kick) when one of them has become
//! ready: it suffices to be told of changes (epoll's edges).
//!
//! Nothing is lost while both sides stay: the host reads no more of a stream
//! than the guest has given credit for, the guest sends no more than [`BUFFER`]
//! bytes ahead of the host's reader. Each direction ends by itself.
//!
//! | threat | guard |
//! |---|---|
//! | connections without end | at most [`MAX_CONNECTIONS`]; further ones are reset |
//! | a guest that sends beyond its credit | its connection is reset: never more than [`BUFFER`] bytes each |
//! | credit counters that lie | only what the host reads depends on them; read piece by piece |
//! | packets that provoke answers, and no buffers for these | after 64 resets no packet is read until they are taken |
//! | lengths that lie, huge chains | the payload is at most 64 KiB and no longer than its chain; longer ones are dropped |
//! | other addresses, types, operations | dropped, or answered with a reset |
//! | a host that does not read | the guest's bytes wait in its own buffers |

mod connection;
mod mux;
mod packet;

pub use connection::BUFFER;
pub use mux::MAX_CONNECTIONS;
pub use packet::HOST_CID;

use super::{QueueError, Queues, VirtioDevice};
use crate::bytes::read_image;
use crate::device::StateError;
use crate::pci::Class;
use mux::Mux;
use packet::{HEADER, Header, MAX_PAYLOAD};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use vm_memory::GuestMemory;
use zerocopy::{FromBytes, IntoBytes};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const EVENT: usize = 2;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, little-endian (*§5.10.6.7*).
const TRANSPORT_RESET: [u8; 4] = [0; 4];

/// The host's end of a connection. Reading and writing never wait
/// (`WouldBlock`); reading 0 bytes is the end.
pub trait HostStream: Read + Write + Send {
    /// The guest sends no more.
    fn finish(&mut self);
}

/// What the guest finds on the host.
pub trait HostSide: Send {
    /// Connects to what is at `port`, without waiting; `None` if there is
    /// nothing or it takes nobody. Called with the device locked.
    fn connect(&mut self, port: u32) -> Option<Box<dyn HostStream>>;
}

/// What a snapshot keeps of the device: no connection, but whether the guest is
/// to be told that it has lost them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockState {
    lost: bool,
}

/// The socket device.
pub struct Vsock {
    cid: u64,
    mux: Mux,
    /// The guest is to be told that its connections are gone.
    lost: bool,
    buf: Vec<u8>,
}

impl Vsock {
    /// A device for the guest with address `cid` (3 or higher) before `host`.
    pub fn new(cid: u64, host: Box<dyn HostSide>) -> Self {
        Self { cid, mux: Mux::new(cid, host), lost: false, buf: vec![0; MAX_PAYLOAD] }
    }

    /// A program on the host wants to talk to the guest's `port`. It finds its
    /// stream closed if nothing listens there or there are too many
    /// connections. Kick the device afterwards.
    pub fn connect(&mut self, port: u32, stream: Box<dyn HostStream>) {
        self.mux.connect(port, stream);
    }

    /// Reads the guest's packets.
    fn transmit<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        for _ in 0..queues.available(TRANSMIT)? {
            if !self.mux.is_ready() {
                break;
            }
            let Some(chain) = queues.pop(TRANSMIT)? else { break };
            let head = chain.head_index();
            if let Ok(mut reader) = chain.reader(queues.mem()) {
                let mut header = [0; HEADER];
                if reader.read_exact(&mut header).is_ok()
                    && let Ok(header) = Header::read_from_bytes(&header)
                    && let Some(data) = self.buf.get_mut(..header.len.get() as usize)
                    && reader.read_exact(data).is_ok()
                {
                    self.mux.hear(&header, data);
                }
            }
            queues.complete(TRANSMIT, head, 0)?;
        }
        Ok(())
    }

    /// Gives the guest packets.
    fn receive<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        for _ in 0..queues.available(RECEIVE)? {
            let Some(chain) = queues.pop(RECEIVE)? else { break };
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer(queues.mem())
                && let Some(room) = writer.available_bytes().checked_sub(HEADER)
            {
                let Some(header) = self.mux.next(room, &mut self.buf) else {
                    queues.unpop(RECEIVE);
                    break;
                };
                let data = &self.buf[..header.len.get() as usize];
                if writer.write_all(header.as_bytes()).and_then(|()| writer.write_all(data)).is_ok() {
                    written = HEADER + data.len();
                }
            }
            queues.complete(RECEIVE, head, written as u32)?;
        }
        Ok(())
    }

    /// Tells the guest that its connections are gone, if they are.
    fn event<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        if self.lost
            && queues.available(EVENT)? > 0
            && let Some(chain) = queues.pop(EVENT)?
        {
            let head = chain.head_index();
            let told =
                chain.writer(queues.mem()).is_ok_and(|mut writer| writer.write_all(&TRANSPORT_RESET).is_ok());
            self.lost = !told;
            queues.complete(EVENT, head, if told { TRANSPORT_RESET.len() as u32 } else { 0 })?;
        }
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    type State = VsockState;

    fn device_type(&self) -> u16 {
        19
    }

    fn class(&self) -> Class {
        Class { base: 7, sub: 0x80, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![128, 128, 8]
    }

    fn features(&self) -> u64 {
        0
    }

    fn activate(&mut self, _features: u64) {}

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_image(&self.cid.to_le_bytes(), offset, data, 0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        _queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        self.event(queues)?;
        // what waits to be taken may hold up what waits to be read
        self.receive(queues)?;
        self.transmit(queues)?;
        self.receive(queues)
    }

    fn poll<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        self.mux.wake();
        self.process(RECEIVE, queues)
    }

    fn reset(&mut self) {
        self.mux.clear();
        self.lost = false;
    }

    fn save(&self) -> VsockState {
        VsockState { lost: self.lost || !self.mux.is_empty() }
    }

    fn load(&mut self, state: VsockState) -> Result<(), StateError> {
        self.mux.clear();
        self.lost = state.lost;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
