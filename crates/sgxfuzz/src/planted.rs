//! The planted bugs that the fuzzer must find: one check is left out for each run.

pub use sgx::planted::{Bug, Site, plant};

use crate::{Failure, Fuzz};

const fn rule(leaf: &'static str, name: &'static str) -> Bug {
    Bug::Rule(leaf, name)
}

const fn site(site: Site) -> Bug {
    Bug::Site(site)
}

/// All of them.
pub const BUGS: &[Bug] = &[
    site(Site::FetchOutside),
    site(Site::RamInElrange),
    site(Site::AbortPage),
    site(Site::Type),
    site(Site::Blocked),
    site(Site::Pending),
    site(Site::Modified),
    site(Site::Owner),
    site(Site::Address),
    site(Site::Read),
    site(Site::Write),
    site(Site::Execute),
    site(Site::WriteByTranslation),
    site(Site::EntryFlush),
    site(Site::ExitFlush),
    site(Site::StaleCode),
    site(Site::WalkInEpc),
    site(Site::Breakpoints),
    site(Site::ExitRegisters),
    site(Site::ExitVectors),
    site(Site::ExitFlags),
    site(Site::ExitAddress),
    site(Site::ExitSegments),
    site(Site::ExitTrapFlag),
    site(Site::ExitInfo),
    site(Site::ExitFrame),
    site(Site::ExitTarget),
    site(Site::ExitTracking),
    site(Site::Mac),
    site(Site::Version),
    site(Site::VersionKept),
    site(Site::EvictedOwner),
    site(Site::EvictedAddress),
    site(Site::Plaintext),
    site(Site::Zeroed),
    site(Site::Restriction),
    rule("ECREATE", "TARGET_FREE"),
    rule("ECREATE", "ATTRIBUTES_SUPPORTED"),
    rule("EADD", "TARGET_FREE"),
    rule("EADD", "UNINITIALIZED"),
    rule("EADD", "IN_ELRANGE"),
    rule("EEXTEND", "SECS_MATCHES"),
    rule("EEXTEND", "UNINITIALIZED"),
    rule("EINIT", "MEASUREMENT"),
    rule("EINIT", "UNINITIALIZED"),
    rule("EREMOVE", "CHILDLESS"),
    rule("EREMOVE", "INACTIVE"),
    rule("EDBGRD", "PAGE_TYPE"),
    rule("EDBGRD", "DEBUGGABLE"),
    rule("EDBGRD", "IN_TCS"),
    rule("EDBGRD", "DEBUG_ENCLAVE"),
    rule("EDBGWR", "DEBUGGABLE"),
    rule("EDBGWR", "IN_TCS_FLAGS"),
    rule("EDBGWR", "DEBUG_ENCLAVE"),
    rule("EPA", "PAGE_FREE"),
    rule("EBLOCK", "NOT_SECS"),
    rule("EWB", "BLOCKED"),
    rule("EWB", "TRACKED"),
    rule("EWB", "CHILDLESS"),
    rule("EWB", "ARRAY_VALID"),
    rule("ELDB", "TARGET_FREE"),
    rule("ELDB", "ARRAY_VALID"),
    rule("ETRACK", "CYCLE_COMPLETE"),
    rule("EAUG", "TARGET_FREE"),
    rule("EAUG", "INITIALIZED"),
    rule("EAUG", "IN_ELRANGE"),
    rule("EMODPR", "MODIFIABLE"),
    rule("EMODPR", "INITIALIZED"),
    rule("EMODT", "MODIFIABLE"),
    rule("EMODT", "INITIALIZED"),
    rule("ENCLU", "OUTSIDE"),
    rule("EENTER", "TCS_UNBLOCKED"),
    rule("EENTER", "TCS_PLACE"),
    rule("EENTER", "TCS_ACCEPTED"),
    rule("EENTER", "INITIALIZED"),
    rule("EENTER", "FRAME_LEFT"),
    rule("EENTER", "INACTIVE"),
    rule("ERESUME", "TCS_UNBLOCKED"),
    rule("ERESUME", "TCS_PLACE"),
    rule("ERESUME", "INACTIVE"),
    rule("EREPORT", "TARGET_USABLE"),
    rule("EREPORT", "DATA_USABLE"),
    rule("EREPORT", "OUTPUT_USABLE"),
    rule("EGETKEY", "REQUEST_USABLE"),
    rule("EGETKEY", "OUTPUT_USABLE"),
    rule("EGETKEY", "PROVISIONKEY"),
    rule("EACCEPT", "SECINFO_USABLE"),
    rule("EACCEPT", "PAGE_USABLE"),
    rule("EACCEPT", "MATCHES"),
    rule("EACCEPT", "TRACKED"),
    rule("EACCEPT", "REQUEST"),
    rule("EACCEPTCOPY", "SECINFO_USABLE"),
    rule("EACCEPTCOPY", "SOURCE_USABLE"),
    rule("EACCEPTCOPY", "PAGE_MATCHES"),
    rule("EMODPE", "SECINFO_USABLE"),
    rule("EMODPE", "PAGE_USABLE"),
    rule("EMODPE", "READABLE"),
];

/// Runs seeds from 0, each of `steps` steps, with a planted bug until it is found.
pub fn find(bug: Bug, seeds: u64, steps: u64) -> Option<Box<Failure>> {
    plant(Some(bug));
    let found = (0..seeds).find_map(|seed| Fuzz::run(seed, steps).err());
    plant(None);
    found
}

/// A planted bug's name.
pub fn name(bug: Bug) -> String {
    match bug {
        Bug::Site(site) => format!("{site:?}"),
        Bug::Rule(leaf, name) => format!("{leaf}.{name}"),
    }
}
