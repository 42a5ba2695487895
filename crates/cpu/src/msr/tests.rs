//! Model-specific registers (*SDM vol. 4; vol. 2B WRMSR*).

use std::sync::{Arc, Mutex};

use mem::Ram;

use super::*;
use crate::bus::NoBus;
use crate::{Model, Shared};

fn cpu() -> Cpu {
    let ram = Ram::new(&[(0, 1 << 20)]).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(Mutex::new(()))));
    Cpu::new(0, Arc::new(Model::xeon_e_2288g()), ram, Arc::new(NoBus::default()), shared)
}

#[test]
fn unknown_registers_fault() {
    let mut cpu = cpu();
    for number in
        [0, 1, 0x11, 0x3c, 0x198, 0x214, 0x300, 0x3ff, 0x404, 0x6e1, 0xc000_0105, 0x4b56_4d00, u32::MAX]
    {
        assert_eq!(cpu.read_msr(number), Err(Exception::GP0), "{number:#x}");
        assert_eq!(cpu.write_msr(number, 0), Err(Exception::GP0), "{number:#x}");
    }
}

#[test]
fn addresses_must_be_canonical() {
    let mut cpu = cpu();
    for number in
        [n::LSTAR, n::CSTAR, n::SYSENTER_ESP, n::SYSENTER_EIP, n::FS_BASE, n::GS_BASE, n::KERNEL_GS_BASE]
    {
        assert_eq!(cpu.write_msr(number, 1 << 47), Err(Exception::GP0), "{number:#x}");
        let good = 0xffff_8000_0000_0000;
        assert_eq!(cpu.write_msr(number, good), Ok(()));
        assert_eq!(cpu.read_msr(number), Ok(good));
    }
}

#[test]
fn reserved_bits_fault() {
    let mut cpu = cpu();
    for (number, value) in [
        (n::EFER, 1 << 1),
        (n::PAT, 2),
        (n::PAT, 0x0800_0000_0000_0000),
        (n::MTRR_DEF_TYPE, 2),
        (n::MTRR_PHYSBASE0, 1 << 39),
        (n::MTRR_PHYSBASE0 + 1, 1),
        (n::SFMASK, 1 << 32),
        (n::TSC_AUX, 1 << 32),
        (n::SPEC_CTRL, 1 << 3),
        (n::PRED_CMD, 2),
        (n::FEATURE_CONTROL, 0),
        (n::MISC_ENABLE, 1 << 34),
        (n::ARCH_CAPABILITIES, 0),
        (n::MCG_CAP, 0),
        (n::MC0_CTL + 1, 1),
        (n::MC0_MISC, 1),
    ] {
        assert_eq!(cpu.write_msr(number, value), Err(Exception::GP0), "{number:#x} {value:#x}");
    }
}

/// *SDM vol. 3A §9.8.5*: LME cannot change while paging is on; LMA is the processor's.
#[test]
fn efer_rules() {
    let mut cpu = cpu();
    cpu.write_msr(n::EFER, (Efer::LME | Efer::LMA | Efer::NXE).bits()).unwrap();
    assert_eq!(cpu.read_msr(n::EFER), Ok((Efer::LME | Efer::NXE).bits()));
    cpu.s.cr0 |= Cr0::PG | Cr0::PE;
    assert_eq!(cpu.write_msr(n::EFER, 0), Err(Exception::GP0));
    assert_eq!(cpu.write_msr(n::EFER, Efer::LME.bits()), Ok(()));
}

/// *SDM vol. 3B §17.17.3*.
#[test]
fn writing_the_tsc_moves_tsc_adjust() {
    let mut cpu = cpu();
    cpu.write_msr(n::TSC, 1 << 40).unwrap();
    let adjust = cpu.read_msr(n::TSC_ADJUST).unwrap();
    assert!((1u64 << 40) - adjust < 10_000);
    cpu.write_msr(n::TSC_ADJUST, 0).unwrap();
    assert!(cpu.read_msr(n::TSC).unwrap() < 10_000);
}

#[test]
fn firmware_mtrrs_read_back() {
    let mut cpu = cpu();
    cpu.set_firmware_mtrrs(0xc000_0000);
    assert_eq!(cpu.read_msr(n::MTRR_DEF_TYPE), Ok(0xc06));
    assert_eq!(cpu.read_msr(n::MTRR_PHYSBASE0), Ok(0xc000_0000));
    assert_eq!(cpu.read_msr(n::MTRR_PHYSBASE0 + 1), Ok(0x7f_c000_0800));
    assert_eq!(cpu.read_msr(n::MTRR_FIX16K_A0000), Ok(0));
    // What firmware leaves, software may write again.
    for number in [n::MTRR_PHYSBASE0, n::MTRR_PHYSBASE0 + 1, n::MTRR_FIX4K_C0000, n::MTRR_DEF_TYPE] {
        let value = cpu.read_msr(number).unwrap();
        assert_eq!(cpu.write_msr(number, value), Ok(()));
    }
}

/// Software asks for the microcode's revision by CPUID (*SDM vol. 3A §9.11.7.1*).
#[test]
fn cpuid_loads_the_revision() {
    let mut cpu = cpu();
    cpu.write_msr(n::BIOS_SIGN_ID, 0).unwrap();
    assert_eq!(cpu.read_msr(n::BIOS_SIGN_ID), Ok(0));
    cpu.cpuid(1, 0);
    assert_eq!(cpu.read_msr(n::BIOS_SIGN_ID), Ok(MICROCODE_REVISION));
}

/// Every feature that IA32_ARCH_CAPABILITIES or SPEC_CTRL needs is enumerated.
#[test]
fn speculation_controls_are_enumerated() {
    let mut cpu = cpu();
    let seven = cpu.cpuid(7, 0);
    for bit in [26, 27, 29, 31] {
        assert_ne!(seven.edx >> bit & 1, 0);
    }
    assert_eq!(cpu.write_msr(n::SPEC_CTRL, 7), Ok(()));
    assert_eq!(cpu.write_msr(n::PRED_CMD, 1), Ok(()));
    assert_eq!(cpu.read_msr(n::PRED_CMD), Err(Exception::GP0));
}
