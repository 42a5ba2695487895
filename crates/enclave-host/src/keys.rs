//! Keys of encrypted enclaves: where the host has them from, and how it unlocks by them.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enclave_abi::call::function;
use enclave_abi::encrypted::{KEY_SIZE, Payload, SEALED_SIZE, Unlock, Unlocked, unlock};
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

use crate::driver::{self, Driver};
use crate::{Error, Files, LoadError};

/// The key of an encrypted enclave; wiped when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_SIZE]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: [u8; KEY_SIZE]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From the text of a key file: 64 hexadecimal digits. `None` if it is another text.
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.trim_ascii().as_bytes();
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
            *byte = (high? << 4 | low?) as u8;
        }
        (digits.len() == 2 * KEY_SIZE).then_some(Self(key))
    }
}

/// Where a host program has the key of an encrypted enclave from. Whoever knows it, knows
/// the enclave's program: a key that comes from elsewhere should come to the enclave's
/// machine only after that has proven what it is.
pub trait KeySource: Send + Sync {
    /// What [`KeySource::keep`] was given at an earlier start, if there is anything: it is
    /// tried first.
    fn sealed(&self, enclave: &Files) -> Option<Vec<u8>> {
        let _ = enclave;
        None
    }

    /// The key, if what was sealed did not open the enclave.
    ///
    /// # Errors
    /// There is none; in one line, with what to do.
    fn key(&self, enclave: &Files) -> Result<Key, String>;

    /// Keeps the key as the enclave has sealed it, for the next start: it is of no use but to
    /// this very enclave on this processor, and no secret. Where it is not kept, the key is
    /// needed again.
    fn keep(&self, sealed: &[u8]) {
        let _ = sealed;
    }
}

/// A key file, as `kluis enclave build --encrypted` writes it, and perhaps a file for the
/// sealed key.
#[derive(Clone, Debug)]
pub struct KeyFile {
    key: PathBuf,
    sealed: Option<PathBuf>,
}

impl KeyFile {
    /// The key file at `key`.
    pub fn new(key: impl Into<PathBuf>) -> Self {
        Self { key: key.into(), sealed: None }
    }

    /// Keeps the sealed key in this file: once it is there, the key file is not read.
    pub fn sealed(mut self, file: impl Into<PathBuf>) -> Self {
        self.sealed = Some(file.into());
        self
    }
}

impl KeySource for KeyFile {
    fn sealed(&self, _: &Files) -> Option<Vec<u8>> {
        fs::read(self.sealed.as_ref()?).ok()
    }

    fn key(&self, _: &Files) -> Result<Key, String> {
        let text = fs::read_to_string(&self.key).map(Zeroizing::new).map_err(|e| match e.kind() {
            ErrorKind::NotFound => format!(
                "there is no {}: take it there from where `kluis enclave build --encrypted` wrote it",
                self.key.display()
            ),
            _ => format!("cannot read {}: {e}", self.key.display()),
        })?;
        Key::from_text(&text)
            .ok_or_else(|| format!("{} is no key of 64 hexadecimal digits", self.key.display()))
    }

    fn keep(&self, sealed: &[u8]) {
        let Some(file) = &self.sealed else { return };
        // without it, the next start needs the key file, as this one did
        let _ = replace(file, sealed);
    }
}

/// Writes a file as a whole.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    let new = PathBuf::from(new);
    let mut options = fs::OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
    let written = written.and_then(|mut out| out.write_all(bytes));
    written.and_then(|()| fs::rename(&new, file)).inspect_err(|_| {
        // what there is of it is of no use
        let _ = fs::remove_file(&new);
    })
}

/// Unlocks an enclave, by the sealed key or by the key; `call` calls its loader.
pub(crate) fn unlock(
    files: &Files,
    payload: &Payload,
    driver: &Driver,
    keys: Option<&dyn KeySource>,
    call: impl Fn(u32, &[u8]) -> Result<Vec<u8>, Error>,
) -> Result<(), LoadError> {
    let keys = keys.ok_or(LoadError::Locked)?;
    let start = |error| LoadError::Start(Box::new(error));
    let unlock = |kind: u64, key: &[u8]| {
        let mut message = Unlock { kind, restricts: driver::has_sgx2().into(), key: [0; SEALED_SIZE] };
        message.key[..key.len()].copy_from_slice(key);
        let message = Zeroizing::new(message.as_bytes().to_vec());
        let unlocked = call(function::UNLOCK, &message)?;
        Unlocked::read_from_bytes(&unlocked).map_err(|_| Error::Protocol)
    };
    let sealed = keys.sealed(files).filter(|sealed| sealed.len() == SEALED_SIZE);
    let unlocked = match sealed.map(|sealed| unlock(unlock::SEALED, &sealed)) {
        Some(Ok(unlocked)) => unlocked,
        // of another build, or another processor
        None | Some(Err(Error::WrongKey)) => {
            let key = keys.key(files).map_err(LoadError::Key)?;
            let unlocked = unlock(unlock::KEY, &*key.0).map_err(start)?;
            keys.keep(&unlocked.sealed);
            unlocked
        }
        Some(Err(error)) => return Err(start(error)),
    };
    if unlocked.restrict == 1 {
        for piece in payload.pieces().iter().filter(|piece| piece.is_restricted()) {
            let restricted = driver.restrict(piece.offset, piece.size, piece.rights());
            restricted.map_err(LoadError::Restrict)?;
        }
        call(function::ACCEPT, &[]).map_err(start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_are_64_digits() {
        let text = "000102030405060708090a0b0c0d0e0F101112131415161718191a1b1c1d1e1f\n";
        assert_eq!(*Key::from_text(text).unwrap().0, std::array::from_fn(|n| n as u8));
        for wrong in ["", "00", &text[1..], &format!("0{text}"), &text.replace('f', "g"), &"é".repeat(32)] {
            assert!(Key::from_text(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_sealed_key_is_kept_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("kluis-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("sealed");
        replace(&file, b"first").unwrap();
        replace(&file, b"2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
