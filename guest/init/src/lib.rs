//! Kluis's init: process 1 of the default guest, and the agent that runs
//! commands for the host.
//!
//! It mounts the kernel's file systems, loads the modules the image lists, and
//! then either serves the host over virtio-console ports ([`agent`]) or, where
//! there are none (another machine, such as plain QEMU), runs one command on
//! the console ([`console`]). Either way it ends by powering off.
//!
//! A guest on a disk, with an init of its own, gets the machine handed over
//! ([`root`]); the same program is then its agent, as a service.

pub mod agent;
mod attestation;
pub mod child;
pub mod cmdline;
pub mod console;
pub mod log;
pub mod network;
pub mod ports;
pub mod power;
pub mod pump;
pub mod resume;
pub mod root;
pub mod services;
pub mod setup;
