//! The VM sizes of Azure's confidential-computing families DCsv2, DCsv3 and
//! DCdsv3 (Azure documentation, 2020–2022), by which a machine can be asked for.
//!
//! Whether EPC counts inside a size's memory is not published: here it is beside
//! it.

use crate::capacity::Capacity;
use crate::exit::{self, Error};
use crate::units;
use serde::Serialize;
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
    /// Enclave page cache in MiB.
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

    /// Enclave page cache in bytes.
    pub(crate) fn epc(&self) -> u64 {
        u64::from(self.epc_mib) << 20
    }

    /// The smallest and the largest size with processors of this model.
    pub(crate) fn range_of(model: &str) -> Option<(&'static Size, &'static Size)> {
        let of = || SIZES.iter().filter(|size| size.model == model);
        Some((of().min_by_key(|size| size.epc_mib)?, of().max_by_key(|size| size.epc_mib)?))
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
        let epc = units::bytes(size.epc());
        let _ = writeln!(
            out,
            "{:<19} {:>4} {:>3} GiB {:<13} {epc:>9}",
            size.name, size.cpus, size.memory_gib, size.model
        );
    }
    out.push_str("EPC is memory of SGX enclaves, beside the machine's own.\n");
    out
}

/// A size, and whether it runs here.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    model: &'static str,
    cpus: u16,
    memory_bytes: u64,
    epc_bytes: u64,
    /// This host can honour it.
    can_run: bool,
    /// Why not, and what helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Lists the sizes.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn main(json: bool) -> Result<u8, Error> {
    let rows = rows(&Capacity::of_host(), lacking);
    if json {
        crate::print_json(&rows)?;
    } else {
        crate::print(&(table() + &notes(&rows)))?;
    }
    Ok(exit::OK)
}

/// What this host's processor lacks for a model.
fn lacking(model: &str) -> Vec<&'static str> {
    cpu::Model::by_name(model).map(|model| cpu::thunk::host_missing(&model)).unwrap_or_default()
}

fn rows(capacity: &Capacity, lacking: impl Fn(&str) -> Vec<&'static str>) -> Vec<Row> {
    let row = |size: &Size| {
        let lacks = lacking(size.model);
        let reason = match lacks.is_empty() {
            true => capacity.check(size.memory(), size.epc()).err(),
            false => Some(format!("needs what this host's processor lacks: {}", lacks.join(", "))),
        };
        Row {
            name: size.name,
            model: size.model,
            cpus: size.cpus,
            memory_bytes: size.memory(),
            epc_bytes: size.epc(),
            can_run: reason.is_none(),
            reason,
        }
    };
    SIZES.iter().map(row).collect()
}

fn notes(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        if let Some(reason) = &row.reason {
            let _ = writeln!(out, "Not here: {} {reason}.", row.name);
        }
    }
    if out.is_empty() {
        out.push_str("This host can honour all of them; memory is taken when it is touched.\n");
    }
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
            assert!(size.memory() + size.epc() + (1 << 30) <= 1 << model.phys_bits, "{}", size.name);
        }
    }

    /// Azure's documentation once more, by another hand: name, CPUs, memory in
    /// GiB, EPC in MiB, model.
    const DOCUMENTED: &str = "
        Standard_DC1s_v2   1   4     28 xeon-e-2288g
        Standard_DC2s_v2   2   8     56 xeon-e-2288g
        Standard_DC4s_v2   4  16    112 xeon-e-2288g
        Standard_DC8_v2    8  32    168 xeon-e-2288g
        Standard_DC1s_v3   1   8   4096 xeon-8370c
        Standard_DC2s_v3   2  16   8192 xeon-8370c
        Standard_DC4s_v3   4  32  16384 xeon-8370c
        Standard_DC8s_v3   8  64  32768 xeon-8370c
        Standard_DC16s_v3 16 128  65536 xeon-8370c
        Standard_DC24s_v3 24 192 131072 xeon-8370c
        Standard_DC32s_v3 32 256 196608 xeon-8370c
        Standard_DC48s_v3 48 384 262144 xeon-8370c";

    #[test]
    fn table_is_exactly_the_documented_one() {
        let mut documented = Vec::new();
        for line in DOCUMENTED.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let mut next = || words.next().unwrap();
            let (name, cpus, memory, epc) = (next(), next(), next(), next());
            let number = |text: &str| text.parse::<u64>().unwrap();
            let row = (number(cpus), number(memory) << 30, number(epc) << 20, next());
            documented.push((name.to_string(), row));
            if name.ends_with("s_v3") {
                documented.push((name.replace("s_v3", "ds_v3"), row));
            }
        }
        documented.sort();
        let mut ours: Vec<_> = SIZES
            .iter()
            .map(|s| (s.name.to_string(), (u64::from(s.cpus), s.memory(), s.epc(), s.model)))
            .collect();
        ours.sort();
        assert_eq!(ours, documented);
    }

    #[test]
    fn sizes_of_a_model_have_their_bounds() {
        let (least, most) = Size::range_of("xeon-e-2288g").unwrap();
        assert_eq!((least.epc(), most.epc()), (28 << 20, 168 << 20));
        let (least, most) = Size::range_of("xeon-8370c").unwrap();
        assert_eq!((least.epc(), most.epc()), (4 << 30, 256 << 30));
        assert!(Size::range_of("z80").is_none());
    }

    #[test]
    fn what_the_host_cannot_honour_is_told() {
        let all = rows(&Capacity::default(), |_| Vec::new());
        assert!(all.len() == 20 && all.iter().all(|row| row.can_run && row.reason.is_none()));
        assert!(notes(&all).contains("all of them"));
        let old = rows(&Capacity::default(), |m| if m == ICE_LAKE { vec!["AVX2"] } else { Vec::new() });
        assert_eq!(old.iter().filter(|row| row.can_run).count(), 4);
        let notes = notes(&old);
        assert_eq!(notes.lines().count(), 16);
        assert!(notes.contains("Standard_DC48s_v3 needs") && notes.contains("AVX2"), "{notes}");
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
