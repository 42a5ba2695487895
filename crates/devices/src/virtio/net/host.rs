//! The host's end of the wire.

use super::{Net, QUEUE_FRAMES};
use crate::virtio::VirtioPci;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vm_memory::GuestMemory;

type Callback = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(super) struct Side {
    pub(super) from_guest: VecDeque<Vec<u8>>,
    pub(super) to_guest: VecDeque<Vec<u8>>,
    /// Frames were left in the guest's ring for want of room.
    pub(super) guest_waits: bool,
    /// Frames were queued that the device has not been told of.
    news: bool,
}

impl Side {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[derive(Default)]
pub(super) struct Shared {
    side: Mutex<Side>,
    wake: OnceLock<Callback>,
    kick: OnceLock<Callback>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Side> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something for the host to do.
    pub(super) fn wake(&self) {
        if let Some(f) = self.wake.get() {
            f();
        }
    }
}

/// The host's end of a network device's wire.
pub struct HostLink {
    shared: Arc<Shared>,
}

impl HostLink {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// `f` is called when the guest has sent frames, and when there is room
    /// again after there was none; with the device locked, so it must not call
    /// [`HostLink::flush`]. It is set once.
    pub fn on_wake(&self, f: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.wake.set(Box::new(f));
    }

    /// The next frame that the guest sent: an Ethernet frame of
    /// [`MIN_FRAME`](super::MIN_FRAME) to [`MAX_FRAME`](super::MAX_FRAME) bytes
    /// without its checksum. TCP and UDP checksums may not have been computed.
    pub fn receive(&self) -> Option<Vec<u8>> {
        self.shared.lock().from_guest.pop_front()
    }

    /// Whether the guest has sent a frame.
    pub fn has_frame(&self) -> bool {
        !self.shared.lock().from_guest.is_empty()
    }

    /// How many frames [`HostLink::send`] would take.
    pub fn room(&self) -> usize {
        QUEUE_FRAMES.saturating_sub(self.shared.lock().to_guest.len())
    }

    /// Queues a frame for the guest, which [`HostLink::flush`] tells it of; false
    /// if there is no room. Its checksums must be right.
    pub fn send(&self, frame: Vec<u8>) -> bool {
        let mut side = self.shared.lock();
        let room = side.to_guest.len() < QUEUE_FRAMES;
        if room {
            side.to_guest.push_back(frame);
            side.news = true;
        }
        room
    }

    /// Makes the device go on, if there is something for it.
    pub fn flush(&self) {
        let due = {
            let mut side = self.shared.lock();
            let room = side.guest_waits && side.from_guest.len() < QUEUE_FRAMES;
            if room {
                side.guest_waits = false;
            }
            std::mem::take(&mut side.news) || room
        };
        if due && let Some(kick) = self.shared.kick.get() {
            kick();
        }
    }
}

/// Lets the host's end wake its `device`, which it does not keep alive.
pub fn connect<M>(device: &Arc<Mutex<VirtioPci<Net, M>>>)
where
    M: GuestMemory + Send + Sync + 'static,
{
    let shared = device.lock().unwrap_or_else(PoisonError::into_inner).device().host.clone();
    let device = Arc::downgrade(device);
    let _ = shared.kick.set(Box::new(move || {
        if let Some(device) = device.upgrade() {
            device.lock().unwrap_or_else(PoisonError::into_inner).kick();
        }
    }));
}
