//! From `study.json` to the enclave's state.

use std::fs;
use std::path::Path;

use enclave_host::Enclave;
use payroll_interface::PayrollClient;
use payroll_interface::study::{Party, Study};
use serde::Deserialize;

use crate::Failure;

/// A study, as people write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    groups: Vec<String>,
    minimum: u32,
    parties: Vec<WrittenParty>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenParty {
    name: String,
    key: String,
    contributes: bool,
    receives: bool,
}

/// The sealed state in the folder; made on the first start.
pub(crate) fn state(folder: &Path, enclave: &Enclave) -> Result<Vec<u8>, Failure> {
    let file = folder.join("study.sealed");
    if file.exists() {
        return fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()).into());
    }
    let written = folder.join("study.json");
    let text = fs::read(&written).map_err(|e| format!("cannot read {}: {e}", written.display()))?;
    let study = serde_json::from_slice::<Written>(&text)
        .map_err(|e| e.to_string())
        .and_then(Written::study)
        .map_err(|e| format!("{}: {e}", written.display()))?;
    let sealed = PayrollClient(enclave).create(study)??;
    let new = folder.join("study.sealed.new");
    fs::write(&new, &sealed).and_then(|()| fs::rename(&new, &file))?;
    Ok(sealed)
}

impl Written {
    fn study(self) -> Result<Study, String> {
        let Self { title, groups, minimum, parties } = self;
        let parties = parties.into_iter().map(WrittenParty::party).collect::<Result<_, _>>()?;
        Ok(Study { title, groups, minimum, parties })
    }
}

impl WrittenParty {
    fn party(self) -> Result<Party, String> {
        let Self { name, key, contributes, receives } = self;
        let key =
            key.parse().map_err(|e| format!("the key of {name}: {e}; `payroll-client key` prints one"))?;
        Ok(Party { name, key, contributes, receives })
    }
}
