//! Devices that no PC has: what QEMU gives to images made for it, so that those
//! run here. A machine has them only when it is asked to, or boots such an image.
//!
//! * [`debug_exit`]: the port that ends the machine with a status
//! * [`fw_cfg`]: what firmware asks the hypervisor
//! * [`testdev`]: interrupt wires and memory for tests of processors

pub mod debug_exit;
pub mod fw_cfg;
pub mod testdev;

pub use debug_exit::{DebugExit, ExitSink};
pub use fw_cfg::FwCfg;
pub use testdev::{TestMemory, TestPorts};
