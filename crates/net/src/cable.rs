//! A wire without a machine, for tests and the fuzzer.

use crate::Wire;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Frames that wait in each direction.
#[derive(Default)]
pub(crate) struct Queues {
    pub(crate) from_guest: VecDeque<Vec<u8>>,
    pub(crate) to_guest: VecDeque<Vec<u8>>,
}

/// Both ends of it; clones are the same wire.
#[derive(Clone)]
pub(crate) struct Cable {
    queues: Arc<Mutex<Queues>>,
    room: usize,
}

impl Cable {
    /// A wire that holds `room` frames to the guest.
    pub(crate) fn new(room: usize) -> Self {
        Self { queues: Arc::default(), room }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire for Cable {
    fn receive(&self) -> Option<Vec<u8>> {
        self.lock().from_guest.pop_front()
    }
    fn has_frame(&self) -> bool {
        !self.lock().from_guest.is_empty()
    }
    fn room(&self) -> usize {
        self.room - self.lock().to_guest.len()
    }
    fn send(&self, frame: Vec<u8>) -> bool {
        let room = self.room() > 0;
        if room {
            self.lock().to_guest.push_back(frame);
        }
        room
    }
    fn flush(&self) {}
    fn on_wake(&self, _: Box<dyn Fn() + Send + Sync>) {}
}
