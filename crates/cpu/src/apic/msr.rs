//! APIC MSRs: `IA32_APIC_BASE`, `IA32_TSC_DEADLINE` and the x2APIC's registers
//! (*SDM vol. 3A §10.12.1.2, table 10-6*).

use super::ipi::ICR_LOW_WRITABLE;
use super::{Apic, Effect, Gp, Lvt, Mode, x2apic_ldr};

/// `IA32_APIC_BASE`.
const BASE: u32 = 0x1b;
/// `IA32_TSC_DEADLINE`.
const TSC_DEADLINE: u32 = 0x6e0;

/// Offset in the xAPIC page of the register behind an x2APIC MSR.
fn offset(index: u32) -> Option<u32> {
    (0x800..=0x8ff).contains(&index).then(|| (index - 0x800) << 4)
}

impl Apic {
    /// RDMSR of an APIC register; `now` is the TSC.
    ///
    /// # Errors
    /// [`Gp`] for reserved and write-only registers, for x2APIC registers
    /// outside x2APIC mode, and for an index that is none of the APIC's.
    pub fn rdmsr(&mut self, index: u32, now: u64) -> Result<u64, Gp> {
        self.settle_timer(now);
        let offset = match index {
            BASE => return Ok(self.base),
            TSC_DEADLINE if self.config.tsc_deadline => return Ok(self.tsc_deadline()),
            _ => offset(index).ok_or(Gp)?,
        };
        if self.mode() != Mode::X2Apic {
            return Err(Gp);
        }
        match offset {
            0x020 => Ok(u64::from(self.config.id)),
            0x0d0 => Ok(u64::from(x2apic_ldr(self.config.id))),
            0x300 => Ok(self.icr),
            _ => self.common(offset, now).map(u64::from).ok_or(Gp),
        }
    }

    /// WRMSR of an APIC register.
    ///
    /// # Errors
    /// [`Gp`] as for [`rdmsr`](Self::rdmsr), for read-only registers, for
    /// reserved bits (*§10.12.1.3*) and for mode transitions that are not
    /// allowed.
    pub fn wrmsr(&mut self, index: u32, value: u64, now: u64) -> Result<Option<Effect>, Gp> {
        let offset = match index {
            BASE => return self.write_base(value),
            TSC_DEADLINE if self.config.tsc_deadline => {
                self.write_tsc_deadline(value, now);
                return Ok(None);
            }
            _ => offset(index).ok_or(Gp)?,
        };
        if self.mode() != Mode::X2Apic {
            return Err(Gp);
        }
        if offset == 0x300 {
            if value as u32 & !ICR_LOW_WRITABLE != 0 {
                return Err(Gp);
            }
            self.icr = value;
            return Ok(self.send());
        }
        // All others have 32 bits.
        let value = u32::try_from(value).map_err(|_| Gp)?;
        let only = |bits: u32| if value & !bits == 0 { Ok(()) } else { Err(Gp) };
        match offset {
            0x080 => {
                only(0xff)?;
                self.tpr = value as u8;
            }
            0x0b0 => {
                only(0)?;
                return Ok(self.eoi());
            }
            0x0f0 => {
                only(self.svr_writable())?;
                self.write_svr(value, now);
            }
            0x280 => {
                only(0)?;
                self.latch_errors();
            }
            0x380 => self.write_initial_count(value, now),
            0x3e0 => {
                only(0b1011)?;
                self.write_divide(value, now);
            }
            0x3f0 => self.self_ipi(value)?,
            _ => {
                let lvt = Lvt::at(offset).ok_or(Gp)?;
                only(!self.lvt_reserved(lvt))?;
                self.write_lvt(lvt, value, now);
            }
        }
        Ok(None)
    }
}
