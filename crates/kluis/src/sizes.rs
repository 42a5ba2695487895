//! The VM sizes of Azure's confidential-computing families DCsv2, DCsv3 and
//! DCdsv3 (Azure documentation, 2020–2022), by which a machine can be asked for.
//!
//! The EPC column is what the sizes promise to enclaves; this version of Kluis
//! has no SGX yet and gives none.

use std::fmt::Write;

/// A size: what a machine of that name is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Azure's name.
    pub(crate) name: &'static str,
    /// Name of the processor model, as `--cpu` takes it.
    pub(crate) model: &'static str,
    /// Virtual processors; none share a core.
    pub(crate) cpus: u16,
    /// Memory in GiB.
    pub(crate) memory_gib: u16,
    /// Enclave page cache in MiB: with SGX, not in this version.
    pub(crate) epc_mib: u32,
}

/// The size of a machine when none is asked for.
pub(crate) const DEFAULT: &str = "Standard_DC1s_v2";

/// Intel Xeon E-2288G, of DCsv2.
const COFFEE_LAKE: &str = "xeon-e-2288g";
/// Intel Xeon Platinum 8370C, of DCsv3 and DCdsv3.
const ICE_LAKE: &str = "xeon-8370c";

const fn v2(name: &'static str, cpus: u16, memory_gib: u16, epc_mib: u32) -> Size {
    Size { name, model: COFFEE_LAKE, cpus, memory_gib, epc_mib }
}

const fn v3(name: &'static str, cpus: u16, memory_gib: u16, epc_gib: u32) -> Size {
    Size { name, model: ICE_LAKE, cpus, memory_gib, epc_mib: epc_gib << 10 }
}

/// All sizes, family by family. EPC follows no formula.
pub(crate) const SIZES: &[Size] = &[
    v2("Standard_DC1s_v2", 1, 4, 28),
    v2("Standard_DC2s_v2", 2, 8, 56),
    v2("Standard_DC4s_v2", 4, 16, 112),
    // this one has no "s": it has no Premium storage
    v2("Standard_DC8_v2", 8, 32, 168),
    v3("Standard_DC1s_v3", 1, 8, 4),
    v3("Standard_DC2s_v3", 2, 16, 8),
    v3("Standard_DC4s_v3", 4, 32, 16),
    v3("Standard_DC8s_v3", 8, 64, 32),
    v3("Standard_DC16s_v3", 16, 128, 64),
    v3("Standard_DC24s_v3", 24, 192, 128),
    v3("Standard_DC32s_v3", 32, 256, 192),
    v3("Standard_DC48s_v3", 48, 384, 256),
    v3("Standard_DC1ds_v3", 1, 8, 4),
    v3("Standard_DC2ds_v3", 2, 16, 8),
    v3("Standard_DC4ds_v3", 4, 32, 16),
    v3("Standard_DC8ds_v3", 8, 64, 32),
    v3("Standard_DC16ds_v3", 16, 128, 64),
    v3("Standard_DC24ds_v3", 24, 192, 128),
    v3("Standard_DC32ds_v3", 32, 256, 192),
    v3("Standard_DC48ds_v3", 48, 384, 256),
];

impl Size {
    /// The size of that name; letter case does not matter, as in Azure.
    pub(crate) fn by_name(name: &str) -> Option<&'static Size> {
        SIZES.iter().find(|size| size.name.eq_ignore_ascii_case(name))
    }

    /// Memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        u64::from(self.memory_gib) << 30
    }
}

/// All names, separated by blanks, in the table's order.
pub(crate) fn names() -> String {
    SIZES.iter().map(|size| size.name).collect::<Vec<_>>().join(" ")
}

/// The sizes as a table for help texts.
pub(crate) fn table() -> String {
    let mut out = format!("{:<19} {:>4} {:>7} {:<13} {:>9}\n", "Size", "CPUs", "Memory", "Processor", "EPC");
    for size in SIZES {
        let epc = match size.epc_mib {
            mib if mib % 1024 == 0 => format!("{} GiB", mib / 1024),
            mib => format!("{mib} MiB"),
        };
        let _ = writeln!(
            out,
            "{:<19} {:>4} {:>3} GiB {:<13} {epc:>9}",
            size.name, size.cpus, size.memory_gib, size.model
        );
    }
    out.push_str("EPC is memory of SGX enclaves: SGX comes with a later version, this one gives none.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_its_own_name_and_a_known_model() {
        for (i, size) in SIZES.iter().enumerate() {
            assert!(cpu::Model::by_name(size.model).is_some(), "{}", size.name);
            assert!(SIZES[..i].iter().all(|other| other.name != size.name), "{}", size.name);
            assert!(machine::config::MAX_CPUS >= usize::from(size.cpus));
        }
        assert_eq!(SIZES.len(), 20);
    }

    #[test]
    fn every_size_is_within_what_its_model_can_address() {
        for size in SIZES {
            let model = cpu::Model::by_name(size.model).unwrap();
            assert!(size.memory() + (1 << 30) <= 1 << model.phys_bits, "{}", size.name);
        }
    }

    #[test]
    fn default_size_is_the_smallest_of_the_first_family() {
        let size = Size::by_name(DEFAULT).unwrap();
        assert_eq!((size.cpus, size.memory(), size.epc_mib), (1, 4 << 30, 28));
        assert_eq!(size.model, "xeon-e-2288g");
    }

    #[test]
    fn names_are_found_in_any_case_and_not_by_halves() {
        assert_eq!(Size::by_name("standard_dc8_V2").unwrap().epc_mib, 168);
        assert_eq!(Size::by_name("Standard_DC48ds_v3").unwrap().epc_mib, 256 << 10);
        for wrong in ["", "nonsense", "Standard_DC8s_v2", "Standard_DC1s", "DC1s_v2", "Standard_DC1s_v2 "] {
            assert_eq!(Size::by_name(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn diskless_and_disk_sizes_differ_only_by_name() {
        let bare = |s: &Size| (s.model, s.cpus, s.memory_gib, s.epc_mib);
        for size in SIZES.iter().filter(|s| s.name.contains("ds_v3")) {
            let twin = Size::by_name(&size.name.replace("ds_", "s_")).unwrap();
            assert_eq!(bare(size), bare(twin));
        }
    }
}
