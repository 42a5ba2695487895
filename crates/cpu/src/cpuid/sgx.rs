//! Leaf 12H: SGX (*SDM vol. 3D, "Detection of SGX Resources"; vol. 2A, CPUID*).

use super::Registers;

/// What leaf 12H tells of.
#[derive(Clone, Copy, Debug)]
pub struct Sgx {
    /// Capabilities.
    pub config: sgx::Config,
    /// Physical address of the EPC.
    pub first: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

impl Sgx {
    /// Leaf 12H. Subleaf 0: leaves and sizes; 1: what SECS.ATTRIBUTES may have;
    /// 2: the EPC, one section.
    pub(super) fn leaf(&self, subleaf: u32) -> Registers {
        let c = &self.config;
        match subleaf {
            0 => {
                let bit = |on: bool, bit: u32| u32::from(on) << bit;
                let eax = 1
                    | bit(c.sgx2, 1)
                    | bit(c.oversubscription, 6)
                    | bit(c.eupdatesvn, 10)
                    | bit(c.edeccssa, 11);
                let sizes = u32::from(c.max_size_32) | u32::from(c.max_size_64) << 8;
                Registers::new(eax, c.miscselect, 0, sizes)
            }
            1 => {
                let ((eax, ebx), (ecx, edx)) = (halves(c.attributes), halves(c.xfrm));
                Registers::new(eax, ebx, ecx, edx)
            }
            2 => {
                // Type 1, an EPC section; property 1, confidentiality and
                // integrity protected, with replay.
                let ((first, first_high), (bytes, bytes_high)) = (halves(self.first), halves(self.bytes));
                Registers::new(first | 1, first_high & 0xf_ffff, bytes | 1, bytes_high & 0xf_ffff)
            }
            _ => Registers::default(),
        }
    }
}
