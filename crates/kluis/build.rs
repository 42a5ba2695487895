//! Puts the SDK's sources into the command, as a list of files: `OUT_DIR/sdk.rs`; and those of
//! the demo's enclave: `OUT_DIR/clinic.rs`.
//!
//! Unpacked they are a workspace of their own, whose manifest is made from this one's.

use std::fmt::Write;
use std::path::PathBuf;
use std::{fs, io};

/// The crates that enclaves and their hosts are built with.
const CRATES: [&str; 15] = [
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
    "quote-abi",
    "ratls",
    "sgx-abi",
];

/// The parts of `examples/clinic`.
const CLINIC: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "records.csv", "records", "interface", "enclave", "host"];

fn main() -> io::Result<()> {
    let root = guest_build::folder("CARGO_MANIFEST_DIR").join("../..");
    let out = guest_build::folder("OUT_DIR");
    let manifest = root.join("Cargo.toml");
    guest_build::watch(&manifest);
    guest_build::watch("build.rs".as_ref());
    let workspace = guest_build::workspace(&fs::read_to_string(&manifest)?, &CRATES);
    fs::write(out.join("sdk.toml"), workspace)?;
    let mut files =
        vec![("Cargo.toml".to_owned(), out.join("sdk.toml")), ("LICENSE".to_owned(), root.join("LICENSE"))];
    files.extend(guest_build::crates(&root.join("crates"), &CRATES)?);
    fs::write(out.join("sdk.rs"), list(files)?)?;

    // without what is built there, and the link to the SDK
    let clinic = root.join("examples/clinic");
    let parts = CLINIC.map(|part| guest_build::files(&clinic.join(part), part));
    let parts: Vec<_> = parts.into_iter().collect::<io::Result<_>>()?;
    fs::write(out.join("clinic.rs"), list(parts.concat())?)
}

/// A list of paths and contents, as Rust has it.
fn list(files: Vec<(String, PathBuf)>) -> io::Result<String> {
    let mut list = String::from("&[\n");
    for (name, path) in files {
        guest_build::watch(&path);
        let path = path.canonicalize()?;
        writeln!(list, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("a string");
    }
    list += "]\n";
    Ok(list)
}
