//! `--encrypted`: enclaves whose program is ciphertext, their loader and their keys.

use super::args::BuildArgs;
use super::build::{self, Purpose};
use super::project::{Enclave, Project};
use crate::exit::Error;
use enclave_image::CodeKey;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The loader's program.
const LOADER: [(&str, &str); 2] = [
    ("Cargo.toml", include_str!("template/loader/Cargo.toml.in")),
    ("src/main.rs", include_str!("template/loader/main.rs.in")),
];
/// Its name.
const LOADER_NAME: &str = "enclave-loader-program";
/// The longest key file read, in bytes.
const MAX_KEY: u64 = 4096;

/// Whether the enclaves can be encrypted, before anything is built.
///
/// # Errors
/// They are built to be looked into, or the key cannot be used.
pub(super) fn check(project: &Project, args: &BuildArgs, purpose: Purpose) -> Result<(), Error> {
    if !args.encrypted {
        return Ok(());
    }
    if purpose != Purpose::Use {
        return Err(Error::bad(
            "tests and debugging take debug enclaves, which the host looks into: leave out --encrypted",
        ));
    }
    if let Some(enclave) = project.enclaves.iter().find(|enclave| enclave.config.debug) {
        return Err(Error::bad(format!(
            "{} is a debug enclave, into which the host looks once it is decrypted: take `debug = true` out of its \
             Cargo.toml, or leave out --encrypted",
            enclave.name
        )));
    }
    args.encryption_key.as_deref().map(read).transpose().map(drop)
}

/// Builds the loader of an enclave, with the SDK and lock file of the project; its program.
///
/// # Errors
/// It cannot be built.
pub(super) fn loader(project: &Project, enclave: &Enclave, args: &BuildArgs) -> Result<Vec<u8>, Error> {
    // …/crates/enclave
    let sdk = enclave.runtime.as_deref().and_then(Path::parent).and_then(Path::parent);
    let sdk = sdk.filter(|sdk| sdk.join("crates/enclave-loader").is_dir()).ok_or_else(|| {
        Error::bad(format!(
            "{} uses no crate `enclave` with the crate `enclave-loader` beside it: take the SDK of this version \
             (`kluis enclave new`)",
            enclave.name
        ))
    })?;
    let folder = project.cargo_target().join("loader");
    for (path, text) in LOADER {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent).map_err(|e| build::cannot("make", parent, &e))?;
        build::write(&path, text.as_bytes())?;
    }
    let link = folder.join("sdk");
    if fs::read_link(&link).ok().as_deref() != Some(sdk) {
        let _ = fs::remove_file(&link);
        symlink(sdk, &link).map_err(|e| build::cannot("make", &link, &e))?;
    }
    let lock = project.root.join("Cargo.lock");
    fs::copy(&lock, folder.join("Cargo.lock")).map_err(|e| build::cannot("copy", &lock, &e))?;
    // with the same flags as the enclave: what both use is built once
    let mut cargo = build::inside("build", project, args);
    cargo.current_dir(&folder);
    build::done(cargo)?;
    let program = build::programs(project).join(LOADER_NAME);
    fs::read(&program).map_err(|e| build::cannot("read", &program, &e))
}

/// The key of an enclave, which stands in NAME.key in the folder of what is built: the one that
/// was asked for, or the one that is there, or a new one. And that file.
///
/// # Errors
/// It cannot be read or written, or there is another already.
pub(super) fn key(args: &BuildArgs, output: &Path, name: &str) -> Result<(CodeKey, PathBuf), Error> {
    let file = output.join(format!("{name}.key"));
    let asked = args.encryption_key.as_deref().map(read).transpose()?;
    let found = match fs::symlink_metadata(&file) {
        Ok(_) => Some(read(&file)?),
        Err(_) => None,
    };
    let key = match (asked, found) {
        (Some(asked), Some(found)) if asked != found => {
            return Err(Error::bad(format!(
                "{} holds another key, which opens what was built with it: move it away, if that is still used",
                file.display()
            )));
        }
        (_, Some(found)) => return Ok((found, file)),
        (Some(asked), None) => asked,
        (None, None) => CodeKey::generate().map_err(|e| Error::failed(format!("there is no key: {e}")))?,
    };
    let mut options = OpenOptions::new();
    let new = options.write(true).create_new(true).mode(0o600).open(&file);
    let written =
        new.and_then(|mut out| out.write_all(key.to_text().as_bytes()).and_then(|()| out.sync_all()));
    written.map_err(|e| build::cannot("write", &file, &e))?;
    Ok((key, file))
}

/// The key in a file that is its owner's alone.
fn read(file: &Path) -> Result<CodeKey, Error> {
    let name = file.display();
    let mut text = Zeroizing::new(String::new());
    let read = File::open(file).and_then(|opened| {
        let mode = opened.metadata()?.mode();
        opened.take(MAX_KEY).read_to_string(&mut text)?;
        Ok(mode)
    });
    match read {
        Ok(mode) if mode & 0o077 != 0 => Err(Error::bad(format!(
            "the key {name} is open to others, who read the enclave with it: `chmod 600` it, or make another"
        ))),
        Ok(_) => CodeKey::from_text(&text).ok_or_else(|| not_a_key(file)),
        Err(e) if e.kind() == ErrorKind::InvalidData => Err(not_a_key(file)),
        Err(e) => Err(Error::bad(format!("the key {name} cannot be read: {e}"))),
    }
}

fn not_a_key(file: &Path) -> Error {
    Error::bad(format!(
        "{} is no key of 64 hexadecimal digits: `openssl rand -hex 32` makes one",
        file.display()
    ))
}
