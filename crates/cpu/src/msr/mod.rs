//! Model-specific registers (*SDM vol. 4*): a table by number. What is not in
//! it does not exist, `#GP(0)`.

mod mtrr;
mod sgx;
#[cfg(test)]
mod tests;

use arch::Exception;
use arch::msr as n;
use arch::paging::is_canonical;
use arch::regs::{Cr0, Efer, Seg};

use crate::Cpu;

type Read = fn(&mut Cpu, u32) -> Result<u64, Exception>;
type Write = fn(&mut Cpu, u32, u64) -> Result<(), Exception>;

/// Registers `first..=last`.
struct Entry {
    first: u32,
    last: u32,
    read: Read,
    write: Write,
}

const fn range(first: u32, last: u32, read: Read, write: Write) -> Entry {
    Entry { first, last, read, write }
}

const fn one(number: u32, read: Read, write: Write) -> Entry {
    range(number, number, read, write)
}

/// IA32_MISC_ENABLE\[18\]: MONITOR and MWAIT.
pub(crate) const MISC_ENABLE_MONITOR: u64 = 1 << 18;
/// IA32_MISC_ENABLE: fast strings.
const MISC_ENABLE_FAST_STRINGS: u64 = 1 << 0;
/// Thermal control, SpeedStep and xTPR messages: there is nothing that they would control.
const MISC_ENABLE_WITHOUT_EFFECT: u64 = 1 << 3 | 1 << 16 | 1 << 23;
/// CPUID leaf 0 gives 2 as the highest leaf.
pub(crate) const MISC_ENABLE_LIMIT_CPUID: u64 = 1 << 22;
/// There is no XD: CPUID and IA32_EFER say so.
pub(crate) const MISC_ENABLE_XD_DISABLE: u64 = 1 << 34;
/// Branch trace storage and PEBS are unavailable.
const MISC_ENABLE_UNAVAILABLE: u64 = 1 << 11 | 1 << 12;
/// IA32_MISC_ENABLE after RESET.
pub(crate) const MISC_ENABLE_RESET: u64 =
    MISC_ENABLE_FAST_STRINGS | MISC_ENABLE_UNAVAILABLE | MISC_ENABLE_MONITOR;
/// IA32_BIOS_SIGN_ID: a revision of microcode that knows all of today's defects.
pub(crate) const MICROCODE_REVISION: u64 = 0x100 << 32;

/// IA32_ARCH_CAPABILITIES (*SDM vol. 4 table 2-2*): true of a processor that
/// does not speculate across guest privilege, whatever it cites.
pub const ARCH_CAPABILITIES: u64 = 1 << 0 // RDCL_NO
    | 1 << 1 // IBRS_ALL
    | 1 << 3 // SKIP_L1DFL_VMENTRY
    | 1 << 4 // SSB_NO
    | 1 << 5 // MDS_NO
    | 1 << 6 // IF_PSCHANGE_MC_NO
    | 1 << 8 // TAA_NO
    | 1 << 13 // SBDR_SSDP_NO
    | 1 << 14 // FBSDP_NO
    | 1 << 15 // PSDP_NO
    | 1 << 20 // BHI_NO
    | 1 << 24 // PBRSB_NO
    | 1 << 26 // GDS_NO
    | 1 << 27 // RFDS_NO
    | 1 << 62; // ITS_NO

/// By number, ascending.
const TABLE: &[Entry] = &[
    one(n::TSC, read_tsc, write_tsc),
    one(n::PLATFORM_ID, zero, refuse),
    one(n::APIC_BASE, read_apic, write_apic),
    one(n::FEATURE_CONTROL, sgx::read_feature_control, refuse),
    one(
        n::TSC_ADJUST,
        |cpu, _| Ok(cpu.s.msr.tsc_adjust),
        |cpu, _, value| {
            cpu.s.msr.tsc_adjust = value;
            Ok(())
        },
    ),
    one(n::SPEC_CTRL, |cpu, _| Ok(cpu.s.msr.spec_ctrl), write_spec_ctrl),
    // IBPB.
    one(n::PRED_CMD, no_read, |_, _, value| allow(value, 1)),
    one(n::BIOS_UPDT_TRIG, no_read, |_, _, _| Ok(())),
    one(
        n::BIOS_SIGN_ID,
        |cpu, _| Ok(cpu.s.msr.microcode),
        |cpu, _, value| {
            cpu.s.msr.microcode = value;
            Ok(())
        },
    ),
    range(n::SGXLEPUBKEYHASH0, n::SGXLEPUBKEYHASH3, sgx::read_launch_hash, sgx::write_launch_hash),
    one(n::PLATFORM_INFO, read_platform_info, refuse),
    one(n::MTRR_CAP, |_, _| Ok(mtrr::CAP), refuse),
    one(n::ARCH_CAPABILITIES, |_, _| Ok(ARCH_CAPABILITIES), refuse),
    one(
        n::SYSENTER_CS,
        |cpu, _| Ok(cpu.s.msr.sysenter_cs),
        |cpu, _, value| {
            cpu.s.msr.sysenter_cs = value & 0xffff_ffff;
            Ok(())
        },
    ),
    one(
        n::SYSENTER_ESP,
        |cpu, _| Ok(cpu.s.msr.sysenter_esp),
        |cpu, _, value| {
            cpu.s.msr.sysenter_esp = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::SYSENTER_EIP,
        |cpu, _| Ok(cpu.s.msr.sysenter_eip),
        |cpu, _, value| {
            cpu.s.msr.sysenter_eip = canonical(value)?;
            Ok(())
        },
    ),
    one(n::MCG_CAP, |_, _| Ok(crate::deliver::machine_check::CAPABILITIES), refuse),
    one(
        n::MCG_STATUS,
        |cpu, _| Ok(cpu.s.msr.mcg_status),
        |cpu, _, value| {
            allow(value, 7)?;
            cpu.s.msr.mcg_status = value;
            Ok(())
        },
    ),
    one(n::MISC_ENABLE, |cpu, _| Ok(cpu.s.msr.misc_enable), write_misc_enable),
    // There is no last-branch recording and no branch stepping: the two bits
    // that software may try do nothing and read as zero.
    one(n::DEBUGCTL, zero, |_, _, value| allow(value, 3)),
    range(
        n::MTRR_PHYSBASE0,
        n::MTRR_PHYSBASE0 + mtrr::VARIABLE * 2 - 1,
        mtrr::read_variable,
        mtrr::write_variable,
    ),
    one(n::MTRR_FIX64K_00000, mtrr::read_fixed, mtrr::write_fixed),
    range(n::MTRR_FIX16K_80000, n::MTRR_FIX16K_A0000, mtrr::read_fixed, mtrr::write_fixed),
    range(n::MTRR_FIX4K_C0000, n::MTRR_FIX4K_F8000, mtrr::read_fixed, mtrr::write_fixed),
    one(n::PAT, |cpu, _| Ok(cpu.s.msr.pat), mtrr::write_pat),
    one(n::MTRR_DEF_TYPE, |cpu, _| Ok(cpu.s.msr.mtrr_def_type), mtrr::write_def_type),
    range(n::SGXOWNEREPOCH0, n::SGXOWNEREPOCH1, no_read, sgx::write_owner_epoch),
    range(
        n::MC0_CTL,
        n::MC0_MISC,
        |cpu, number| Ok(cpu.s.msr.mc0[(number - n::MC0_CTL) as usize]),
        write_bank,
    ),
    one(n::SGX_SVN_STATUS, sgx::read_svn_status, refuse),
    one(n::TSC_DEADLINE, read_apic, write_apic),
    range(n::X2APIC_FIRST, n::X2APIC_LAST, read_apic, write_apic),
    one(n::EFER, |cpu, _| Ok(cpu.s.efer.bits()), write_efer),
    one(
        n::STAR,
        |cpu, _| Ok(cpu.s.msr.star),
        |cpu, _, value| {
            cpu.s.msr.star = value;
            Ok(())
        },
    ),
    one(
        n::LSTAR,
        |cpu, _| Ok(cpu.s.msr.lstar),
        |cpu, _, value| {
            cpu.s.msr.lstar = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::CSTAR,
        |cpu, _| Ok(cpu.s.msr.cstar),
        |cpu, _, value| {
            cpu.s.msr.cstar = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::SFMASK,
        |cpu, _| Ok(cpu.s.msr.sfmask),
        |cpu, _, value| {
            allow(value, 0xffff_ffff)?;
            cpu.s.msr.sfmask = value;
            Ok(())
        },
    ),
    one(
        n::FS_BASE,
        |cpu, _| Ok(cpu.s.seg[Seg::Fs as usize].base),
        |cpu, _, value| {
            cpu.s.seg[Seg::Fs as usize].base = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::GS_BASE,
        |cpu, _| Ok(cpu.s.seg[Seg::Gs as usize].base),
        |cpu, _, value| {
            cpu.s.seg[Seg::Gs as usize].base = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::KERNEL_GS_BASE,
        |cpu, _| Ok(cpu.s.msr.kernel_gs_base),
        |cpu, _, value| {
            cpu.s.msr.kernel_gs_base = canonical(value)?;
            Ok(())
        },
    ),
    one(
        n::TSC_AUX,
        |cpu, _| Ok(cpu.s.msr.tsc_aux),
        |cpu, _, value| {
            allow(value, 0xffff_ffff)?;
            cpu.s.msr.tsc_aux = value;
            Ok(())
        },
    ),
];

fn find(number: u32) -> Option<&'static Entry> {
    let at = TABLE.partition_point(|entry| entry.last < number);
    TABLE.get(at).filter(|entry| entry.first <= number)
}

impl Cpu {
    /// RDMSR of register `number`.
    ///
    /// # Errors
    /// `#GP(0)` if there is no such register or it cannot be read.
    pub fn read_msr(&mut self, number: u32) -> Result<u64, Exception> {
        let entry = find(number).ok_or(Exception::GP0)?;
        (entry.read)(self, number)
    }

    /// WRMSR of register `number`.
    ///
    /// # Errors
    /// `#GP(0)` if there is no such register, it cannot be written, or the
    /// value has reserved bits set.
    pub fn write_msr(&mut self, number: u32, value: u64) -> Result<(), Exception> {
        let entry = find(number).ok_or(Exception::GP0)?;
        (entry.write)(self, number, value)
    }
}

fn zero(_cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    Ok(0)
}

fn no_read(_cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    Err(Exception::GP0)
}

fn refuse(_cpu: &mut Cpu, _number: u32, _value: u64) -> Result<(), Exception> {
    Err(Exception::GP0)
}

/// `#GP(0)` if bits outside `bits` are set.
fn allow(value: u64, bits: u64) -> Result<(), Exception> {
    if value & !bits == 0 { Ok(()) } else { Err(Exception::GP0) }
}

fn canonical(value: u64) -> Result<u64, Exception> {
    if is_canonical(value) { Ok(value) } else { Err(Exception::GP0) }
}

fn read_tsc(cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    Ok(cpu.tsc())
}

/// Writing the counter moves IA32_TSC_ADJUST by as much (*SDM vol. 3B §17.17.3*).
fn write_tsc(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    cpu.s.msr.tsc_adjust = value.wrapping_sub(cpu.bus.tsc());
    Ok(())
}

fn read_apic(cpu: &mut Cpu, number: u32) -> Result<u64, Exception> {
    cpu.read_apic_msr(number)
}

fn write_apic(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    cpu.write_apic_msr(number, value)
}

/// IBRS, STIBP, SSBD.
fn write_spec_ctrl(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    allow(value, 7)?;
    cpu.s.msr.spec_ctrl = value;
    Ok(())
}

/// Maximum non-turbo ratio, in steps of 100 MHz, and the minimum.
fn read_platform_info(cpu: &mut Cpu, _number: u32) -> Result<u64, Exception> {
    let ratio = (cpu.model.tsc_hz / 100_000_000).min(0xff);
    Ok(ratio << 8 | 8 << 40)
}

/// The machine-check bank (*SDM vol. 3B §15.3.2*): CTL takes all ones or all
/// zeros, STATUS zero; ADDR and MISC keep what is written.
fn write_bank(cpu: &mut Cpu, number: u32, value: u64) -> Result<(), Exception> {
    let allowed = match number - n::MC0_CTL {
        0 => value == 0 || value == u64::MAX,
        1 => value == 0,
        _ => true,
    };
    if !allowed {
        return Err(Exception::GP0);
    }
    cpu.s.msr.mc0[(number - n::MC0_CTL) as usize] = value;
    Ok(())
}

fn write_misc_enable(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    let writable = MISC_ENABLE_FAST_STRINGS
        | MISC_ENABLE_MONITOR
        | MISC_ENABLE_WITHOUT_EFFECT
        | MISC_ENABLE_LIMIT_CPUID
        | MISC_ENABLE_XD_DISABLE;
    allow(value, writable | MISC_ENABLE_UNAVAILABLE)?;
    cpu.s.msr.misc_enable = value & writable | MISC_ENABLE_UNAVAILABLE;
    Ok(())
}

/// IA32_EFER (*SDM vol. 3A §2.2.1, §9.8.5*): LMA follows LME and CR0.PG.
fn write_efer(cpu: &mut Cpu, _number: u32, value: u64) -> Result<(), Exception> {
    let new = Efer::from_bits_retain(value);
    let old = cpu.s.efer;
    let changed = old ^ new;
    let no_xd = cpu.s.msr.misc_enable & MISC_ENABLE_XD_DISABLE != 0;
    let known = (Efer::SCE | Efer::LME | Efer::LMA | Efer::NXE).contains(new);
    if !known || no_xd && changed.contains(Efer::NXE) && new.contains(Efer::NXE) {
        return Err(Exception::GP0);
    }
    if changed.contains(Efer::LME) && cpu.s.cr0.contains(Cr0::PG) {
        return Err(Exception::GP0);
    }
    cpu.s.efer = (new & !Efer::LMA) | (old & Efer::LMA);
    if changed.contains(Efer::NXE) {
        cpu.flush_all();
    }
    cpu.control_changed();
    Ok(())
}

#[cfg(test)]
#[test]
fn table_is_in_order() {
    for pair in TABLE.windows(2) {
        assert!(pair[0].first <= pair[0].last && pair[0].last < pair[1].first, "{:#x}", pair[1].first);
    }
}
