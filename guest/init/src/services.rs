//! Programs that serve the guest's others from the start.

use crate::log;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

/// The service through which programs get quotes of their enclaves, where the machine has it.
const AESMD: &str = "/bin/aesmd";

/// What enclaves are loaded by.
const DRIVER: &str = "/dev/sgx_enclave";

/// Starts them. What they say goes to the kernel log; when they end, they are reaped as all
/// that nobody else waits for.
pub fn start() {
    if !Path::new(AESMD).exists() || !Path::new(DRIVER).exists() {
        return;
    }
    let log = OpenOptions::new().write(true).open("/dev/kmsg").map_or_else(|_| Stdio::null(), Stdio::from);
    let started = Command::new(AESMD).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    if let Err(e) = started {
        log::error(format!("cannot start {AESMD}: {e}"));
    }
}
