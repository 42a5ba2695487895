//! Which instructions are tested: the instruction table, less what a host
//! process cannot or must not execute.

use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

use cpu::Model;
use cpu::ops::{self, Gate, Row};
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic as M, OpCodeOperandKind as K};

/// One form: an encoding of an implemented instruction.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The encoding.
    pub code: Code,
    /// Its row.
    pub row: &'static Row,
}

impl Form {
    /// Name, as `--code` takes it.
    pub fn name(&self) -> String {
        format!("{:?}", self.code)
    }
}

/// Instructions that are not tested against the host, with the reason. Far
/// branches, loads of segment registers and the reserved NOPs (0F 0D /r, which
/// AMD does not have) are left out too.
pub const EXCLUDED: &[(&[M], &str)] = &[
    (
        &[
            M::Syscall,
            M::Sysenter,
            M::Sysexit,
            M::Sysret,
            M::Int,
            M::Int1,
            M::Int3,
            M::Into,
            M::Iret,
            M::Iretd,
            M::Iretq,
        ],
        "enters the host's kernel, or leaves by a frame that names host segments",
    ),
    (
        &[M::Cpuid, M::Rdtsc, M::Rdtscp, M::Rdpmc, M::Rdrand, M::Rdseed, M::Rdpid, M::Xgetbv],
        "gives values of the host",
    ),
    (
        &[M::In, M::Out, M::Insb, M::Insw, M::Insd, M::Outsb, M::Outsw, M::Outsd],
        "the host has other ports and permissions",
    ),
    (
        &[M::Lar, M::Lsl, M::Verr, M::Verw, M::Lds, M::Les, M::Lfs, M::Lgs, M::Lss],
        "reads or loads from the host's descriptor tables; loading FS would take the host thread's storage away",
    ),
    (
        &[
            M::Xsave,
            M::Xsave64,
            M::Xsaveopt,
            M::Xsaveopt64,
            M::Xsavec,
            M::Xsavec64,
            M::Xsaves,
            M::Xsaves64,
            M::Xrstor,
            M::Xrstor64,
            M::Xrstors,
            M::Xrstors64,
        ],
        "the image depends on the host's XCR0 and on what it tracks as modified (XINUSE); tested with written images in `cpu`",
    ),
    (
        &[M::Monitor, M::Mwait, M::Hlt, M::Clzero, M::Xbegin, M::Xend, M::Xabort, M::Xtest],
        "waits, or depends on the host's transactions",
    ),
    (&[M::Fstpnce], "undocumented; processors differ in what an empty register does"),
    (
        &[
            M::Fstenv,
            M::Fsave,
            M::Fstcw,
            M::Fstsw,
            M::Finit,
            M::Fclex,
            M::Feni,
            M::Fdisi,
            M::Fstdw,
            M::Fstsg,
            M::Fsetpm,
        ],
        "two instructions, FWAIT and another, in iced-x86's eyes; both are tested",
    ),
    (
        &[M::Rdfsbase, M::Wrfsbase, M::Rdgsbase, M::Wrgsbase],
        "FS holds the host thread's storage, GS the tests' known base",
    ),
];

fn excluded(code: Code) -> bool {
    if EXCLUDED.iter().any(|(mnemonics, _)| mnemonics.contains(&code.mnemonic())) {
        return true;
    }
    if code.is_jmp_far() || code.is_call_far() || code.is_jmp_far_indirect() || code.is_call_far_indirect() {
        return true;
    }
    let kinds = code.op_code().op_kinds();
    let segment = |k: &K| matches!(k, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs);
    match code.mnemonic() {
        M::Retf | M::Reservednop => true,
        // Loading segment registers; reading them is tested.
        M::Mov | M::Pop => kinds.first().is_some_and(segment),
        _ => kinds.iter().any(|k| matches!(k, K::cr_reg | K::dr_reg | K::tr_reg)),
    }
}

/// All forms that model and host have, in the order of iced-x86's codes.
pub fn forms(model: &Model) -> Vec<Form> {
    let mut forms = Vec::new();
    for code in Code::values() {
        let Some(row) = ops::row(code.mnemonic()) else { continue };
        let info = code.op_code();
        let mut insn = Instruction::default();
        insn.set_code(code);
        // Only what both vendors decode alike.
        let valid = info.is_instruction() && info.mode64() && info.intel_decoder64() && info.amd_decoder64();
        if valid
            && row.gate == Gate::Any
            && !info.is_privileged()
            && !excluded(code)
            && model.supports(&insn)
            && code.cpuid_features().iter().all(|&feature| host_has(feature))
        {
            forms.push(Form { code, row });
        }
    }
    forms
}

/// True if the host has an extension (of those models have).
fn host_has(feature: CpuidFeature) -> bool {
    static LEAVES: LazyLock<[u32; 5]> = LazyLock::new(|| {
        let (one, seven, ext) = (__cpuid(1), __cpuid_count(7, 0), __cpuid(0x8000_0001));
        [one.ecx, one.edx, seven.ebx, seven.ecx, ext.ecx]
    });
    static XSAVE: LazyLock<u32> = LazyLock::new(|| __cpuid_count(0xd, 1).eax);
    let bit = |leaf: usize, bit: u32| LEAVES[leaf] >> bit & 1 != 0;
    use CpuidFeature as F;
    match feature {
        F::SSE3 => bit(0, 0),
        F::PCLMULQDQ => bit(0, 1),
        F::SSSE3 => bit(0, 9),
        F::FMA => bit(0, 12),
        F::CMPXCHG16B => bit(0, 13),
        F::SSE4_1 => bit(0, 19),
        F::SSE4_2 => bit(0, 20),
        F::MOVBE => bit(0, 22),
        F::POPCNT => bit(0, 23),
        F::AES => bit(0, 25),
        F::XSAVE => bit(0, 27),
        F::AVX => bit(0, 28),
        F::F16C => bit(0, 29),
        F::CLFSH => bit(1, 19),
        F::FSGSBASE => bit(2, 0),
        F::BMI1 => bit(2, 3),
        F::AVX2 => bit(2, 5),
        F::BMI2 => bit(2, 8),
        F::ADX => bit(2, 19),
        F::CLFLUSHOPT => bit(2, 23),
        F::SHA => bit(2, 29),
        F::GFNI => bit(3, 8),
        F::VAES => bit(3, 9),
        F::VPCLMULQDQ => bit(3, 10),
        F::CLWB => bit(2, 24),
        F::LZCNT => bit(4, 5),
        F::PREFETCHW => bit(4, 8),
        F::XSAVEOPT => *XSAVE & 1 != 0,
        F::XSAVEC => *XSAVE & 2 != 0,
        // The base set of x86-64.
        F::INTEL8086
        | F::INTEL186
        | F::INTEL286
        | F::INTEL386
        | F::INTEL486
        | F::X64
        | F::FPU
        | F::FPU287
        | F::FPU387
        | F::CX8
        | F::CMOV
        | F::MMX
        | F::FXSR
        | F::SSE
        | F::SSE2
        | F::PAUSE
        | F::MULTIBYTENOP
        | F::TSC
        | F::CPUID => true,
        _ => false,
    }
}
