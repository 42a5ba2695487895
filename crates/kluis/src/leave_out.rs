//! Checks that a test takes out, to see what relies on them fail: in builds with the feature
//! `unchecked`, whose variable `KLUIS_WITHOUT` names one. In any other build all take place.

/// Whether the check of this name is left out.
#[cfg(feature = "unchecked")]
pub(crate) fn leaves_out(check: &str) -> bool {
    std::env::var_os("KLUIS_WITHOUT").is_some_and(|named| named == check)
}

/// No.
#[cfg(not(feature = "unchecked"))]
pub(crate) const fn leaves_out(_: &str) -> bool {
    false
}

/// Leaves out those of the processor, before it is there.
#[cfg(feature = "unchecked")]
pub(crate) fn plant() {
    use sgx::planted::{Bug, Site, plant_everywhere};
    let bugs = [
        ("measurement", Bug::Rule("EINIT", "MEASUREMENT")),
        ("abort-page", Bug::Site(Site::AbortPage)),
        ("sealed-version", Bug::Rule("EGETKEY", "ISVSVN")),
    ];
    if let Some((_, bug)) = bugs.into_iter().find(|(check, _)| leaves_out(check)) {
        plant_everywhere(bug);
    }
}

/// There is nothing to leave out.
#[cfg(not(feature = "unchecked"))]
pub(crate) const fn plant() {}
