//! Control messages (*virtio 1.2 §5.3.6.2*).

use super::{CONTROL_RECEIVE, CONTROL_TRANSMIT, Console};
use crate::virtio::{QueueError, Queues};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use vm_memory::GuestMemory;

const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// How the two numbers of a RESIZE message are ordered.
///
/// The specification says columns first. Linux read rows first until commit
/// 5326ab737a47 (2025), and stable kernels differ; it is the board that knows
/// which kernel it boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResizeOrder {
    /// As *virtio 1.2 §5.3.6.2*: columns, rows.
    #[default]
    Specification,
    /// As older Linux: rows, columns.
    RowsFirst,
}

/// Messages the guest is still to get about a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) add: bool,
    pub(super) console: bool,
    pub(super) name: bool,
    pub(super) resize: bool,
}

impl Console {
    /// Reads what the guest sent on the control queue.
    pub(super) fn control_messages<M: GuestMemory>(
        &mut self,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        if !self.multiport {
            return Ok(());
        }
        for _ in 0..queues.available(CONTROL_TRANSMIT)? {
            let Some(chain) = queues.pop(CONTROL_TRANSMIT)? else {
                break;
            };
            let head = chain.head_index();
            let mut message = [0; 8];
            let complete = chain.reader(queues.mem()).is_ok_and(|mut r| r.read_exact(&mut message).is_ok());
            queues.complete(CONTROL_TRANSMIT, head, 0)?;
            if complete {
                let [i0, i1, i2, i3, e0, e1, v0, v1] = message;
                let id = u32::from_le_bytes([i0, i1, i2, i3]);
                let value = u16::from_le_bytes([v0, v1]);
                self.control_message(id, u16::from_le_bytes([e0, e1]), value, queues)?;
            }
        }
        Ok(())
    }

    fn control_message<M: GuestMemory>(
        &mut self,
        id: u32,
        event: u16,
        value: u16,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        if event == DEVICE_READY {
            if value == 1 {
                for port in &mut self.ports {
                    port.s.pending.add = true;
                }
            }
            return Ok(());
        }
        let p = id as usize;
        let Some(port) = self.ports.get_mut(p) else {
            return Ok(());
        };
        match (event, value) {
            (PORT_READY, 1) => {
                port.s.ready = true;
                port.s.announced = false;
                port.s.pending.console = port.console;
                port.s.pending.resize = port.console;
                port.s.pending.name = !port.name.is_empty();
            }
            (PORT_READY, _) => port.s.ready = false,
            (PORT_OPEN, v) => {
                port.set_open(v != 0);
                if v == 0 {
                    // what was written before the close goes out before it
                    self.drain(p, queues)?;
                } else {
                    self.deliver(p, queues)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what is pending, as far as the guest gave buffers.
    pub(super) fn flush_control<M: GuestMemory>(
        &mut self,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        for p in 0..self.ports.len() {
            let resized = std::mem::take(&mut self.ports[p].host.lock().resized);
            if resized && !self.multiport {
                if p == 0 {
                    queues.config_changed();
                }
            } else if resized && self.ports[p].s.ready && self.ports[p].console {
                self.ports[p].s.pending.resize = true;
            }
            if self.multiport && !self.flush_port(p, queues)? {
                break;
            }
        }
        Ok(())
    }

    /// False if the guest has no buffer for the next message.
    fn flush_port<M: GuestMemory>(
        &mut self,
        p: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<bool, QueueError> {
        let id = p as u32;
        if self.ports[p].s.pending.add {
            if !send(queues, id, DEVICE_ADD, 1, &[])? {
                return Ok(false);
            }
            self.ports[p].s.pending.add = false;
        }
        let order = self.resize_order;
        let port = &mut self.ports[p];
        if !port.s.ready {
            return Ok(true);
        }
        if port.s.pending.console {
            if !send(queues, id, CONSOLE_PORT, 1, &[])? {
                return Ok(false);
            }
            port.s.pending.console = false;
        }
        if port.s.pending.name {
            if !send(queues, id, PORT_NAME, 1, port.name.as_bytes())? {
                return Ok(false);
            }
            port.s.pending.name = false;
        }
        if port.s.pending.resize {
            let (cols, rows) = port.host.lock().size;
            let (a, b) = match order {
                ResizeOrder::Specification => (cols, rows),
                ResizeOrder::RowsFirst => (rows, cols),
            };
            let mut size = [0; 4];
            size[..2].copy_from_slice(&a.to_le_bytes());
            size[2..].copy_from_slice(&b.to_le_bytes());
            if !send(queues, id, RESIZE, 0, &size)? {
                return Ok(false);
            }
            port.s.pending.resize = false;
        }
        let open = {
            let host = port.host.lock();
            // the close comes after the data written before it
            host.open || port.s.announced && !host.input.is_empty()
        };
        if open != port.s.announced {
            if !send(queues, id, PORT_OPEN, u16::from(open), &[])? {
                return Ok(false);
            }
            port.s.announced = open;
        }
        Ok(true)
    }
}

/// Sends one message; false if there is no buffer for it.
fn send<M: GuestMemory>(
    queues: &mut Queues<'_, M>,
    id: u32,
    event: u16,
    value: u16,
    more: &[u8],
) -> Result<bool, QueueError> {
    let mut message = Vec::with_capacity(8 + more.len());
    message.extend(id.to_le_bytes());
    message.extend(event.to_le_bytes());
    message.extend(value.to_le_bytes());
    message.extend(more);
    for _ in 0..queues.available(CONTROL_RECEIVE)? {
        let Some(chain) = queues.pop(CONTROL_RECEIVE)? else {
            break;
        };
        let head = chain.head_index();
        // buffers too small or outside memory come back empty
        let sent = chain
            .writer(queues.mem())
            .is_ok_and(|mut w| w.available_bytes() >= message.len() && w.write_all(&message).is_ok());
        let len = if sent { message.len() as u32 } else { 0 };
        queues.complete(CONTROL_RECEIVE, head, len)?;
        if sent {
            return Ok(true);
        }
    }
    Ok(false)
}
