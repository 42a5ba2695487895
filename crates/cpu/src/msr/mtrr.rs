//! Memory types: PAT and the MTRRs (*SDM vol. 3A §11.11, §11.12*). There is no
//! cache whose behaviour they would change; they are checked and kept.

use arch::Exception;
use arch::msr as n;

use super::allow;
use crate::Cpu;

/// Variable-range registers.
pub(super) const VARIABLE: u32 = 10;
/// IA32_MTRRCAP: variable ranges, fixed ranges, write-combining.
pub(super) const CAP: u64 = VARIABLE as u64 | 1 << 8 | 1 << 10;

const WRITE_BACK: u64 = 6;
const FIXED_ENABLE: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
const VALID: u64 = 1 << 11;

/// UC, WC, WT, WP, WB.
fn is_type(value: u64) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

fn all_types(value: u64, is: impl Fn(u64) -> bool) -> Result<(), Exception> {
    if value.to_le_bytes().iter().all(|&byte| is(u64::from(byte))) { Ok(()) } else { Err(Exception::GP0) }
}

fn fixed_index(number: u32) -> usize {
    match number {
        n::MTRR_FIX64K_00000 => 0,
        n::MTRR_FIX16K_80000..=n::MTRR_FIX16K_A0000 => 1 + (number - n::MTRR_FIX16K_80000) as usize,
        _ => 3 + (number.saturating_sub(n::MTRR_FIX4K_C0000) as usize).min(7),
    }
}

pub(super) fn read_fixed(cpu: &mut Cpu, number: u32) -> Result<u64, Exception> {
    Ok(cpu.s.msr.mtrr_fixed[fixed_index(number)])
}

pub(super) fn write_fixed(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    all_types(value, is_type)?;
    cpu.s.msr.mtrr_fixed[fixed_index(number)] = value;
    Ok(())
}

fn variable_index(number: u32) -> usize {
    (number.saturating_sub(n::MTRR_PHYSBASE0)).min(VARIABLE * 2 - 1) as usize
}

pub(super) fn read_variable(cpu: &mut Cpu, number: u32) -> Result<u64, Exception> {
    Ok(cpu.s.msr.mtrr_variable[variable_index(number)])
}

pub(super) fn write_variable(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    let address = ((1u64 << cpu.model.phys_bits) - 1) & !0xfff;
    let index = variable_index(number);
    if index & 1 == 0 {
        // PHYSBASE: address and type.
        allow(value, address | 0xff)?;
        if !is_type(value & 0xff) {
            return Err(Exception::GP0);
        }
    } else {
        // PHYSMASK: mask and V.
        allow(value, address | VALID)?;
    }
    cpu.s.msr.mtrr_variable[index] = value;
    Ok(())
}

pub(super) fn write_def_type(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    allow(value, ENABLE | FIXED_ENABLE | 0xff)?;
    if !is_type(value & 0xff) {
        return Err(Exception::GP0);
    }
    cpu.s.msr.mtrr_def_type = value;
    Ok(())
}

/// Each of eight fields is UC, WC, WT, WP, WB or UC−.
pub(super) fn write_pat(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    all_types(value, |t| is_type(t) || t == 7)?;
    cpu.s.msr.pat = value;
    Ok(())
}

impl Cpu {
    /// Sets the MTRRs as firmware leaves them: write-back by default, the
    /// legacy video hole and `[hole, 4 GiB)` uncached. `hole` is a multiple of
    /// a power of two that divides the rest up to 4 GiB, such as 3 GiB or 2 GiB.
    /// Every processor of a machine is set alike.
    pub fn set_firmware_mtrrs(&mut self, hole: u32) {
        let msr = &mut self.s.msr;
        const ALL_WB: u64 = 0x0606_0606_0606_0606;
        msr.mtrr_fixed = [ALL_WB; 11];
        // A0000–BFFFF: video memory.
        msr.mtrr_fixed[2] = 0;
        let size = (1u64 << 32) - u64::from(hole);
        let address = ((1u64 << self.model.phys_bits) - 1) & !0xfff;
        msr.mtrr_variable[0] = u64::from(hole);
        msr.mtrr_variable[1] = address & !(size - 1) | VALID;
        msr.mtrr_def_type = ENABLE | FIXED_ENABLE | WRITE_BACK;
    }
}
