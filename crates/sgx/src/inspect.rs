//! What an operator may see of the EPC: owners, types, permissions, identities
//! and counters. Never the content of a page.

use std::collections::BTreeMap;

use serde::Serialize;
use sgx_abi::{AttributeFlags, PageType, Secs};

use crate::epcm::{Entry, EpcPage, Flags};
use crate::package::Package;
use crate::trace::Counters;

/// Pages of one type with the same permissions.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Pages {
    /// The SDM's name of the type.
    pub page_type: &'static str,
    /// `rwx`, with `-` for what is not allowed.
    pub permissions: String,
    /// BLOCKED, PENDING, MODIFIED, PR.
    pub state: Vec<&'static str>,
    /// How many.
    pub pages: u64,
}

/// An enclave.
#[derive(Clone, Debug, Serialize)]
pub struct EnclaveView {
    /// Number of its SECS page.
    pub secs_page: u32,
    /// First linear address.
    pub base: u64,
    /// Bytes of its linear range.
    pub size: u64,
    /// EINIT has succeeded.
    pub initialized: bool,
    /// MRENCLAVE, hexadecimal; zeros before EINIT.
    pub mrenclave: String,
    /// MRSIGNER, hexadecimal; zeros before EINIT.
    pub mrsigner: String,
    /// Names of its attributes.
    pub attributes: Vec<String>,
    /// XFRM.
    pub xfrm: u64,
    /// ISVPRODID.
    pub isvprodid: u16,
    /// ISVSVN.
    pub isvsvn: u16,
    /// Logical processors inside.
    pub processors_inside: u32,
    /// Its pages in the EPC.
    pub pages: Vec<Pages>,
}

/// The EPC at one time.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Bytes of the EPC.
    pub epc_bytes: u64,
    /// Pages in use.
    pub pages_used: u64,
    /// The EPC is lost until the next reset.
    pub lost: bool,
    /// Pages that belong to no enclave (version arrays).
    pub version_arrays: u64,
    /// Enclaves whose SECS is in the EPC.
    pub enclaves: Vec<EnclaveView>,
    /// Leaves, exits and faults since the start.
    pub counters: Counters,
}

/// Type, permissions and state of pages.
type Kind = (&'static str, String, Vec<&'static str>);

/// Looks at the EPC. Entries are read one after the other while the guest runs.
pub fn view(package: &Package) -> View {
    let mut owned: BTreeMap<EpcPage, BTreeMap<Kind, u64>> = BTreeMap::new();
    let (mut used, mut version_arrays) = (0, 0);
    for (_, entry) in package.epcm.valid() {
        used += 1;
        if entry.page_type == PageType::Va {
            version_arrays += 1;
            continue;
        }
        *owned.entry(entry.secs).or_default().entry(kind(&entry)).or_insert(0) += 1;
    }
    let all = package.enclaves.all();
    let enclaves = all.iter().filter_map(|enclave| {
        let secs: Secs = package.read(enclave.secs, 0).ok()?;
        let pages = owned.remove(&enclave.secs).unwrap_or_default();
        Some(EnclaveView {
            secs_page: enclave.secs.0,
            base: secs.baseaddr,
            size: secs.size,
            initialized: secs.attributes.flags.contains(AttributeFlags::INIT),
            mrenclave: hex(&secs.mrenclave),
            mrsigner: hex(&secs.mrsigner),
            attributes: secs.attributes.flags.iter_names().map(|(name, _)| name.to_owned()).collect(),
            xfrm: secs.attributes.xfrm,
            isvprodid: secs.isvprodid,
            isvsvn: secs.isvsvn,
            processors_inside: enclave.with(|state| state.tracking.inside()),
            pages: pages
                .into_iter()
                .map(|((page_type, permissions, state), pages)| Pages {
                    page_type,
                    permissions,
                    state,
                    pages,
                })
                .collect(),
        })
    });
    let enclaves = enclaves.collect();
    View {
        epc_bytes: package.epc_bytes(),
        pages_used: used,
        lost: package.is_lost(),
        version_arrays,
        enclaves,
        counters: package.trace.counters(),
    }
}

fn kind(entry: &Entry) -> Kind {
    let letter = |flag, letter| if entry.flags.contains(flag) { letter } else { '-' };
    let permissions = [letter(Flags::R, 'r'), letter(Flags::W, 'w'), letter(Flags::X, 'x')];
    let states = [
        (Flags::BLOCKED, "blocked"),
        (Flags::PENDING, "pending"),
        (Flags::MODIFIED, "modified"),
        (Flags::PR, "restricted"),
    ];
    let state = states.iter().filter(|(flag, _)| entry.flags.contains(*flag)).map(|&(_, name)| name);
    (entry.page_type.name(), permissions.iter().collect(), state.collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
