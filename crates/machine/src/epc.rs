//! The machine's enclave page cache: where it lies, how much of it may be
//! plaintext at a time, and the package that the processors share.

use std::ops::Range;
use std::sync::Arc;

use mem::secret;
use sgx::Package;

use crate::config::{Epc, MachineError};

/// The EPC begins at a multiple of this above all RAM, so that it shares no
/// large page with anything.
const ALIGN: u64 = 1 << 30;
/// Most plaintext of the EPC on the processor at a time.
const MOST_PLAINTEXT: u64 = 64 << 20;
/// Locked memory left to the processors' own state and stacks.
const LEFT_FOR_PROCESSORS: u64 = 1 << 20;
/// Bytes of a processor's stack, which holds what instructions move.
pub(crate) const STACK: usize = 512 << 10;

/// Physical addresses of an EPC of `bytes` beside RAM that ends at `ram_end`.
pub(crate) fn place(ram_end: u64, bytes: u64) -> Range<u64> {
    let start = ram_end.max(1 << 32).next_multiple_of(ALIGN);
    start..start.saturating_add(bytes)
}

/// The package of a machine with that EPC.
///
/// # Errors
/// If the host has no memory for it.
pub(crate) fn package(epc: Epc, model: &cpu::Model, cpus: usize) -> Result<Arc<Package>, MachineError> {
    let pages = u32::try_from(epc.bytes >> 12).map_err(|_| MachineError::Epc("it is too large".into()))?;
    let per_cpu = STACK as u64 + LEFT_FOR_PROCESSORS;
    let lockable = secret::available_lock_bytes().saturating_sub(per_cpu.saturating_mul(cpus as u64));
    let plaintext = epc.bytes.min(MOST_PLAINTEXT).min(lockable);
    let config = mee::Config::new((plaintext >> 12) as u32, cpus);
    let fail = |e: &dyn std::fmt::Display| MachineError::Epc(e.to_string());
    let dram = mee::Dram::new(pages, config).map_err(|e| fail(&e))?;
    Ok(Arc::new(Package::new(model.sgx(), dram, epc.roots).map_err(|e| fail(&e))?))
}
