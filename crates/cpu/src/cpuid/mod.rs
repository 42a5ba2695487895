//! CPUID: what software is told is exactly what is implemented (*SDM vol. 2A, CPUID*).
//!
//! `features` has the bits, those of instruction sets taken from
//! [`Model::has`], by which the decoder goes too; here are the leaves.

mod features;
mod sgx;
#[cfg(test)]
mod tests;

use arch::regs::{Cr4, Xcr0};
use iced_x86::CpuidFeature;

use crate::exec::system;
use crate::xstate::layout;
use crate::{Cpu, Model};

pub use features::has_umip;
pub(crate) use features::is_ice_lake;
pub use sgx::Sgx;

/// The four registers CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl Registers {
    const fn new(eax: u32, ebx: u32, ecx: u32, edx: u32) -> Self {
        Registers { eax, ebx, ecx, edx }
    }
}

/// What CPUID depends on besides the model.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// x2APIC ID of the processor.
    pub id: u32,
    /// Processors of the machine: one package, one thread a core.
    pub processors: u32,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// IA32_MISC_ENABLE\[18\], without which there is no MONITOR.
    pub monitor: bool,
    /// IA32_MISC_ENABLE\[22\]: leaf 0 gives 2 as the highest leaf.
    pub limited: bool,
    /// IA32_MISC_ENABLE\[34\]: there is no XD.
    pub xd_disable: bool,
    /// IA32_APIC_BASE\[11\].
    pub apic: bool,
    /// 64-bit mode: SYSCALL is enumerated there only.
    pub long64: bool,
    /// XCR0.
    pub xcr0: Xcr0,
    /// SGX, if the processor has it.
    pub sgx: Option<Sgx>,
}

/// Highest basic leaf.
const MAX_BASIC: u32 = 0x16;
/// Highest extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0008;
/// First leaf for hypervisors.
const HYPERVISOR: u32 = 0x4000_0000;
/// Leaf with the frequencies of TSC and APIC timer, in kHz (as VMware gives them).
const TIMING: u32 = 0x4000_0010;
/// What leaf 4000_0000H says this machine is.
pub const SIGNATURE: &[u8; 12] = b"KluisKluis\0\0";

/// Frequency of the core crystal clock, Hz: the APIC timer's input clock.
pub fn crystal_hz(model: &Model) -> u64 {
    // Servers from Ice Lake on have 25 MHz, clients 24 MHz.
    if features::is_ice_lake(model) { 25_000_000 } else { 24_000_000 }
}

/// `a : b` in lowest terms, as 32-bit numbers.
pub fn ratio(a: u64, b: u64) -> (u32, u32) {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    let (mut a, mut b) = (a.max(1) / x, b.max(1) / x);
    while a >> 32 != 0 || b >> 32 != 0 {
        (a, b) = (a >> 1, (b >> 1).max(1));
    }
    (a as u32, b as u32)
}

/// Bits by which an APIC ID is shifted to leave the package: room for all processors.
fn package_shift(processors: u32) -> u32 {
    processors.max(1).next_power_of_two().trailing_zeros()
}

/// CPUID of a model.
pub fn leaf(model: &Model, cx: &Context, leaf: u32, subleaf: u32) -> Registers {
    match leaf {
        0..=MAX_BASIC => basic(model, cx, leaf, subleaf),
        HYPERVISOR..=TIMING => hypervisor(model, leaf),
        0x8000_0000..=MAX_EXTENDED => extended(model, cx, leaf),
        // Out of range: as the highest basic leaf.
        _ => basic(model, cx, MAX_BASIC, subleaf),
    }
}

/// All that CPUID answers of a model, on a machine of so many processors, before any
/// software has run: leaf, subleaf and registers. Without SGX's leaf, which depends on
/// the EPC.
pub fn table(model: &Model, processors: u32) -> Vec<(u32, u32, Registers)> {
    /// No leaf has more.
    const SUBLEAVES: u32 = 20;
    let cx = Context {
        id: 0,
        processors,
        osxsave: true,
        monitor: true,
        limited: false,
        xd_disable: false,
        apic: true,
        long64: true,
        xcr0: system::xcr0_allowed(model),
        sgx: None,
    };
    let leaves = (0..=MAX_BASIC).chain(HYPERVISOR..=TIMING).chain(0x8000_0000..=MAX_EXTENDED);
    leaves.flat_map(|n| (0..SUBLEAVES).map(move |sub| (n, sub, leaf(model, &cx, n, sub)))).collect()
}

fn basic(model: &Model, cx: &Context, leaf: u32, subleaf: u32) -> Registers {
    match leaf {
        0 => {
            let [ebx, edx, ecx] = words(b"GenuineIntel");
            Registers { eax: if cx.limited { 2 } else { MAX_BASIC }, ebx, ecx, edx }
        }
        1 => {
            let mut bits = features::leaf1(model);
            if cx.osxsave {
                bits.ecx |= 1 << 27;
            }
            if !cx.monitor {
                bits.ecx &= !(1 << 3);
            }
            if !cx.apic {
                bits.edx &= !(1 << 9);
            }
            if cx.processors > 1 {
                bits.edx |= 1 << 28; // HTT: more than one logical processor in the package
            }
            let count = (1 << package_shift(cx.processors)).min(255);
            let clflush = (system::MONITOR_LINE / 8) as u32;
            Registers { eax: model.signature, ebx: cx.id << 24 | count << 16 | clflush << 8, ..bits }
        }
        // "See leaf 4."
        2 => Registers::new(0x00ff_ff01, 0, 0, 0),
        4 => caches(model, cx, subleaf),
        // Extensions and interrupt break, no C-states below C0: kernels then idle by HLT.
        5 if cx.monitor => Registers::new(system::MONITOR_LINE as u32, system::MONITOR_LINE as u32, 3, 0),
        // ARAT: the APIC timer always runs.
        6 => Registers::new(1 << 2, 0, 0, 0),
        7 if subleaf == 0 => {
            let mut bits = features::leaf7(model);
            if cx.sgx.is_some() {
                bits.ebx |= 1 << 2; // SGX
                bits.ecx |= 1 << 30; // SGX_LC: launch control
            }
            bits
        }
        0xb => topology(cx, subleaf),
        0xd => xsave(model, cx, subleaf),
        0x12 => cx.sgx.map_or(Registers::default(), |sgx| sgx.leaf(subleaf)),
        0x15 => {
            let crystal = crystal_hz(model);
            let (numerator, denominator) = ratio(model.tsc_hz, crystal);
            Registers::new(denominator, numerator, crystal as u32, 0)
        }
        0x16 => {
            let mhz = (model.tsc_hz / 1_000_000) as u32;
            Registers::new(mhz, mhz, 100, 0)
        }
        _ => Registers::default(),
    }
}

/// One cache of leaf 4.
struct CacheShape {
    kind: u32,
    level: u32,
    ways: u32,
    sets: u32,
    shared: bool,
}

fn caches(model: &Model, cx: &Context, subleaf: u32) -> Registers {
    let cache = |kind, level, ways, kib: u32, shared| CacheShape {
        kind,
        level,
        ways,
        sets: kib * 1024 / 64 / ways,
        shared,
    };
    let shapes = if features::is_ice_lake(model) {
        [
            cache(1, 1, 12, 48, false),
            cache(2, 1, 8, 32, false),
            cache(3, 2, 20, 1280, false),
            cache(3, 3, 12, 49152, true),
        ]
    } else {
        [
            cache(1, 1, 8, 32, false),
            cache(2, 1, 8, 32, false),
            cache(3, 2, 4, 256, false),
            cache(3, 3, 16, 16384, true),
        ]
    };
    let Some(shape) = shapes.get(subleaf as usize) else { return Registers::default() };
    let all = ((1u32 << package_shift(cx.processors)) - 1).min(0xfff);
    let sharing = if shape.shared { all } else { 0 };
    let self_initializing = 1 << 8;
    Registers::new(
        shape.kind | shape.level << 5 | self_initializing | sharing << 14 | all.min(0x3f) << 26,
        63 | (shape.ways - 1) << 22,
        shape.sets - 1,
        0,
    )
}

/// Leaf 0BH: one thread a core, all cores in one package.
fn topology(cx: &Context, subleaf: u32) -> Registers {
    let (shift, count, kind) = match subleaf {
        0 => (0, 1, 1),
        1 => (package_shift(cx.processors), cx.processors.max(1), 2),
        _ => (0, 0, 0),
    };
    Registers::new(shift, count & 0xffff, kind << 8 | subleaf & 0xff, cx.id)
}

fn xsave(model: &Model, cx: &Context, subleaf: u32) -> Registers {
    if !model.has(CpuidFeature::XSAVE) {
        return Registers::default();
    }
    let supported = system::xcr0_allowed(model);
    match subleaf {
        0 => Registers::new(
            supported.bits() as u32,
            layout::standard_size(cx.xcr0) as u32,
            layout::standard_size(supported) as u32,
            (supported.bits() >> 32) as u32,
        ),
        1 => {
            let bit = |feature, bit: u32| u32::from(model.has(feature)) << bit;
            // XSAVEC comes with XGETBV with ECX = 1.
            let compact = model.has(CpuidFeature::XSAVEC);
            let eax = bit(CpuidFeature::XSAVEOPT, 0)
                | bit(CpuidFeature::XSAVEC, 1)
                | u32::from(compact) << 2
                | bit(CpuidFeature::XSAVES, 3);
            let ebx = if compact { layout::compacted_size(cx.xcr0) as u32 } else { 0 };
            Registers::new(eax, ebx, 0, 0)
        }
        number => match layout::by_number(number) {
            Some(c) if supported.contains(c.bit) => {
                Registers::new(c.size as u32, c.offset as u32, u32::from(c.aligned) << 1, 0)
            }
            _ => Registers::default(),
        },
    }
}

fn hypervisor(model: &Model, leaf: u32) -> Registers {
    match leaf {
        HYPERVISOR => {
            let [ebx, ecx, edx] = words(SIGNATURE);
            Registers::new(TIMING, ebx, ecx, edx)
        }
        TIMING => Registers::new((model.tsc_hz / 1000) as u32, (crystal_hz(model) / 1000) as u32, 0, 0),
        _ => Registers::default(),
    }
}

fn extended(model: &Model, cx: &Context, leaf: u32) -> Registers {
    match leaf {
        0x8000_0000 => Registers::new(MAX_EXTENDED, 0, 0, 0),
        0x8000_0001 => {
            let mut bits = features::extended(model);
            if !cx.long64 {
                bits.edx &= !(1 << 11);
            }
            if cx.xd_disable {
                bits.edx &= !(1 << 20);
            }
            bits
        }
        0x8000_0002..=0x8000_0004 => {
            let mut brand = [0; 48];
            for (to, from) in brand.iter_mut().zip(model.brand.bytes().take(47)) {
                *to = from;
            }
            let at = (leaf - 0x8000_0002) as usize * 16;
            let word = |i: usize| {
                let bytes = brand.get(at + i * 4..at + i * 4 + 4).and_then(|b| b.first_chunk::<4>());
                bytes.map_or(0, |&b| u32::from_le_bytes(b))
            };
            Registers::new(word(0), word(1), word(2), word(3))
        }
        // L2: line size, associativity code, KiB.
        0x8000_0006 => {
            let l2 = if features::is_ice_lake(model) { 1280 << 16 | 7 << 12 } else { 256 << 16 | 4 << 12 };
            Registers::new(0, 0, l2 | 64, 0)
        }
        // The time-stamp counter is invariant.
        0x8000_0007 => Registers::new(0, 0, 0, 1 << 8),
        0x8000_0008 => Registers::new(model.phys_bits | 48 << 8, 0, 0, 0),
        _ => Registers::default(),
    }
}

/// Twelve characters as three registers.
fn words(text: &[u8; 12]) -> [u32; 3] {
    let mut out = [0; 3];
    for (word, bytes) in out.iter_mut().zip(text.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |acc, &b| acc << 8 | u32::from(b));
    }
    out
}

impl Cpu {
    /// What CPUID answers on this processor now.
    pub fn cpuid(&mut self, number: u32, subleaf: u32) -> Registers {
        if number == 1 {
            // Software asks for the microcode's revision by this (SDM vol. 3A §9.11.7.1).
            self.s.msr.microcode = crate::msr::MICROCODE_REVISION;
        }
        let cx = Context {
            id: self.id as u32,
            processors: self.shared.peer_count() as u32,
            osxsave: self.s.cr4.contains(Cr4::OSXSAVE),
            monitor: self.s.msr.misc_enable & crate::msr::MISC_ENABLE_MONITOR != 0,
            limited: self.s.msr.misc_enable & crate::msr::MISC_ENABLE_LIMIT_CPUID != 0,
            xd_disable: self.s.msr.misc_enable & crate::msr::MISC_ENABLE_XD_DISABLE != 0,
            apic: self.has_apic(),
            long64: self.s.long64(),
            xcr0: self.s.xcr0,
            sgx: self.sgx.as_ref().map(|sgx| Sgx {
                config: sgx.package.config,
                first: sgx.first,
                bytes: sgx.bytes,
            }),
        };
        leaf(&self.model, &cx, number, subleaf)
    }
}
