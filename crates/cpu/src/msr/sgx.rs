//! Registers of SGX (*SDM vol. 4; vol. 3D, "Intel SGX Resource Enumeration"*).
//! Without SGX only IA32_FEATURE_CONTROL is there.

use std::sync::Arc;

use arch::Exception;
use arch::msr as n;

use crate::Cpu;

/// IA32_FEATURE_CONTROL: firmware has locked it.
const LOCK: u64 = 1 << 0;
/// Launch control: the hash registers can be written.
const LAUNCH_CONTROL: u64 = 1 << 17;
/// SGX is enabled.
const SGX_ENABLE: u64 = 1 << 18;

fn package(cpu: &Cpu) -> Result<Arc<sgx::Package>, Exception> {
    cpu.sgx.as_ref().map(|sgx| sgx.package.clone()).ok_or(Exception::GP0)
}

/// Locked; with SGX if the processor has it, and nothing else.
pub(super) fn read_feature_control(cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    Ok(if cpu.sgx.is_some() { LOCK | LAUNCH_CONTROL | SGX_ENABLE } else { LOCK })
}

pub(super) fn read_launch_hash(cpu: &mut Cpu, number: u32) -> Result<u64, Exception> {
    Ok(package(cpu)?.launch_hash_msr((number - n::SGXLEPUBKEYHASH0) as usize))
}

pub(super) fn write_launch_hash(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    package(cpu)?.set_launch_hash_msr((number - n::SGXLEPUBKEYHASH0) as usize, value);
    Ok(())
}

/// IA32_SGXOWNEREPOCH0–1: a write changes nothing once CPUID enumerates SGX1,
/// which it does from reset (*SDM vol. 4*). The owner epoch is among the
/// platform's roots.
pub(super) fn write_owner_epoch(cpu: &mut Cpu, _number: u32, _value: u64) -> Result<(), Exception> {
    package(cpu).map(|_| ())
}

/// Nothing of SGX_SVN_SINIT: there is no SINIT.
pub(super) fn read_svn_status(cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    package(cpu).map(|_| 0)
}
