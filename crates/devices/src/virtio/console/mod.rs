//! Console device with several ports (*virtio 1.2 §5.3*).
//!
//! Port 0 is usually the console (`/dev/hvc0`); the others appear in Linux as
//! `/dev/vportNpM`, with their name in `/sys/class/virtio-ports/*/name` and,
//! through udev's rules, as `/dev/virtio-ports/NAME`. On the host a port is a
//! [`HostPort`] for input and close, and a [`PortSink`] for output.
//!
//! Nothing is lost in either direction: input waits in a bounded buffer until
//! the guest has opened the port and given buffers; output waits in the
//! guest's own buffers until the sink takes it. A close follows the data it
//! comes after, both ways.
//!
//! | threat | guard |
//! |---|---|
//! | guest never reads | the input buffer is bounded, [`HostPort::write`] takes no more |
//! | guest floods output | back-pressure: chains stay in the ring while the sink is full |
//! | control messages for ports there are not, of any length | ignored; eight bytes are read |
//! | DEVICE_READY again and again without buffers for the answers | answers are flags a port, not a queue |
//! | gigabyte chains | more than [`MAX_CHAIN`] bytes: completed unread |

mod control;
mod host;

pub use control::ResizeOrder;
pub use host::{HostPort, PortEvent, PortSink, connect};

use super::{ChainReader, QueueError, Queues, VirtioDevice};
use crate::bytes::read_image;
use crate::device::StateError;
use crate::pci::Class;
use control::Pending;
use host::Shared;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::sync::Arc;
use vm_memory::GuestMemory;

const F_SIZE: u64 = 1;
const F_MULTIPORT: u64 = 2;

const QUEUE_SIZE: u16 = 128;
/// The most bytes one chain of output may have.
pub const MAX_CHAIN: usize = 16 << 20;
/// The most ports.
pub const MAX_PORTS: usize = 32;
const PIECE: usize = 32 * 1024;

/// Called when the guest opens or closes the port.
type OnEvent = Box<dyn Fn(PortEvent) + Send>;

/// How a port is made.
pub struct PortConfig {
    /// Its name; empty for none.
    pub name: String,
    /// Whether Linux makes a terminal (`hvc`) of it.
    pub console: bool,
    /// Where the guest's output goes. Called with the device locked, so it
    /// must not call the device's [`HostPort`]s.
    pub sink: Box<dyn PortSink>,
    /// Told when the guest opens or closes the port; the same restriction
    /// holds.
    pub on_event: Option<OnEvent>,
}

struct Port {
    name: String,
    console: bool,
    sink: Box<dyn PortSink>,
    on_event: Option<OnEvent>,
    host: Arc<Shared>,
    s: PortState,
}

/// What a snapshot keeps of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PortState {
    /// The guest knows the port (PORT_READY).
    ready: bool,
    /// The guest has it open.
    open: bool,
    /// It was closed, but output from before waits for the sink.
    closing: bool,
    /// It was opened again since.
    reopened: bool,
    /// The host's side, as the guest was told last.
    announced: bool,
    pending: Pending,
    /// Bytes of the first chain of output that the sink took already.
    taken: u32,
    /// Input not yet delivered.
    input: Vec<u8>,
    /// Input taken since power-on, in bytes.
    accepted: u64,
}

/// What a snapshot keeps of the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    multiport: bool,
    ports: Vec<PortState>,
}

/// The console device.
pub struct Console {
    ports: Vec<Port>,
    resize_order: ResizeOrder,
    multiport: bool,
    buf: Vec<u8>,
}

/// What a queue is for (*§5.3.2*).
enum Role {
    Receive(usize),
    Transmit(usize),
    ControlReceive,
    ControlTransmit,
}

const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;

fn role(queue: usize) -> Role {
    match queue {
        0 => Role::Receive(0),
        1 => Role::Transmit(0),
        CONTROL_RECEIVE => Role::ControlReceive,
        CONTROL_TRANSMIT => Role::ControlTransmit,
        q if q % 2 == 0 => Role::Receive(q / 2 - 1),
        q => Role::Transmit(q / 2 - 1),
    }
}

fn receive_queue(port: usize) -> usize {
    if port == 0 { 0 } else { 2 * port + 2 }
}

impl Console {
    /// A console with `ports` (at most [`MAX_PORTS`], further ones are
    /// dropped), each with room for `capacity` bytes of input. Returns the
    /// host's ends in the same order; [`connect`] them once the device is
    /// behind its transport.
    pub fn new(ports: Vec<PortConfig>, capacity: usize, resize_order: ResizeOrder) -> (Self, Vec<HostPort>) {
        let ports: Vec<Port> = ports
            .into_iter()
            .take(MAX_PORTS)
            .map(|p| Port {
                name: p.name,
                console: p.console,
                sink: p.sink,
                on_event: p.on_event,
                host: Arc::new(Shared::new(capacity.max(1))),
                s: PortState::default(),
            })
            .collect();
        let hosts = ports.iter().map(|p| HostPort::new(&p.host)).collect();
        let console = Self { ports, resize_order, multiport: false, buf: vec![0; PIECE] };
        (console, hosts)
    }

    /// Delivers input of port `p` to the guest.
    fn deliver<M: GuestMemory>(&mut self, p: usize, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        let Some(port) = self.ports.get(p) else {
            return Ok(());
        };
        // Linux throws away what arrives at a port nobody has open
        if self.multiport && !port.s.open {
            return Ok(());
        }
        let q = receive_queue(p);
        let mut freed = false;
        {
            let mut host = port.host.lock();
            for _ in 0..queues.available(q)? {
                if host.input.is_empty() {
                    break;
                }
                let Some(chain) = queues.pop(q)? else { break };
                let head = chain.head_index();
                let mut n = 0;
                if let Ok(mut writer) = chain.writer(queues.mem()) {
                    let (a, b) = host.input.as_slices();
                    for part in [a, b] {
                        let room = writer.available_bytes().min(part.len());
                        n += writer.write(&part[..room]).unwrap_or(0);
                    }
                }
                host.input.drain(..n);
                freed |= n > 0;
                queues.complete(q, head, n as u32)?;
            }
        }
        if freed {
            port.host.made_room();
        }
        Ok(())
    }

    /// Gives output of port `p` to its sink, as much as that takes.
    fn drain<M: GuestMemory>(&mut self, p: usize, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        let Some(port) = self.ports.get_mut(p) else {
            return Ok(());
        };
        let q = receive_queue(p) + 1;
        for _ in 0..queues.available(q)? {
            let Some(chain) = queues.pop(q)? else { break };
            let head = chain.head_index();
            if let Ok(reader) = chain.reader(queues.mem())
                && reader.available_bytes() <= MAX_CHAIN
                && !port.feed::<M>(reader, &mut self.buf)
            {
                queues.unpop(q);
                return Ok(());
            }
            port.s.taken = 0;
            queues.complete(q, head, 0)?;
        }
        if queues.available(q)? == 0 {
            port.finish_close();
        }
        Ok(())
    }
}

impl Port {
    /// Feeds what the sink has not yet taken of one chain; false if it is full.
    fn feed<M: GuestMemory>(&mut self, mut reader: ChainReader<'_, M>, buf: &mut [u8]) -> bool {
        // a chain that shrank since it was seen first has nothing left
        let Ok(mut rest) = reader.split_at(self.s.taken as usize) else {
            return true;
        };
        while let Ok(n @ 1..) = rest.read(buf) {
            let mut from = 0;
            while from < n {
                let k = self.sink.write(&buf[from..n]).min(n - from);
                if k == 0 {
                    return false;
                }
                from += k;
                self.s.taken += k as u32;
            }
        }
        true
    }

    fn event(&self, event: PortEvent) {
        if let Some(f) = &self.on_event {
            f(event);
        }
    }

    /// Tells the host of a close that waited for the output before it.
    fn finish_close(&mut self) {
        if std::mem::take(&mut self.s.closing) {
            self.event(PortEvent::Closed);
            if std::mem::take(&mut self.s.reopened) {
                self.event(PortEvent::Opened);
            }
        }
    }

    /// The guest opens or closes the port.
    fn set_open(&mut self, open: bool) {
        if open == self.s.open {
            return;
        }
        self.s.open = open;
        self.host.lock().guest_open = open;
        if self.s.closing {
            self.s.reopened = open;
        } else if open {
            self.event(PortEvent::Opened);
        } else {
            self.s.closing = true;
        }
    }
}

impl VirtioDevice for Console {
    type State = ConsoleState;

    fn device_type(&self) -> u16 {
        3
    }

    fn class(&self) -> Class {
        Class { base: 7, sub: 0x80, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2 * self.ports.len().max(1) + 2]
    }

    fn features(&self) -> u64 {
        F_SIZE | F_MULTIPORT
    }

    fn activate(&mut self, features: u64) {
        self.multiport = features & F_MULTIPORT != 0;
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_console_config: cols, rows, max_nr_ports, emerg_wr
        let (cols, rows) = self.ports.first().map_or((80, 25), |p| p.host.lock().size);
        let mut config = [0; 12];
        config[0..2].copy_from_slice(&cols.to_le_bytes());
        config[2..4].copy_from_slice(&rows.to_le_bytes());
        config[4..8].copy_from_slice(&(self.ports.len() as u32).to_le_bytes());
        read_image(&config, offset, data, 0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        match role(queue) {
            Role::Receive(p) => self.deliver(p, queues)?,
            Role::Transmit(p) => self.drain(p, queues)?,
            Role::ControlReceive => {}
            Role::ControlTransmit => self.control_messages(queues)?,
        }
        self.flush_control(queues)
    }

    fn poll<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        self.control_messages(queues)?;
        for p in 0..self.ports.len() {
            self.drain(p, queues)?;
            self.deliver(p, queues)?;
        }
        self.flush_control(queues)
    }

    fn reset(&mut self) {
        self.multiport = false;
        for port in &mut self.ports {
            // input stays: it may have been there before the driver came
            port.set_open(false);
            port.s.reopened = false;
            port.finish_close();
            port.s = PortState::default();
        }
    }

    fn power_cycle(&mut self) {
        self.reset();
        for port in &self.ports {
            let mut host = port.host.lock();
            host.input.clear();
            host.accepted = 0;
            drop(host);
            port.host.made_room();
        }
    }

    fn save(&self) -> ConsoleState {
        let port = |p: &Port| {
            let host = p.host.lock();
            let input = host.input.iter().copied().collect();
            PortState { input, accepted: host.accepted, ..p.s.clone() }
        };
        ConsoleState { multiport: self.multiport, ports: self.ports.iter().map(port).collect() }
    }

    fn load(&mut self, state: ConsoleState) -> Result<(), StateError> {
        if state.ports.len() != self.ports.len() {
            return Err(StateError::new("virtio-console", "ports", "are of another number"));
        }
        for (p, s) in self.ports.iter().zip(&state.ports) {
            if s.input.len() > p.host.capacity() {
                return Err(StateError::new("virtio-console", "input", "exceeds the buffer"));
            }
        }
        self.multiport = state.multiport;
        for (p, mut s) in self.ports.iter_mut().zip(state.ports) {
            let mut host = p.host.lock();
            host.input = std::mem::take(&mut s.input).into();
            host.accepted = std::mem::take(&mut s.accepted);
            host.guest_open = s.open;
            drop(host);
            p.s = s;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
