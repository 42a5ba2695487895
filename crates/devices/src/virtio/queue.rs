//! Split virtqueues (*virtio 1.2 §2.7*), on `virtio-queue`.

use crate::device::StateError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{DescriptorChain, Queue, QueueT, Reader, Writer};
use vm_memory::bitmap::BS;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// The vector number that means "none" (*§4.1.5.1.2*).
pub(crate) const NO_VECTOR: u16 = 0xffff;
/// VIRTQ_AVAIL_F_NO_INTERRUPT.
const NO_INTERRUPT: u16 = 1;

/// A descriptor chain taken from a queue.
pub type Chain<'a, M> = DescriptorChain<&'a M>;
/// Reads a chain's device-readable buffers.
pub type ChainReader<'a, M> = Reader<'a, BS<'a, <M as GuestMemory>::Bitmap>>;
/// Writes a chain's device-writable buffers.
pub type ChainWriter<'a, M> = Writer<'a, BS<'a, <M as GuestMemory>::Bitmap>>;

/// A ring the driver broke.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The available ring names a descriptor past the table.
    #[error("descriptor {0} does not exist; the driver's available ring is corrupt")]
    Head(u16),
    /// The ring cannot be read, or its index ran away.
    #[error("virtqueue is broken ({0}); the driver must reset the device")]
    Ring(#[from] virtio_queue::Error),
}

/// What a snapshot keeps of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    size: u16,
    enabled: bool,
    vector: u16,
    desc: u64,
    avail: u64,
    used: u64,
    next_avail: u16,
    next_used: u16,
}

/// One queue with what the driver programmed.
pub(crate) struct VirtQueue {
    queue: Queue,
    max: u16,
    pub(crate) size: u16,
    pub(crate) vector: u16,
    pub(crate) desc: u64,
    pub(crate) avail: u64,
    pub(crate) used: u64,
    /// Something was completed since the last interrupt.
    completed: bool,
}

impl VirtQueue {
    pub(crate) fn new(max: u16) -> Self {
        let max = max.clamp(1, 32768).next_power_of_two();
        // a power of two in range is what `Queue::new` asks for
        let queue = Queue::new(max).unwrap_or_default();
        Self { queue, max, size: max, vector: NO_VECTOR, desc: 0, avail: 0, used: 0, completed: false }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max);
    }

    pub(crate) fn enabled(&self) -> bool {
        self.queue.ready()
    }

    /// The driver enables the queue; false if what it programmed is no queue.
    pub(crate) fn enable<M: GuestMemory>(&mut self, mem: &M) -> bool {
        let q = &mut self.queue;
        q.reset();
        let programmed = q.try_set_size(self.size).is_ok()
            && q.try_set_desc_table_address(GuestAddress(self.desc)).is_ok()
            && q.try_set_avail_ring_address(GuestAddress(self.avail)).is_ok()
            && q.try_set_used_ring_address(GuestAddress(self.used)).is_ok()
            && self.avail != 0;
        q.set_ready(programmed);
        if !programmed || !q.is_valid(mem) {
            q.set_ready(false);
            return false;
        }
        true
    }

    /// Whether the driver is to be interrupted for what was completed.
    pub(crate) fn take_interrupt<M: GuestMemory>(&mut self, mem: &M) -> bool {
        if !std::mem::take(&mut self.completed) {
            return false;
        }
        // the used index must be visible before the flags are read (§2.7.7.2)
        fence(Ordering::SeqCst);
        let flags = mem.load::<u16>(GuestAddress(self.avail), Ordering::Relaxed);
        !matches!(flags, Ok(f) if u16::from_le(f) & NO_INTERRUPT != 0)
    }

    pub(crate) fn save(&self) -> QueueState {
        QueueState {
            size: self.size,
            enabled: self.enabled(),
            vector: self.vector,
            desc: self.desc,
            avail: self.avail,
            used: self.used,
            next_avail: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    pub(crate) fn restore<M: GuestMemory>(max: u16, s: &QueueState, mem: &M) -> Result<Self, StateError> {
        let mut q = Self::new(max);
        (q.size, q.vector) = (s.size, s.vector);
        (q.desc, q.avail, q.used) = (s.desc, s.avail, s.used);
        if s.enabled && !q.enable(mem) {
            return Err(StateError::new("virtio", "queue", "lies outside guest memory"));
        }
        q.queue.set_next_avail(s.next_avail);
        q.queue.set_next_used(s.next_used);
        Ok(q)
    }
}

/// A device's queues while it handles them.
pub struct Queues<'a, M: GuestMemory> {
    pub(crate) mem: &'a M,
    pub(crate) list: &'a mut [VirtQueue],
    pub(crate) config_changed: bool,
}

impl<'a, M: GuestMemory> Queues<'a, M> {
    /// Number of queues.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Guest memory.
    pub fn mem(&self) -> &'a M {
        self.mem
    }

    /// Length of queue `q` as the driver chose it.
    pub fn size(&self, q: usize) -> u16 {
        self.list.get(q).map_or(0, |vq| vq.queue.size())
    }

    /// How many chains wait in queue `q`; none if it is not enabled.
    ///
    /// # Errors
    /// [`QueueError`] if the ring is broken.
    pub fn available(&self, q: usize) -> Result<u16, QueueError> {
        let Some(VirtQueue { queue, .. }) = self.list.get(q) else {
            return Ok(0);
        };
        if !queue.ready() {
            return Ok(0);
        }
        let n = queue.avail_idx(self.mem, Ordering::Acquire)?.0.wrapping_sub(queue.next_avail());
        if n > queue.size() {
            return Err(virtio_queue::Error::InvalidAvailRingIndex.into());
        }
        Ok(n)
    }

    /// Takes the next chain of queue `q`.
    ///
    /// # Errors
    /// [`QueueError`] if the ring is broken.
    pub fn pop(&mut self, q: usize) -> Result<Option<Chain<'a, M>>, QueueError> {
        if self.available(q)? == 0 {
            return Ok(None);
        }
        let mem = self.mem;
        let queue = &mut self.list[q].queue;
        let chain = queue.pop_descriptor_chain(mem).ok_or(virtio_queue::Error::InvalidAvailRingIndex)?;
        if chain.head_index() >= queue.size() {
            return Err(QueueError::Head(chain.head_index()));
        }
        Ok(Some(chain))
    }

    /// Puts the chain taken last back, to be taken again.
    pub fn unpop(&mut self, q: usize) {
        if let Some(VirtQueue { queue, .. }) = self.list.get_mut(q) {
            queue.set_next_avail(queue.next_avail().wrapping_sub(1));
        }
    }

    /// Gives the chain with head `head` back, with `len` bytes written.
    ///
    /// # Errors
    /// [`QueueError`] if the used ring cannot be written.
    pub fn complete(&mut self, q: usize, head: u16, len: u32) -> Result<(), QueueError> {
        if let Some(vq) = self.list.get_mut(q) {
            vq.queue.add_used(self.mem, head, len)?;
            vq.completed = true;
        }
        Ok(())
    }

    /// Gives several chains back at once, each with its head and the bytes
    /// written: the driver sees all of them or none.
    ///
    /// # Errors
    /// [`QueueError`] if the used ring cannot be written.
    pub fn complete_together(&mut self, q: usize, chains: &[(u16, u32)]) -> Result<(), QueueError> {
        let Some(vq) = self.list.get_mut(q).filter(|vq| vq.enabled()) else {
            return Ok(());
        };
        let ring = |e| QueueError::Ring(virtio_queue::Error::GuestMemory(e));
        let mut next = vq.queue.next_used();
        for &(head, len) in chains {
            let at = vq.used.wrapping_add(4 + 8 * u64::from(next % vq.queue.size()));
            let element = [u32::from(head).to_le_bytes(), len.to_le_bytes()].concat();
            self.mem.write_slice(&element, GuestAddress(at)).map_err(ring)?;
            next = next.wrapping_add(1);
        }
        let index = GuestAddress(vq.used.wrapping_add(2));
        self.mem.store(next.to_le(), index, Ordering::Release).map_err(ring)?;
        vq.queue.set_next_used(next);
        vq.completed = true;
        Ok(())
    }

    /// The device's configuration changed; the driver will be told.
    pub fn config_changed(&mut self) {
        self.config_changed = true;
    }
}
