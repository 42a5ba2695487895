//! virtio 1.2: the modern PCI transport and the devices behind it.
//!
//! [`VirtioPci`] is the transport, a [`PciFunction`](crate::pci::PciFunction)
//! around any [`VirtioDevice`]. Queues are processed in the thread that writes
//! the notification, or in one that calls [`VirtioPci::kick`].
//!
//! | threat | guard |
//! |---|---|
//! | rings or buffers outside RAM | every access through `vm-memory`; a ring must be inside RAM when enabled |
//! | descriptor loops | a chain ends after as many descriptors as its table has |
//! | an available index that runs away | more entries than the queue is long: DEVICE_NEEDS_RESET |
//! | other processors refilling a queue for ever | a notification handles what was available when it came, no more |
//! | huge buffers | each device bounds a request and copies in pieces |
//! | registers changed in the wrong order | features freeze at FEATURES_OK, rings while enabled |

pub mod blk;
pub mod console;
pub mod fs;
pub mod net;
pub mod overlay;
mod pci;
mod queue;
pub mod rng;
pub mod vsock;

#[cfg(test)]
pub(crate) mod driver;

pub use blk::Block;
pub use console::Console;
pub use fs::Fs;
pub use net::Net;
pub use pci::{BAR, BAR_LEN, VirtioPci, VirtioPciState};
pub use queue::{Chain, ChainReader, ChainWriter, QueueError, QueueState, Queues};
pub use rng::Entropy;
pub use vsock::Vsock;

use crate::device::StateError;
use crate::pci::Class;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use vm_memory::GuestMemory;

/// VIRTIO_F_VERSION_1, without which nothing here works (*virtio 1.2 §6*).
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_INDIRECT_DESC.
pub const F_INDIRECT_DESC: u64 = 1 << 28;

/// The part of a device that knows its type (*virtio 1.2 §5*).
pub trait VirtioDevice: Send {
    /// What a snapshot keeps of it, the transport's part excepted.
    type State: Serialize + DeserializeOwned + PartialEq + Debug;

    /// Device type (*§5*): 1 network, 2 block, 3 console, 4 entropy, 19 socket, 26 file system.
    fn device_type(&self) -> u16;

    /// PCI class code it appears under.
    fn class(&self) -> Class;

    /// The greatest length of each queue; each a power of two up to 32768.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Features of the device type it offers.
    fn features(&self) -> u64;

    /// The driver accepted `features` and set DRIVER_OK.
    fn activate(&mut self, features: u64);

    /// Reads device configuration; past its end all bits are one.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes device configuration; most is read-only.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// Handles what is available in queue `queue`.
    ///
    /// # Errors
    /// [`QueueError`] if the ring itself is broken; the transport then sets
    /// DEVICE_NEEDS_RESET. A bad request in a good ring is answered in it.
    fn process<M: GuestMemory>(&mut self, queue: usize, queues: &mut Queues<'_, M>)
    -> Result<(), QueueError>;

    /// Handles all queues and whatever the host side has.
    ///
    /// # Errors
    /// As [`VirtioDevice::process`].
    fn poll<M: GuestMemory>(&mut self, queues: &mut Queues<'_, M>) -> Result<(), QueueError> {
        (0..queues.count()).try_for_each(|q| self.process(q, queues))
    }

    /// The driver reset the device: forget what was agreed with it.
    fn reset(&mut self);

    /// The machine was reset: also forget what waits for the guest.
    fn power_cycle(&mut self) {
        self.reset();
    }

    /// For a snapshot.
    fn save(&self) -> Self::State;

    /// Takes over a saved state.
    ///
    /// # Errors
    /// [`StateError`] if it does not fit; the device is then unchanged.
    fn load(&mut self, state: Self::State) -> Result<(), StateError>;
}
