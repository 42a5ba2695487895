//! Guest physical memory.
//!
//! * [`ram`]: the VM's RAM in host memory, and its place in the physical address map
//! * [`code`]: which 128-byte granules of RAM hold decoded code, so that a write there is noticed
//! * [`dma`]: memory as bus masters see it
//! * [`raw`]: single host accesses that guest processors may race on
//! * [`secret`]: host memory for what is on the processor: keys, enclave state, plaintext

pub mod code;
pub mod dma;
pub mod ram;
pub mod raw;
pub mod secret;

pub use code::{CodeListener, CodeMap};
pub use dma::DmaBus;
pub use ram::{GuestRam, MemError, Ram};
