//! The processors of a snapshot: software has asked CPUID, and goes by what it was told.

use std::fmt::Write;

use cpu::Model;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SnapshotError;

/// What processors promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorRecord {
    /// Extensions that they have because the host has them.
    pub by_host: Vec<String>,
    /// SHA-256 of all that CPUID answers, hexadecimal.
    pub cpuid: String,
}

/// What processors of this model promise here, on a machine with so many.
pub(super) fn record(model: &Model, count: usize) -> ProcessorRecord {
    let mut hash = Sha256::new();
    for (leaf, subleaf, r) in cpu::cpuid::table(model, count as u32) {
        [leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx].iter().for_each(|word| hash.update(word.to_le_bytes()));
    }
    let cpuid = hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    ProcessorRecord { by_host: model.offered(), cpuid }
}

/// Whether software that runs on the one can go on on the other.
pub(super) fn check(was: &ProcessorRecord, is: &ProcessorRecord) -> Result<(), SnapshotError> {
    let only = |one: &ProcessorRecord, other: &ProcessorRecord| {
        let more: Vec<&str> =
            one.by_host.iter().filter(|f| !other.by_host.contains(f)).map(String::as_str).collect();
        more.join(", ")
    };
    let (lost, new) = (only(was, is), only(is, was));
    let why = match (lost.as_str(), new.as_str()) {
        ("", "") if was.cpuid == is.cpuid => return Ok(()),
        ("", "") => {
            "of another version of Kluis, which tells software otherwise of its processors; take it anew"
                .into()
        }
        ("", new) => {
            format!("without {new}, which they have on this host; use a host as that it was taken on")
        }
        (lost, _) => format!("with {lost}, which this host's has not; use a host as that it was taken on"),
    };
    Err(SnapshotError::Processors(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_processors_only() {
        let of = |model: &Model, count| record(model, count);
        for model in Model::all() {
            let now = of(&model, 2);
            assert_eq!(now.cpuid.len(), 64);
            check(&now, &of(&model, 2)).unwrap();
            assert_ne!(now.cpuid, of(&model, 3).cpuid, "the topology is in it");
        }
        let [one, other] = Model::all().map(|model| of(&model, 2));
        assert_ne!(one.cpuid, other.cpuid);
        let with = |names: &[&str]| ProcessorRecord {
            by_host: names.iter().map(|&name| name.into()).collect(),
            cpuid: names.concat(),
        };
        let why = |was: &[&str], is: &[&str]| check(&with(was), &with(is)).unwrap_err().to_string();
        assert!(
            why(&["SHA", "VAES", "GFNI"], &["GFNI"]).contains("with SHA, VAES, which this host's has not")
        );
        assert!(why(&["SHA"], &["SHA", "GFNI"]).contains("without GFNI, which they have on this host"));
        let older = ProcessorRecord { cpuid: String::new(), ..with(&["SHA"]) };
        assert!(check(&older, &with(&["SHA"])).unwrap_err().to_string().contains("take it anew"));
    }
}
