//! Programs of `guest/`, built for a test, and the way into a machine.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds a program of `guest/`, statically linked; its file.
pub(crate) fn program(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest").join(name);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest");
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(&source)
        // flags of the workspace's own build are not the guest's
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET, "--target-dir"])
        .arg(&target);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    target.join(TARGET).join("release").join(name)
}

/// How often a machine has executed an SGX leaf, as `--stats --json` tells at its end.
pub(crate) fn leaves(errors: &str, leaf: &str) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
    let leaves = stats["sgx"]["counters"]["leaves"].as_array().unwrap();
    leaves.iter().find(|counted| counted[0] == leaf).map_or(0, |counted| counted[1].as_u64().unwrap())
}

/// A tar archive of these files, for the guest's `tar x`; all are executable.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}
