//! Planted bugs: one check at a time that does not take place, so that a fuzzer or a
//! test can be seen to notice. Exists with the feature `planted` only; without it
//! [`planted!`](crate::planted!) is `false` and nothing is left of it.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::rule::Rule;

/// What is left out beside the [`Rule`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// An enclave may fetch outside ELRANGE.
    FetchOutside,
    /// RAM mapped in ELRANGE is the enclave's.
    RamInElrange,
    /// Outside, the EPC is read and written.
    AbortPage,
    /// EPCM.PT: a TCS is as readable as a regular page.
    Type,
    /// EPCM.BLOCKED.
    Blocked,
    /// EPCM.PENDING.
    Pending,
    /// EPCM.MODIFIED: a page that is being retyped stays readable.
    Modified,
    /// EPCM.ENCLAVESECS.
    Owner,
    /// EPCM.ENCLAVEADDRESS.
    Address,
    /// EPCM.R.
    Read,
    /// EPCM.W.
    Write,
    /// EPCM.X.
    Execute,
    /// A translation allows writes whatever EPCM.W says.
    WriteByTranslation,
    /// Entering keeps the translations from outside.
    EntryFlush,
    /// Leaving keeps the translations from inside.
    ExitFlush,
    /// Code decoded from a page outlives the page.
    StaleCode,
    /// Page tables in the EPC are read.
    WalkInEpc,
    /// Breakpoints inside after an opt-out entry.
    Breakpoints,
    /// An exit leaves the general registers.
    ExitRegisters,
    /// An exit leaves the extended state.
    ExitVectors,
    /// An exit leaves the status flags.
    ExitFlags,
    /// An exit leaves a page fault's whole address.
    ExitAddress,
    /// An exit leaves FS and GS.
    ExitSegments,
    /// An exit does not restore TF.
    ExitTrapFlag,
    /// An exit tells the enclave of every exception.
    ExitInfo,
    /// An exit does not use the frame up.
    ExitFrame,
    /// An exit goes on at the enclave's RIP.
    ExitTarget,
    /// Leaving does not count the thread out.
    ExitTracking,
    /// The MAC of an evicted page is not looked at.
    Mac,
    /// All evicted pages are of one version.
    Version,
    /// A version is good for more than one load.
    VersionKept,
    /// An evicted page is not bound to its enclave.
    EvictedOwner,
    /// An evicted page is not bound to its address.
    EvictedAddress,
    /// EWB writes the content as it is.
    Plaintext,
    /// EAUG does not fill its page with zeros.
    Zeroed,
    /// EMODPR changes nothing.
    Restriction,
}

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A leaf's rule, by the names in its table, always holds.
    Rule(&'static str, &'static str),
    /// Something else is left out.
    Site(Site),
}

static EVERYWHERE: OnceLock<Bug> = OnceLock::new();

thread_local! {
    static BUG: Cell<Option<Bug>> = Cell::new(EVERYWHERE.get().copied());
}

/// Plants a bug for all processors, before the first of them runs; the first one stays.
pub fn plant_everywhere(bug: Bug) {
    EVERYWHERE.get_or_init(|| bug);
}

/// Plants a bug, for the processors that this thread runs, or none.
pub fn plant(bug: Option<Bug>) {
    BUG.set(bug);
}

/// True if that is left out.
pub fn is_left_out(site: Site) -> bool {
    BUG.get() == Some(Bug::Site(site))
}

/// True if a rule is made to hold.
pub(crate) fn holds(rule: &Rule) -> bool {
    matches!(BUG.get(), Some(Bug::Rule(leaf, name)) if leaf == rule.leaf && name == rule.name)
}
