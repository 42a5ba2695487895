//! Signing keys: those of files, and the one that is made for development.

use crate::exit::Error;
use enclave_image::inspect::hex;
use enclave_image::key::{PublicKey, SigningKey};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest key file read, in bytes.
const MAX_KEY: u64 = 64 << 10;

/// The key in a file.
///
/// # Errors
/// It cannot be read, or EINIT would not take its signatures.
pub(crate) fn private(file: &Path) -> Result<SigningKey, Error> {
    SigningKey::from_pem(&text(file)?).map_err(|e| Error::bad(format!("the key {} {e}", file.display())))
}

/// The public key in a file.
///
/// # Errors
/// As of [`private`].
pub(crate) fn public(file: &Path) -> Result<PublicKey, Error> {
    PublicKey::from_pem(&text(file)?).map_err(|e| Error::bad(format!("the key {} {e}", file.display())))
}

/// MRSIGNER as a user names it: 64 hexadecimal digits, or a file with the key.
///
/// # Errors
/// It is neither.
pub(crate) fn mrsigner(text: &str) -> Result<String, Error> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    let file = Path::new(text);
    if !file.exists() {
        return Err(Error::bad(format!(
            "--signer {text} is neither an MRSIGNER, which has 64 hexadecimal digits, nor a file with a key"
        )));
    }
    Ok(hex(&public(file)?.mrsigner()))
}

/// Whether what is called `name` is signed by the signer that was asked for.
///
/// # Errors
/// It is another's.
pub(crate) fn is_of(name: &str, found: &str, expected: &str) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::bad(format!(
        "{name} is signed by {found}, not by {expected} as --signer says (MRSIGNER): have it signed by that \
         signer (`kluis enclave sign`), or see whether the file is the right one"
    )))
}

/// The user's key for development, made if there is none.
///
/// # Errors
/// It cannot be read or made.
pub(crate) fn development() -> Result<SigningKey, Error> {
    let file = development_file()?;
    match fs::metadata(&file) {
        Ok(found) if found.mode() & 0o077 != 0 => Err(Error::bad(format!(
            "the key {} is open to others: they can sign in your name; remove it, and a new one is made",
            file.display()
        ))),
        Ok(_) => private(&file),
        Err(e) if e.kind() == ErrorKind::NotFound => make(&file),
        Err(e) => Err(Error::bad(format!("the key {} cannot be used: {e}", file.display()))),
    }
}

fn development_file() -> Result<PathBuf, Error> {
    // beside the platform, in the user's state folder
    let platform = platform::default_folder()
        .ok_or_else(|| Error::bad("there is no folder for the key: set HOME or XDG_STATE_HOME"))?;
    Ok(platform.with_file_name("enclave-development.pem"))
}

fn make(file: &Path) -> Result<SigningKey, Error> {
    let fail = |e: std::io::Error| Error::bad(format!("the key {} cannot be made: {e}", file.display()));
    eprintln!("kluis: making a key of yours that signs enclaves for development, {}", file.display());
    let key = SigningKey::generate().map_err(|e| Error::failed(format!("the key {e}")))?;
    let pem = key.to_pem().map_err(|e| Error::failed(format!("the key {e}")))?;
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(fail)?;
    let written = out.write_all(pem.as_bytes()).and_then(|()| out.sync_all());
    // whoever was first has made it
    let linked = written.and_then(|()| fs::hard_link(&new, file));
    let removed = fs::remove_file(&new);
    match linked {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => private(file),
        linked => linked.and(removed).map(|()| key).map_err(fail),
    }
}

fn text(file: &Path) -> Result<Zeroizing<String>, Error> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(file).and_then(|f| f.take(MAX_KEY).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(e) => Err(Error::bad(format!("the key {} cannot be read: {e}", file.display()))),
    }
}
