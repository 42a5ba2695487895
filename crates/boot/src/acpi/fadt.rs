//! FADT, revision 6.5 (*ACPI 6.5 §5.2.9*): fixed hardware, not reduced.

use super::{Board, OEM_ID, OEM_REVISION, OEM_TABLE_ID};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

/// CMOS register of the century, as PCs have it.
const CENTURY: u8 = 0x32;
/// `IAPC_BOOT_ARCH`: there are ISA devices; there is no VGA;
/// leave ASPM alone. Not set: 8042 present, MSI not supported, no CMOS RTC.
const LEGACY_DEVICES: u16 = 1 << 0;
const VGA_NOT_PRESENT: u16 = 1 << 2;
const NO_ASPM_CONTROLS: u16 = 1 << 4;
const NO_CMOS_RTC: u16 = 1 << 5;
/// Latencies past these values say that C2 and C3 do not exist.
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;

fn port(at: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(at))
}

pub(super) fn build(board: &Board, dsdt: u64, facs: u64) -> FADT {
    let pm = &board.pm;
    let mut f = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton) // no fixed sleep button
        .flag(Flags::ResetRegSup)
        .flag(Flags::Headless);
    if !pm.power_button {
        f = f.flag(Flags::PwrButton); // no fixed power button
    }
    if pm.timer_32bit {
        f = f.flag(Flags::TmrValExt);
    }
    if board.rtc_irq.is_none() {
        f = f.flag(Flags::FixRtc);
    }
    // Below 4 GiB both forms of an address are given and equal; readers differ
    // in which one they take (§5.2.9, X_DSDT).
    f.dsdt = (dsdt as u32).into();
    f.x_dsdt = dsdt.into();
    f.firmware_ctrl = (facs as u32).into();
    f.x_firmware_ctrl = 0.into(); // must be 0 when FIRMWARE_CTRL is given
    f.sci_int = u16::from(board.sci_irq).into();

    f.pm1a_evt_blk = u32::from(pm.event).into();
    f.pm1_evt_len = 4;
    f.x_pm1a_evt_blk = port(pm.event, 32, AccessSize::WordAccess);
    f.pm1a_cnt_blk = u32::from(pm.control).into();
    f.pm1_cnt_len = 2;
    f.x_pm1a_cnt_blk = port(pm.control, 16, AccessSize::WordAccess);
    f.pm_tmr_blk = u32::from(pm.timer).into();
    f.pm_tmr_len = 4;
    f.x_pm_tmr_blk = port(pm.timer, 32, AccessSize::DwordAccess);

    f.p_lvl2_lat = NO_C2.into();
    f.p_lvl3_lat = NO_C3.into();
    let mut arch = VGA_NOT_PRESENT | NO_ASPM_CONTROLS;
    if board.serial.is_some() || board.rtc_irq.is_some() {
        arch |= LEGACY_DEVICES;
    }
    if board.rtc_irq.is_some() {
        f.century = CENTURY;
    } else {
        arch |= NO_CMOS_RTC;
    }
    f.iapc_boot_arch = arch.into();
    f.reset_reg = port(board.reset.port, 8, AccessSize::ByteAccess);
    f.reset_value = board.reset.value;
    f.hypervisor_vendor_identity = u64::from_le_bytes(*b"Kluis\0\0\0").into();
    f.finalize()
}
