//! Builds `guest/architectural`: both enclaves, as `kluis enclave build` builds enclaves, and
//! the static programs that ask them.
//!
//! They are built in a copy, in which everything that is measured lies in one workspace: cargo
//! hashes the paths of what lies outside of it into the names of functions, so that another
//! folder would be another measurement.

use enclave_abi::build::{FLAGS, PROFILE};
use guest_build::{Build, STATIC, embed, flags, folder, watch, write};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

/// The crates that they are built with.
const CRATES: [&str; 11] = [
    "aesm",
    "enclave",
    "enclave-abi",
    "enclave-base",
    "enclave-host",
    "enclave-interface",
    "enclave-macros",
    "enclave-transport",
    "provisioning",
    "quote-abi",
    "sgx-abi",
];

/// The packages in `guest/architectural`.
const PACKAGES: [&str; 5] = ["aesmd", "host", "interface", "pce", "qe"];

/// Beyond what enclaves are built with: nobody looks for a name or a line in these.
const WITHOUT_SYMBOLS: [&str; 2] = ["profile.release.debug='none'", "profile.release.strip='symbols'"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    watch("build.rs".as_ref());
    let (root, out) = (folder("CARGO_MANIFEST_DIR").join("../.."), folder("OUT_DIR"));
    let (tree, target_dir) = (out.join("tree"), out.join("build"));
    copy(&root, &tree).map_err(|e| format!("cannot copy the sources of the architectural enclaves: {e}"))?;
    let enclave_flags = flags(FLAGS.iter().copied(), &tree);
    for name in ["pce", "qe"] {
        let mut arguments = vec!["--package", name];
        arguments.extend(PROFILE.iter().chain(&WITHOUT_SYMBOLS).flat_map(|setting| ["--config", setting]));
        let flags = &enclave_flags;
        let build = Build { folder: &tree, target_dir: &target_dir, flags, arguments: &arguments };
        embed(&format!("KLUIS_{}", name.to_uppercase()), &build.run()?.join(name));
    }
    let flags = &flags(STATIC, &tree);
    let arguments = &["--package", "quoting", "--package", "aesmd"];
    let build = Build { folder: &tree, target_dir: &target_dir, flags, arguments };
    let built = build.run()?;
    embed("KLUIS_QUOTE", &built.join("kluis-quote"));
    embed("KLUIS_AESMD", &built.join("aesmd"));
    Ok(())
}

/// Makes the copy, and leaves as it is what has not changed.
fn copy(root: &Path, tree: &Path) -> io::Result<()> {
    let enclaves = root.join("guest/architectural");
    watch(&root.join("Cargo.toml"));
    watch(&enclaves.join("Cargo.toml"));
    watch(&enclaves.join("Cargo.lock"));
    let mut sources = guest_build::crates(&root.join("crates"), &CRATES)?;
    for package in PACKAGES {
        watch(&enclaves.join(package));
        for part in ["Cargo.toml", "src"] {
            let name = format!("guest/architectural/{package}/{part}");
            sources.extend(guest_build::files(&enclaves.join(package).join(part), &name)?);
        }
    }
    sources.push(("Cargo.lock".to_owned(), enclaves.join("Cargo.lock")));
    let mut wanted = BTreeSet::new();
    let mut put = |name: &str, content: &[u8]| {
        wanted.insert(tree.join(name));
        write(&tree.join(name), content)
    };
    for (name, path) in sources {
        put(&name, &fs::read(path)?)?;
    }
    // the crates are a workspace of their own in it, as in a project of `kluis enclave new`
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let crates = guest_build::workspace(&manifest, &CRATES);
    put("crates/Cargo.toml", crates.replace("\"crates/", "\"").as_bytes())?;
    let manifest = fs::read_to_string(enclaves.join("Cargo.toml"))?;
    put("Cargo.toml", members(&manifest).as_bytes())?;
    for (_, path) in guest_build::files(tree, "")? {
        if !wanted.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The workspace's manifest, a folder further up.
fn members(manifest: &str) -> String {
    let moved = |line: &str| match line.split_once(" = [") {
        Some(("members", _)) => "members = [\"guest/architectural/*\"]\nexclude = [\"crates\"]\n".to_owned(),
        Some(("default-members", _)) => String::new(),
        _ => format!("{line}\n"),
    };
    manifest.lines().map(moved).collect()
}
