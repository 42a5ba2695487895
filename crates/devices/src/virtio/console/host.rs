//! The host's end of a port.

use super::Console;
use crate::virtio::VirtioPci;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use vm_memory::GuestMemory;

/// Takes the guest's output.
pub trait PortSink: Send {
    /// Takes some of `data` and returns how many bytes; fewer than there are
    /// means "full for now": the rest stays in the guest until
    /// [`HostPort::kick`]. Must not block for long.
    fn write(&mut self, data: &[u8]) -> usize;
}

impl<F: FnMut(&[u8]) -> usize + Send> PortSink for F {
    fn write(&mut self, data: &[u8]) -> usize {
        self(data)
    }
}

/// What the guest does with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortEvent {
    /// A program opened it.
    Opened,
    /// It was closed; all output from before was given to the sink.
    Closed,
}

type Callback = Arc<dyn Fn() + Send + Sync>;

pub(super) struct HostSide {
    pub(super) input: VecDeque<u8>,
    /// Bytes of input taken since power-on.
    pub(super) accepted: u64,
    /// The host has its end open.
    pub(super) open: bool,
    pub(super) guest_open: bool,
    /// Columns and rows.
    pub(super) size: (u16, u16),
    pub(super) resized: bool,
}

pub(super) struct Shared {
    side: Mutex<HostSide>,
    capacity: usize,
    room: Condvar,
    on_room: RwLock<Option<Callback>>,
    kick: RwLock<Option<Callback>>,
}

fn get(c: &RwLock<Option<Callback>>) -> Option<Callback> {
    c.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set(c: &RwLock<Option<Callback>>, f: Callback) {
    *c.write().unwrap_or_else(PoisonError::into_inner) = Some(f);
}

impl Shared {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            side: Mutex::new(HostSide {
                input: VecDeque::new(),
                accepted: 0,
                open: true,
                guest_open: false,
                size: (80, 25),
                resized: false,
            }),
            capacity,
            room: Condvar::new(),
            on_room: RwLock::new(None),
            kick: RwLock::new(None),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, HostSide> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Input left the buffer.
    pub(super) fn made_room(&self) {
        self.room.notify_all();
        if let Some(f) = get(&self.on_room) {
            f();
        }
    }
}

/// The host's handle on a port; clones are the same port. Its methods lock
/// the device, so they must not be called from a [`PortSink`] or callback of
/// the same device.
#[derive(Clone)]
pub struct HostPort {
    shared: Arc<Shared>,
}

impl HostPort {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// Queues input for the guest without blocking; returns how many bytes
    /// were taken, 0 when the buffer is full or the port closed.
    pub fn write(&self, data: &[u8]) -> usize {
        let n = {
            let mut side = self.shared.lock();
            if !side.open {
                return 0;
            }
            let n = data.len().min(self.shared.capacity.saturating_sub(side.input.len()));
            side.input.extend(&data[..n]);
            side.accepted += n as u64;
            n
        };
        if n > 0 {
            self.kick();
        }
        n
    }

    /// Bytes [`HostPort::write`] would take now.
    pub fn room(&self) -> usize {
        self.shared.capacity.saturating_sub(self.shared.lock().input.len())
    }

    /// Bytes of input taken since power-on; a machine from a snapshot goes on
    /// counting.
    pub fn accepted(&self) -> u64 {
        self.shared.lock().accepted
    }

    /// Bytes of input the guest has not got yet.
    pub fn undelivered(&self) -> usize {
        self.shared.lock().input.len()
    }

    /// Waits until there is room or `timeout` has passed; returns the room.
    pub fn wait_room(&self, timeout: Duration) -> usize {
        let end = Instant::now() + timeout;
        let mut side = self.shared.lock();
        loop {
            let room = self.shared.capacity.saturating_sub(side.input.len());
            let left = end.saturating_duration_since(Instant::now());
            if room > 0 || left.is_zero() {
                return room;
            }
            side = self.shared.room.wait_timeout(side, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// `f` is called whenever input left the buffer, with the device locked.
    pub fn on_writable(&self, f: impl Fn() + Send + Sync + 'static) {
        set(&self.shared.on_room, Arc::new(f));
    }

    /// Opens the host's end (it is open from the start).
    pub fn open(&self) {
        self.shared.lock().open = true;
        self.kick();
    }

    /// Closes the host's end: once the guest has read what was written, its
    /// reads return end of file.
    pub fn close(&self) {
        self.shared.lock().open = false;
        self.kick();
    }

    /// Whether the guest has the port open.
    pub fn guest_open(&self) -> bool {
        self.shared.lock().guest_open
    }

    /// Sets the terminal's size; meaningful for a console port.
    pub fn resize(&self, cols: u16, rows: u16) {
        {
            let mut side = self.shared.lock();
            if side.size == (cols, rows) {
                return;
            }
            side.size = (cols, rows);
            side.resized = true;
        }
        self.kick();
    }

    /// Makes the device go on: the sink has room again.
    pub fn kick(&self) {
        if let Some(f) = get(&self.shared.kick) {
            f();
        }
    }
}

/// Lets `ports` wake their `device`. The ports do not keep the device alive.
/// `act` does what it is given, unless the machine is paused: then a
/// [`HostPort::kick`] is due when it goes on.
pub fn connect<M>(
    device: &Arc<Mutex<VirtioPci<Console, M>>>,
    ports: &[HostPort],
    act: impl Fn(&dyn Fn()) + Clone + Send + Sync + 'static,
) where
    M: GuestMemory + Send + Sync + 'static,
{
    for port in ports {
        let (device, act) = (Arc::downgrade(device), act.clone());
        let kick = move || {
            if let Some(device) = device.upgrade() {
                act(&|| device.lock().unwrap_or_else(PoisonError::into_inner).kick());
            }
        };
        set(&port.shared.kick, Arc::new(kick));
    }
}
