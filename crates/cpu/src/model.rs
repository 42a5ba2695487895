//! Processor models: what CPUID promises is exactly what is implemented.

use std::collections::HashMap;
use std::sync::Mutex;

use iced_x86::{Code, CpuidFeature, Instruction};

/// A processor model.
#[derive(Debug)]
pub struct Model {
    /// Name on the command line.
    pub name: &'static str,
    /// Brand string, as CPUID leaves 8000_0002H–4H give it.
    pub brand: &'static str,
    /// Family, model and stepping, as CPUID leaf 1 EAX gives them.
    pub signature: u32,
    /// Bits of a physical address.
    pub phys_bits: u32,
    /// Frequency of the time-stamp counter, Hz.
    pub tsc_hz: u64,
    /// Extensions beyond those that all models share.
    pub features: &'static [CpuidFeature],
    /// Extensions that the host carries out, offered where it has them.
    pub by_host: &'static [CpuidFeature],
    supported: Mutex<HashMap<Code, bool>>,
}

/// Extensions every model has.
const BASE: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::CPUID,
    CpuidFeature::TSC,
    CpuidFeature::MSR,
    CpuidFeature::CX8,
    CpuidFeature::CMOV,
    CpuidFeature::MMX,
    CpuidFeature::FXSR,
    CpuidFeature::SEP,
    CpuidFeature::SYSCALL,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::CLFSH,
    CpuidFeature::PAUSE,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::RDPMC,
];

/// What both present models share; the difference is SGX's (*docs/cpu.md*).
const SERVER: &[CpuidFeature] = &[
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::AES,
    CpuidFeature::MONITOR,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::MOVBE,
    CpuidFeature::POPCNT,
    CpuidFeature::XSAVE,
    CpuidFeature::XSAVEOPT,
    CpuidFeature::XSAVEC,
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::RDRAND,
    CpuidFeature::RDSEED,
    CpuidFeature::FSGSBASE,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::LZCNT,
    CpuidFeature::ADX,
    CpuidFeature::SMAP,
    CpuidFeature::INVPCID,
    CpuidFeature::CLFLUSHOPT,
    CpuidFeature::PREFETCHW,
    CpuidFeature::RDTSCP,
];

const ICE_LAKE: &[CpuidFeature] = &[CpuidFeature::RDPID, CpuidFeature::CLWB];

/// Not to be refused a host for: software uses them if they are there.
const ICE_LAKE_BY_HOST: &[CpuidFeature] =
    &[CpuidFeature::SHA, CpuidFeature::VAES, CpuidFeature::VPCLMULQDQ, CpuidFeature::GFNI];

impl Model {
    /// Intel Xeon E-2288G (Coffee Lake), the processor of DCsv2.
    pub fn xeon_e_2288g() -> Model {
        Model {
            name: "xeon-e-2288g",
            brand: "Intel(R) Xeon(R) E-2288G CPU @ 3.70GHz",
            signature: 0x906ed,
            phys_bits: 39,
            tsc_hz: 3_696_000_000,
            features: &[],
            by_host: &[],
            supported: Mutex::default(),
        }
    }

    /// Intel Xeon Platinum 8370C (Ice Lake), the processor of DCsv3.
    pub fn xeon_8370c() -> Model {
        Model {
            name: "xeon-8370c",
            brand: "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
            signature: 0x606a6,
            phys_bits: 46,
            tsc_hz: 2_800_000_000,
            features: ICE_LAKE,
            by_host: ICE_LAKE_BY_HOST,
            supported: Mutex::default(),
        }
    }

    /// All models.
    pub fn all() -> [Model; 2] {
        [Self::xeon_e_2288g(), Self::xeon_8370c()]
    }

    /// The model of that name.
    pub fn by_name(name: &str) -> Option<Model> {
        Self::all().into_iter().find(|model| model.name == name)
    }

    /// What the model can do of SGX, on a machine that has an EPC.
    pub fn sgx(&self) -> sgx::Config {
        let xfrm = crate::exec::system::xcr0_allowed(self).bits();
        if crate::cpuid::is_ice_lake(self) { sgx::Config::sgx2(xfrm) } else { sgx::Config::sgx1(xfrm) }
    }

    /// True if the model has an extension, on this host.
    pub fn has(&self, feature: CpuidFeature) -> bool {
        BASE.contains(&feature)
            || SERVER.contains(&feature)
            || self.features.contains(&feature)
            || self.by_host.contains(&feature) && crate::thunk::host_has(feature)
    }

    /// Names of the extensions that it has because this host has them.
    pub fn offered(&self) -> Vec<String> {
        self.by_host.iter().filter(|f| self.has(**f)).map(|f| format!("{f:?}")).collect()
    }

    /// True if the model has every extension the encoding belongs to.
    pub fn supports(&self, insn: &Instruction) -> bool {
        let code = insn.code();
        let mut cache = self.supported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *cache.entry(code).or_insert_with(|| code.cpuid_features().iter().all(|&f| self.has(f)))
    }
}
