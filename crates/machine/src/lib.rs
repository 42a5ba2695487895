//! The machine: processors on a board, guest time, and its life from start to
//! power-off.
//!
//! * `config`: what a machine is made of
//! * `epc`: the enclave page cache
//! * `drill`: attacks on the EPC's memory, and the bus's view
//! * `entry`: how the first processor begins
//! * `board`: devices at their ports and addresses; `disks`: raw images and overlays
//! * `qemu`: those of them that only virtual machines have
//! * `shares`: the threads behind shared folders; `vsock`: Unix sockets for the guest's
//! * `interrupts`: wires and messages to the local APICs
//! * `clock`: guest time; `timers`: the thread that ticks device timers
//! * `vcpu`: the thread of a processor; `gate`: what holds it while the machine is paused
//! * `running`: a machine that runs, as its owner sees it
//! * [`gdb`]: a debugger from outside
//! * [`snapshot`]: a machine on disk; `parts`: its devices
//! * `report`: a processor's state in words
#![forbid(unsafe_code)]

mod board;
mod clock;
pub mod config;
mod disks;
mod drill;
mod entry;
mod epc;
mod gate;
pub mod gdb;
mod interrupts;
mod parts;
mod qemu;
mod report;
mod running;
mod shares;
pub mod snapshot;
mod timers;
mod vcpu;
mod vsock;

pub use config::{Config, Disk, Epc, MachineError, Module, Overlay, Place};
pub use drill::{DrillError, MAX_BUS_BYTES};
pub use gate::{PauseError, Paused};
pub use running::{Outcome, Prepared, Running, prepare};
pub use shares::Share;
pub use snapshot::{Snapshot, SnapshotError};
pub use vsock::VsockPorts;
