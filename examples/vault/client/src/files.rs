//! A client's key, and what it has seen of vaults, in files of its own.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enclave_channel::{KeyPair, PublicKey};
use rand_core::OsRng;

use crate::Failure;

/// Makes a key; prints its public half.
pub(crate) fn make_key(file: &Path) -> Result<(), Failure> {
    let key = KeyPair::generate(&mut OsRng);
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|e| format!("cannot make {}: {e}", file.display()))?;
    made.write_all(&*key.private())?;
    println!("{}", key.public());
    Ok(())
}

/// The key in a file.
pub(crate) fn key(file: &str) -> Result<KeyPair, Failure> {
    let bytes = fs::read(file).map_err(|e| format!("cannot read {file}: {e}"))?;
    KeyPair::from_private(&bytes).map_err(|e| format!("{file}: {e}").into())
}

/// How far vaults were, by their keys.
pub(crate) struct Seen {
    file: PathBuf,
    vault: PublicKey,
}

impl Seen {
    pub(crate) fn of(key_file: &str, vault: &PublicKey) -> Self {
        Self { file: format!("{key_file}.seen").into(), vault: vault.clone() }
    }

    /// Remembers the number of changes.
    ///
    /// # Errors
    /// It was more before.
    pub(crate) fn check(&self, changes: u64) -> Result<(), Failure> {
        let text = match fs::read_to_string(&self.file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text.map_err(|e| format!("cannot read {}: {e}", self.file.display()))?,
        };
        let name = format!("{} ", self.vault);
        let before = text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0);
        if changes < before {
            return Err(format!(
                "the vault was set back: it has changed {changes} times, and had {before} times before"
            )
            .into());
        }
        let others = text.lines().filter(|line| !line.starts_with(&name)).map(|line| format!("{line}\n"));
        fs::write(&self.file, others.chain([format!("{name}{changes}\n")]).collect::<String>())
            .map_err(|e| format!("cannot write {}: {e}", self.file.display()).into())
    }
}
