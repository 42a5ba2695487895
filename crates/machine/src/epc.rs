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
/// Least of it, whatever the limit of locked memory: beyond that a weaker back end
/// keeps what comes last.
const LEAST_PLAINTEXT: u64 = 2 << 20;
/// The same for each processor.
const LEAST_FOR_PROCESSOR: u64 = 64 << 10;
/// Locked memory left to each processor's own state.
const LEFT_FOR_PROCESSOR: u64 = 1 << 20;
/// Bytes of a processor's stack, which holds what instructions move.
pub(crate) const STACK: usize = 512 << 10;

/// Physical addresses of an EPC of `bytes`, in whole pages, above RAM at `spans`.
pub(crate) fn place(spans: &[Range<u64>], bytes: u64) -> Range<u64> {
    let start = spans.iter().fold(1 << 32, |end, span| span.end.max(end)).next_multiple_of(ALIGN);
    start..start.saturating_add(bytes & !0xfff)
}

/// The package of a machine with that EPC.
///
/// # Errors
/// If the host has no memory for it.
pub(crate) fn package(epc: Epc, model: &cpu::Model, cpus: usize) -> Result<Arc<Package>, MachineError> {
    let pages = u32::try_from(epc.bytes >> 12).map_err(|_| MachineError::Epc("it is too large".into()))?;
    let plaintext = plaintext(epc.bytes, secret::available_lock_bytes(), cpus as u64);
    let config = mee::Config::new((plaintext >> 12) as u32, cpus);
    let fail = |e: &dyn std::fmt::Display| MachineError::Epc(e.to_string());
    let dram = mee::Dram::new(pages, config).map_err(|e| fail(&e))?;
    Ok(Arc::new(Package::new(model.sgx(), dram, epc.roots).map_err(|e| fail(&e))?))
}

/// Bytes of plaintext for an EPC of `epc` bytes, if `lockable` bytes may be locked.
fn plaintext(epc: u64, lockable: u64, cpus: u64) -> u64 {
    let processors = (STACK as u64 + LEFT_FOR_PROCESSOR).saturating_mul(cpus);
    let least = LEAST_FOR_PROCESSOR.saturating_mul(cpus);
    let wanted = epc.clamp(least, MOST_PLAINTEXT.max(least));
    lockable.saturating_sub(processors).clamp(LEAST_PLAINTEXT.max(least).min(wanted), wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_goes_by_the_limit_but_is_never_too_little() {
        let mib = |n: u64| n << 20;
        assert_eq!(plaintext(mib(28), u64::MAX, 1), mib(28));
        assert_eq!(plaintext(mib(8192), u64::MAX, 8), mib(64));
        assert_eq!(plaintext(mib(28), mib(8), 1), mib(8) - mib(3) / 2);
        for lockable in [0, 64 << 10, mib(8)] {
            assert_eq!(plaintext(mib(28), lockable, 8), mib(2), "{lockable}");
            assert_eq!(plaintext(mib(1), lockable, 1), mib(1));
            // 8 pages for each processor are the least that the engine takes
            for cpus in [1, 2, 8, 64, 255] {
                assert!(plaintext(4096, lockable, cpus) >> 12 >= (8 * cpus).max(16), "{cpus}");
            }
        }
    }
}
