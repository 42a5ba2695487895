//! What a machine is made of, and why it cannot be made.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use cpu::Model;
use devices::virtio::Net;
use devices::virtio::console::PortConfig;

use crate::shares::Share;
use crate::snapshot::{Snapshot, SnapshotError};
use crate::vsock::VsockPorts;

/// A machine to be started.
pub struct Config {
    /// Processor model.
    pub model: Arc<Model>,
    /// Number of processors.
    pub cpus: usize,
    /// RAM in bytes.
    pub memory: u64,
    /// Enclave page cache, beside RAM.
    pub epc: Epc,
    /// Kernel: bzImage, ELF or multiboot image.
    pub kernel: PathBuf,
    /// Initial RAM disk; multiboot images have none.
    pub initrd: Option<PathBuf>,
    /// Modules of a multiboot image.
    pub modules: Vec<Module>,
    /// Put behind the initial RAM disk: one more archive, or nothing.
    pub initrd_more: Vec<u8>,
    /// Kernel command line.
    pub cmdline: String,
    /// Start from this instead of a kernel: `kernel`, `initrd`, `modules` and `cmdline`
    /// are then not looked at.
    pub snapshot: Option<Box<Snapshot>>,
    /// Block devices, in order: `/dev/vda`, `/dev/vdb` …
    pub disks: Vec<Disk>,
    /// Folders of the host; the guest mounts them by [`Share::tag`].
    pub shares: Vec<Share>,
    /// Ports of the socket device; none: no such device.
    pub vsock: VsockPorts,
    /// The network device; none: no network.
    pub network: Option<Net>,
    /// Where COM1's output goes.
    pub serial: Box<dyn Write + Send>,
    /// Ports of the virtio console; none: no console device.
    pub ports: Vec<PortConfig>,
    /// Stop at the first instruction that Kluis does not know.
    pub strict: bool,
    /// A port that ends the machine: QEMU's `isa-debug-exit` at F4h.
    pub debug_exit: bool,
    /// QEMU's `pc-testdev`.
    pub test_device: bool,
}

/// A module of a multiboot image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its file.
    pub path: PathBuf,
    /// What the image is told: name and arguments.
    pub text: String,
}

/// An enclave page cache and the platform it belongs to.
pub struct Epc {
    /// Bytes, in whole pages.
    pub bytes: u64,
    /// Roots of the platform's keys.
    pub roots: sgx::keys::Roots,
}

/// A block device backed by a file.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file: a raw image.
    pub path: PathBuf,
    /// The guest may not write.
    pub read_only: bool,
    /// Where what the guest writes goes, instead of into the file.
    pub overlay: Option<Overlay>,
}

/// What is written to a disk, apart from it.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Tells the disk from every other, and from itself after a change.
    pub base: [u8; 32],
    /// Where it is.
    pub place: Place,
}

/// Where an overlay is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this file, made if it is not there, and kept.
    Kept(PathBuf),
    /// In a file without a name in this folder, gone when the machine ends.
    Passing(PathBuf),
}

impl Disk {
    /// Whether what the guest writes outlives the machine.
    #[must_use]
    pub fn keeps_data(&self) -> bool {
        match &self.overlay {
            Some(overlay) => matches!(overlay.place, Place::Kept(_)),
            None => !self.read_only,
        }
    }

    /// The same by its full path, which a snapshot keeps; a file that is not there
    /// stays as it is named.
    pub(crate) fn with_full_path(&self) -> Disk {
        let full = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let overlay = self.overlay.as_ref().map(|overlay| match &overlay.place {
            Place::Kept(path) => Overlay { place: Place::Kept(full(path)), ..overlay.clone() },
            Place::Passing(_) => overlay.clone(),
        });
        Disk { path: full(&self.path), read_only: self.read_only, overlay }
    }
}

/// Least RAM a machine starts with.
pub const MIN_MEMORY: u64 = 64 << 20;
/// Most processors: what xAPIC identifiers and the MADT's entries express.
pub const MAX_CPUS: usize = 254;

/// Why a machine cannot be made: one line with cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The kernel, initrd or memory layout.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] mem::MemError),
    /// Too little memory.
    #[error("{given} MiB of memory is too little: give at least {least} MiB with --memory")]
    TooLittleMemory {
        /// MiB asked for.
        given: u64,
        /// MiB needed.
        least: u64,
    },
    /// More memory than the model's physical addresses reach.
    #[error("{given} GiB of memory exceed what {model} can address ({most} GiB): give less with --memory")]
    TooMuchMemory {
        /// GiB asked for.
        given: u64,
        /// GiB possible.
        most: u64,
        /// The model's name.
        model: &'static str,
    },
    /// The enclave page cache.
    #[error("cannot set up the enclave page cache: {0}")]
    Epc(String),
    /// Number of processors.
    #[error("{0} processors: choose 1 to {MAX_CPUS} with --cpus")]
    Cpus(usize),
    /// A disk.
    #[error("disk {path}: {reason}")]
    Disk {
        /// Its file.
        path: PathBuf,
        /// Cause and remedy.
        reason: String,
    },
    /// A shared folder.
    #[error("share {path}: it {why}")]
    Share {
        /// The folder.
        path: PathBuf,
        /// Cause and remedy.
        why: share::ShareError,
    },
    /// A Unix socket for a port of the guest's.
    #[error("vsock: socket {path} {why}")]
    Vsock {
        /// Its path.
        path: PathBuf,
        /// Cause and remedy.
        why: String,
    },
    /// Too many devices.
    #[error("there is no room for device {0} on the bus: give fewer disks and shares")]
    TooManyDevices(usize),
    /// What it starts from.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The host.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
