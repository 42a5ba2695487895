//! A party's key in a file of its own.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use enclave_channel::KeyPair;
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
    let bytes = std::fs::read(file).map_err(|e| format!("cannot read {file}: {e}"))?;
    KeyPair::from_private(&bytes).map_err(|e| format!("{file}: {e}").into())
}
