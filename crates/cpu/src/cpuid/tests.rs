//! What CPUID says and what the decoder accepts agree (*SDM vol. 2A, CPUID*).

use arch::regs::Xcr0;
use iced_x86::{Code, CpuidFeature as F};

use super::features::{BITS, Register};
use super::*;

fn context(processors: u32) -> Context {
    Context {
        id: 1,
        processors,
        osxsave: true,
        monitor: true,
        limited: false,
        xd_disable: false,
        apic: true,
        long64: true,
        xcr0: Xcr0::X87 | Xcr0::SSE | Xcr0::AVX,
        sgx: None,
    }
}

/// Extensions of every x86-64 processor, and those CPUID tells of in another way.
const WITHOUT_BIT: &[F] = &[
    F::INTEL8086,
    F::INTEL186,
    F::INTEL286,
    F::INTEL386,
    F::INTEL486,
    F::FPU287,
    F::FPU387,
    F::CPUID,
    F::PAUSE,
    F::MULTIBYTENOP,
    F::RDPMC,
    F::XSAVEOPT,
    F::XSAVEC,
];

#[test]
fn every_extension_of_a_model_has_its_bit_and_no_other_is_set() {
    for model in Model::all() {
        let cx = context(4);
        let all: std::collections::HashSet<F> =
            Code::values().flat_map(|code| code.cpuid_features().iter().copied()).collect();
        for &feature in &all {
            let place = BITS.iter().find(|b| b.feature == feature);
            match place {
                Some(b) => {
                    let out = leaf(&model, &cx, b.leaf, 0);
                    let value = match b.register {
                        Register::Ebx => out.ebx,
                        Register::Ecx => out.ecx,
                        Register::Edx => out.edx,
                    };
                    assert_eq!(value >> b.bit & 1 != 0, model.has(feature), "{} {feature:?}", model.name);
                }
                None => assert!(
                    !model.has(feature) || WITHOUT_BIT.contains(&feature),
                    "{} has {feature:?}, of which CPUID does not tell",
                    model.name
                ),
            }
        }
    }
}

#[test]
fn no_two_extensions_share_a_bit() {
    for (i, a) in BITS.iter().enumerate() {
        for b in &BITS[i + 1..] {
            assert!(
                (a.leaf, a.register as u8, a.bit) != (b.leaf, b.register as u8, b.bit),
                "{:?}",
                a.feature
            );
        }
    }
}

#[test]
fn absent_features_are_absent() {
    for model in Model::all() {
        let cx = context(1);
        let one = leaf(&model, &cx, 1, 0);
        assert_eq!(one.ecx & (1 << 5 | 1 << 6), 0, "VMX, SMX");
        assert_eq!(one.edx >> 1 & 1, 0, "VME");
        assert_eq!(one.edx >> 28 & 1, 0, "HTT with one processor");
        let seven = leaf(&model, &cx, 7, 0);
        assert_eq!(seven.ebx >> 2 & 1, 0, "SGX");
        assert_eq!(seven.ebx & (1 << 4 | 1 << 11), 0, "HLE, RTM");
        assert_eq!(leaf(&model, &cx, 0xa, 0), Registers::default(), "performance monitoring");
        assert_eq!(leaf(&model, &cx, 0x14, 0), Registers::default(), "processor trace");
    }
}

#[test]
fn frequencies_agree() {
    for model in Model::all() {
        let clock = leaf(&model, &context(1), 0x15, 0);
        let hz = u64::from(clock.ecx) * u64::from(clock.ebx) / u64::from(clock.eax);
        assert_eq!(hz, model.tsc_hz);
        let timing = leaf(&model, &context(1), 0x4000_0010, 0);
        assert_eq!(u64::from(timing.eax), model.tsc_hz / 1000);
        assert_eq!(timing.ebx, clock.ecx / 1000);
    }
}

#[test]
fn texts_read_as_written() {
    let model = Model::xeon_e_2288g();
    let cx = context(1);
    let vendor = leaf(&model, &cx, 0, 0);
    let bytes: Vec<u8> = [vendor.ebx, vendor.edx, vendor.ecx].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(bytes, b"GenuineIntel");
    let hyper = leaf(&model, &cx, 0x4000_0000, 0);
    let bytes: Vec<u8> = [hyper.ebx, hyper.ecx, hyper.edx].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(bytes, SIGNATURE);
    let brand: Vec<u8> = (0x8000_0002..=0x8000_0004)
        .map(|n| leaf(&model, &cx, n, 0))
        .flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx])
        .flat_map(u32::to_le_bytes)
        .collect();
    assert_eq!(std::str::from_utf8(&brand).unwrap().trim_end_matches('\0'), model.brand);
}

/// *SDM vol. 1 §13.2, §13.4.2, §13.4.3*.
#[test]
fn xsave_sizes_follow_xcr0() {
    let model = Model::xeon_8370c();
    let mut cx = context(1);
    assert_eq!(leaf(&model, &cx, 0xd, 0).ebx, 832);
    assert_eq!(leaf(&model, &cx, 0xd, 0).ecx, 832);
    assert_eq!(leaf(&model, &cx, 0xd, 1).ebx, 832);
    cx.xcr0 = Xcr0::X87;
    assert_eq!(leaf(&model, &cx, 0xd, 0).ebx, 576);
    assert_eq!(leaf(&model, &cx, 0xd, 2), Registers::new(256, 576, 0, 0));
    assert_eq!(leaf(&model, &cx, 0xd, 5), Registers::default());
}

/// *SDM vol. 3A §8.9.2*: leaf 0BH, one thread a core.
#[test]
fn topology_has_room_for_every_processor() {
    for (processors, shift) in [(1, 0), (2, 1), (3, 2), (8, 3), (200, 8)] {
        let cx = context(processors);
        let core = leaf(&Model::xeon_8370c(), &cx, 0xb, 1);
        assert_eq!((core.eax, core.ebx, core.ecx, core.edx), (shift, processors, 0x201, 1));
        assert_eq!(leaf(&Model::xeon_8370c(), &cx, 0xb, 2).ecx, 2);
    }
}

#[test]
fn leaves_out_of_range_are_as_the_highest() {
    let model = Model::xeon_e_2288g();
    let cx = context(1);
    let highest = leaf(&model, &cx, MAX_BASIC, 0);
    for number in [MAX_BASIC + 1, 0x3fff_ffff, 0x4000_0011, 0x8000_0009, u32::MAX] {
        assert_eq!(leaf(&model, &cx, number, 0), highest);
    }
}
