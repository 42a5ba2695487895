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
        (n::MISC_ENABLE, 1 << 35),
        (n::ARCH_CAPABILITIES, 0),
        (n::MCG_CAP, 0),
        (n::MC0_CTL + 1, 1),
        (n::MC0_CTL, 1),
        (n::MC0_CTL + 2 + 2, 0),
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

/// *SDM vol. 3B §15.3.2*: one bank; there is no register of a second.
#[test]
fn the_machine_check_bank_reads_back() {
    let mut cpu = cpu();
    assert_eq!(cpu.read_msr(n::MCG_CAP).unwrap() & 0xff, 1);
    for (register, values) in
        [(0, &[0, u64::MAX][..]), (1, &[0]), (2, &[0, 0x1234_5678_9abc_def0]), (3, &[0, u64::MAX])]
    {
        for &value in values {
            assert_eq!(cpu.write_msr(n::MC0_CTL + register, value), Ok(()));
            assert_eq!(cpu.read_msr(n::MC0_CTL + register), Ok(value));
        }
    }
    for register in 4..4 * 32 {
        assert_eq!(cpu.read_msr(n::MC0_CTL + register), Err(Exception::GP0));
    }
    // MCG_CTL_P, MCG_EXT_P and MCG_CMCI_P are clear: nor are there these.
    assert_eq!(cpu.read_msr(n::MCG_CAP).unwrap() & (1 << 8 | 1 << 9 | 1 << 10), 0);
    for number in [0x17b, 0x180, 0x280] {
        assert_eq!(cpu.read_msr(number), Err(Exception::GP0), "{number:#x}");
    }
}

/// *SDM vol. 3B chapter 19*: leaf 0AH says version 0, and so none of its registers is there.
#[test]
fn without_performance_monitoring_its_registers_fault() {
    let mut cpu = cpu();
    assert_eq!(cpu.cpuid(0xa, 0), crate::cpuid::Registers::default());
    assert_eq!(cpu.cpuid(1, 0).ecx >> 15 & 1, 0, "IA32_PERF_CAPABILITIES");
    // PMCn, PERFEVTSELn, FIXED_CTRn, PERF_CAPABILITIES, FIXED_CTR_CTRL to
    // GLOBAL_OVF_CTRL, A_PMCn, PEBS_ENABLE, DS_AREA
    let all = [
        0xc1..0xc9,
        0x186..0x18e,
        0x309..0x30d,
        0x345..0x346,
        0x38d..0x392,
        0x3f1..0x3f2,
        0x4c1..0x4c9,
        0x600..0x601,
    ];
    for number in all.into_iter().flatten() {
        assert_eq!(cpu.read_msr(number), Err(Exception::GP0), "{number:#x}");
        assert_eq!(cpu.write_msr(number, 0), Err(Exception::GP0), "{number:#x}");
    }
    assert_eq!(cpu.read_msr(n::MISC_ENABLE).unwrap() & (1 << 7 | 1 << 11 | 1 << 12), 1 << 11 | 1 << 12);
}

/// *SDM vol. 4 table 2-2, IA32_MISC_ENABLE*.
#[test]
fn misc_enable_limits_cpuid_and_takes_xd_away() {
    let mut cpu = cpu();
    let before = cpu.read_msr(n::MISC_ENABLE).unwrap();
    cpu.write_msr(n::MISC_ENABLE, before | MISC_ENABLE_LIMIT_CPUID | MISC_ENABLE_XD_DISABLE).unwrap();
    assert_eq!(cpu.cpuid(0, 0).eax, 2);
    assert_eq!(cpu.cpuid(0x8000_0001, 0).edx >> 20 & 1, 0);
    assert_eq!(cpu.write_msr(n::EFER, Efer::NXE.bits()), Err(Exception::GP0));
    cpu.write_msr(n::MISC_ENABLE, before).unwrap();
    assert_ne!(cpu.cpuid(0, 0).eax, 2);
    assert_eq!(cpu.cpuid(0x8000_0001, 0).edx >> 20 & 1, 1);
    assert_eq!(cpu.write_msr(n::EFER, Efer::NXE.bits()), Ok(()));
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
