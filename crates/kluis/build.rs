//! Puts the SDK's sources into the command, as a list of files: `OUT_DIR/sdk.rs`.
//!
//! Unpacked they are a workspace of their own, whose manifest is made from this one's.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The crates that enclaves and their hosts are built with.
const CRATES: [&str; 14] = [
    "dcap",
    "enclave",
    "enclave-abi",
    "enclave-base",
    "enclave-channel",
    "enclave-host",
    "enclave-interface",
    "enclave-loader",
    "enclave-macros",
    "enclave-store",
    "enclave-tls",
    "enclave-transport",
    "ratls",
    "sgx-abi",
];

fn main() -> io::Result<()> {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let root = here.join("../..");
    let manifest = root.join("Cargo.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    println!("cargo::rerun-if-changed=build.rs");
    fs::write(out.join("sdk.toml"), workspace(&fs::read_to_string(&manifest)?))?;
    let mut files =
        vec![("Cargo.toml".to_owned(), out.join("sdk.toml")), ("LICENSE".to_owned(), root.join("LICENSE"))];
    for name in CRATES {
        let folder = root.join("crates").join(name);
        println!("cargo::rerun-if-changed={}", folder.display());
        // examples are named in the manifests
        for part in ["Cargo.toml", "src", "examples"] {
            if folder.join(part).exists() {
                collect(&folder.join(part), &format!("crates/{name}/{part}"), &mut files)?;
            }
        }
    }
    let mut list = String::from("&[\n");
    for (name, path) in files {
        let path = path.canonicalize()?;
        writeln!(list, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("a string");
    }
    list += "]\n";
    fs::write(out.join("sdk.rs"), list)
}

/// All files of a folder, in one order on every machine.
fn collect(path: &Path, name: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    if path.is_file() {
        files.push((name.to_owned(), path.to_owned()));
        return Ok(());
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        collect(&entry.path(), &name, files)?;
    }
    Ok(())
}

/// The manifest of the SDK's workspace: what its crates inherit.
fn workspace(manifest: &str) -> String {
    let mut out = String::from("[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
    let mut wanted = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            wanted = line.starts_with("[workspace.");
            if wanted {
                out.push('\n');
            }
        }
        let other = line.split_once("path = \"crates/").is_some_and(|(_, rest)| {
            let name = rest.split('"').next().unwrap_or_default();
            !CRATES.contains(&name)
        });
        if wanted && !other && !line.is_empty() {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
