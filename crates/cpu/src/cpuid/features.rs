//! Feature bits. Those of instruction sets come from [`Model::has`]; the others
//! are of the processor itself and the same for all models but where said.

use iced_x86::CpuidFeature as F;

use super::Registers;
use crate::Model;

/// Which register of a leaf a bit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Ebx,
    Ecx,
    Edx,
}
use Register::{Ebx, Ecx, Edx};

/// An instruction-set extension, and where CPUID tells of it.
pub(super) struct Bit {
    pub(super) feature: F,
    pub(super) leaf: u32,
    pub(super) register: Register,
    pub(super) bit: u32,
}

const fn bit(feature: F, leaf: u32, register: Register, bit: u32) -> Bit {
    Bit { feature, leaf, register, bit }
}

const EXT: u32 = 0x8000_0001;

/// Extensions with a bit of their own in leaves 1, 7 and 8000_0001H.
pub(super) const BITS: &[Bit] = &[
    bit(F::FPU, 1, Edx, 0),
    bit(F::TSC, 1, Edx, 4),
    bit(F::MSR, 1, Edx, 5),
    bit(F::CX8, 1, Edx, 8),
    bit(F::SEP, 1, Edx, 11),
    bit(F::CMOV, 1, Edx, 15),
    bit(F::CLFSH, 1, Edx, 19),
    bit(F::MMX, 1, Edx, 23),
    bit(F::FXSR, 1, Edx, 24),
    bit(F::SSE, 1, Edx, 25),
    bit(F::SSE2, 1, Edx, 26),
    bit(F::SSE3, 1, Ecx, 0),
    bit(F::PCLMULQDQ, 1, Ecx, 1),
    bit(F::MONITOR, 1, Ecx, 3),
    bit(F::SSSE3, 1, Ecx, 9),
    bit(F::FMA, 1, Ecx, 12),
    bit(F::CMPXCHG16B, 1, Ecx, 13),
    bit(F::SSE4_1, 1, Ecx, 19),
    bit(F::SSE4_2, 1, Ecx, 20),
    bit(F::MOVBE, 1, Ecx, 22),
    bit(F::POPCNT, 1, Ecx, 23),
    bit(F::AES, 1, Ecx, 25),
    bit(F::XSAVE, 1, Ecx, 26),
    bit(F::AVX, 1, Ecx, 28),
    bit(F::F16C, 1, Ecx, 29),
    bit(F::RDRAND, 1, Ecx, 30),
    bit(F::FSGSBASE, 7, Ebx, 0),
    bit(F::BMI1, 7, Ebx, 3),
    bit(F::AVX2, 7, Ebx, 5),
    bit(F::BMI2, 7, Ebx, 8),
    bit(F::INVPCID, 7, Ebx, 10),
    bit(F::AVX512F, 7, Ebx, 16),
    bit(F::AVX512DQ, 7, Ebx, 17),
    bit(F::RDSEED, 7, Ebx, 18),
    bit(F::ADX, 7, Ebx, 19),
    bit(F::SMAP, 7, Ebx, 20),
    bit(F::AVX512_IFMA, 7, Ebx, 21),
    bit(F::CLFLUSHOPT, 7, Ebx, 23),
    bit(F::CLWB, 7, Ebx, 24),
    bit(F::AVX512CD, 7, Ebx, 28),
    bit(F::SHA, 7, Ebx, 29),
    bit(F::AVX512BW, 7, Ebx, 30),
    bit(F::AVX512VL, 7, Ebx, 31),
    bit(F::AVX512_VBMI, 7, Ecx, 1),
    bit(F::AVX512_VBMI2, 7, Ecx, 6),
    bit(F::GFNI, 7, Ecx, 8),
    bit(F::VAES, 7, Ecx, 9),
    bit(F::VPCLMULQDQ, 7, Ecx, 10),
    bit(F::AVX512_VNNI, 7, Ecx, 11),
    bit(F::AVX512_BITALG, 7, Ecx, 12),
    bit(F::AVX512_VPOPCNTDQ, 7, Ecx, 14),
    bit(F::RDPID, 7, Ecx, 22),
    bit(F::LZCNT, EXT, Ecx, 5),
    bit(F::PREFETCHW, EXT, Ecx, 8),
    bit(F::SYSCALL, EXT, Edx, 11),
    bit(F::RDTSCP, EXT, Edx, 27),
    bit(F::X64, EXT, Edx, 29),
];

/// True for Ice Lake server processors.
pub(crate) fn is_ice_lake(model: &Model) -> bool {
    model.signature & 0x0fff_0ff0 == 0x0006_06a0
}

/// The model has user-mode instruction prevention.
pub fn has_umip(model: &Model) -> bool {
    is_ice_lake(model)
}

fn instruction_sets(model: &Model, leaf: u32) -> Registers {
    let mut out = Registers::default();
    for b in BITS.iter().filter(|b| b.leaf == leaf && model.has(b.feature)) {
        let register = match b.register {
            Ebx => &mut out.ebx,
            Ecx => &mut out.ecx,
            Edx => &mut out.edx,
        };
        *register |= 1 << b.bit;
    }
    out
}

const fn bits(numbers: &[u32]) -> u32 {
    let mut out = 0;
    let mut i = 0;
    while i < numbers.len() {
        out |= 1 << numbers[i];
        i += 1;
    }
    out
}

/// Leaf 1, without what depends on the processor's state.
pub(super) fn leaf1(model: &Model) -> Registers {
    /// PCID, x2APIC, TSC-deadline timer, hypervisor.
    const ECX: u32 = bits(&[17, 21, 24, 31]);
    /// DE, PSE, PAE, MCE, APIC, MTRR, PGE, MCA, PAT, self-snoop.
    const EDX: u32 = bits(&[2, 3, 6, 7, 9, 12, 13, 14, 16, 27]);
    let sets = instruction_sets(model, 1);
    Registers { ecx: sets.ecx | ECX, edx: sets.edx | EDX, ..sets }
}

/// Leaf 7, subleaf 0.
pub(super) fn leaf7(model: &Model) -> Registers {
    use crate::xstate::layout::{FCS_FDS_DEPRECATED, FDP_ON_EXCEPTIONS_ONLY};
    /// TSC_ADJUST, SMEP, ERMS.
    const EBX: u32 = bits(&[1, 7, 9]);
    /// IBRS and IBPB, STIBP, IA32_ARCH_CAPABILITIES, SSBD: registers without
    /// further effect, as there is no speculation to control.
    const EDX: u32 = bits(&[26, 27, 29, 31]);
    let mut out = instruction_sets(model, 7);
    out.ebx |= EBX | u32::from(FDP_ON_EXCEPTIONS_ONLY) << 6 | u32::from(FCS_FDS_DEPRECATED) << 13;
    out.ecx |= u32::from(has_umip(model)) << 2;
    out.edx |= EDX;
    if is_ice_lake(model) {
        out.edx |= 1 << 4; // FSRM
    }
    out
}

/// Leaf 8000_0001H.
pub(super) fn extended(model: &Model) -> Registers {
    /// LAHF and SAHF in 64-bit mode.
    const ECX: u32 = bits(&[0]);
    /// NX, 1 GiB pages.
    const EDX: u32 = bits(&[20, 26]);
    let sets = instruction_sets(model, EXT);
    Registers { ecx: sets.ecx | ECX, edx: sets.edx | EDX, ..sets }
}
