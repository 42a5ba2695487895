//! Entropy device (*virtio 1.2 §5.4*): fills buffers from the host's CSPRNG.
//!
//! | threat | guard |
//! |---|---|
//! | gigabyte buffers to keep a host thread busy | at most [`MAX_REQUEST`] bytes a buffer; the driver asks again |
//! | predictable numbers | the host's generator, never the clock; if it fails the buffer comes back empty |

use super::{QueueError, Queues, VirtioDevice};
use crate::device::StateError;
use crate::pci::Class;
use std::io::Write;
use vm_memory::GuestMemory;

/// The most bytes one buffer is filled with.
pub const MAX_REQUEST: usize = 64 * 1024;

const QUEUE: usize = 0;

/// The entropy device. It has no state.
#[derive(Debug, Default)]
pub struct Entropy;

impl VirtioDevice for Entropy {
    type State = ();

    fn device_type(&self) -> u16 {
        4
    }

    fn class(&self) -> Class {
        Class { base: 0xff, sub: 0, interface: 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn features(&self) -> u64 {
        0
    }

    fn activate(&mut self, _features: u64) {}

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process<M: GuestMemory>(
        &mut self,
        _queue: usize,
        queues: &mut Queues<'_, M>,
    ) -> Result<(), QueueError> {
        let mut buf = [0; 4096];
        for _ in 0..queues.available(QUEUE)? {
            let Some(chain) = queues.pop(QUEUE)? else {
                break;
            };
            let head = chain.head_index();
            let mut written = 0;
            if let Ok(mut writer) = chain.writer(queues.mem()) {
                let want = writer.available_bytes().min(MAX_REQUEST);
                while written < want {
                    let piece = &mut buf[..(want - written).min(4096)];
                    if getrandom::fill(piece).is_err() || writer.write_all(piece).is_err() {
                        break;
                    }
                    written += piece.len();
                }
            }
            queues.complete(QUEUE, head, written as u32)?;
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn load(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::driver::{Buf, Guest, virtio_device_tests};

    virtio_device_tests!(every_device, || Guest::new(Entropy));

    #[test]
    fn buffers_are_filled_and_differ() {
        let mut g = Guest::new(Entropy);
        g.start(0);
        let (a, b) = (g.alloc(64), g.alloc(64));
        for addr in [a, b] {
            g.add(0, &[Buf::Out(addr, 64)]);
        }
        g.notify(0);
        assert_eq!(g.used(0), [(0, 64), (1, 64)]);
        assert_ne!(g.peek(a, 64), vec![0; 64]);
        assert_ne!(g.peek(a, 64), g.peek(b, 64));
    }

    #[test]
    fn a_request_is_bounded_and_bad_buffers_come_back_empty() {
        let mut g = Guest::new(Entropy);
        g.start(0);
        let big = g.alloc(0x2_0000);
        g.add(0, &[Buf::Out(big, 0x2_0000)]);
        g.add(0, &[Buf::Out(0xffff_ffff_ffff_fff0, 0x100)]);
        g.add(0, &[Buf::In(big, 16)]);
        g.notify(0);
        let lens: Vec<u32> = g.used(0).iter().map(|u| u.1).collect();
        assert_eq!(lens, [MAX_REQUEST as u32, 0, 0]);
    }
}
