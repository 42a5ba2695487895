//! `guest/enclave-check`: an enclave and its host program, built for tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::text;
use enclave_abi::build::{FLAGS, TARGET};
use enclave_image::elf::Program;
use enclave_image::{CodeKey, Config, Enclave, SigningKey, encrypt, layout, sigstruct};

/// Builds packages of `guest/enclave-check` with these flags; the folder of the programs.
fn build(package: &str, folder: &str, flags: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest/enclave-check");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(&source)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .args(["build", "--release", "--locked", "--quiet", "--target", TARGET, "--target-dir"])
        .arg(&target)
        .args(["--package", package]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", source.display(), text(&output.stderr));
    target.join(TARGET).join("release").join(package)
}

/// The host program.
pub(crate) fn host() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::fs::read(build("enclave-check", "guest", "-Ctarget-feature=+crt-static")).unwrap()
    })
}

/// The enclave's program.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| std::fs::read(build("check-enclave", "enclave", &FLAGS.join("\x1f"))).unwrap())
}

/// Two signers, whose keys are for tests alone: everybody has them.
pub(crate) const KEYS: [&str; 2] =
    [include_str!("../testdata/enclave-keys/one.pem"), include_str!("../testdata/enclave-keys/other.pem")];

/// The enclave with other choices than `[package.metadata.enclave]` has: its two files.
pub(crate) fn enclave(choices: serde_json::Value, signer: usize) -> (Vec<u8>, Vec<u8>) {
    let config = config(choices);
    let made = layout::lay_out(&Program::read(program()).unwrap(), &config.settings()).unwrap();
    signed(&made, &config, signer)
}

/// The key of encrypted enclaves here.
pub(crate) const KEY: &str = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef";

/// The enclave as ciphertext, under [`KEY`].
pub(crate) fn encrypted(config: &Config) -> Enclave {
    static LOADER: OnceLock<Vec<u8>> = OnceLock::new();
    let loader =
        LOADER.get_or_init(|| std::fs::read(build("check-loader", "enclave", &FLAGS.join("\x1f"))).unwrap());
    let (program, loader) = (Program::read(program()).unwrap(), Program::read(loader).unwrap());
    encrypt::lay_out(&program, &loader, &config.settings(), &CodeKey::from_text(KEY).unwrap()).unwrap()
}

pub(crate) fn signed(made: &Enclave, config: &Config, signer: usize) -> (Vec<u8>, Vec<u8>) {
    let statement = config.statement(made.measure(), 0x2026_0101);
    (made.write(), sigstruct::write(&statement.sign(&SigningKey::from_pem(KEYS[signer]).unwrap()).unwrap()))
}

pub(crate) fn config(choices: serde_json::Value) -> Config {
    let mut all = serde_json::json!({
        "heap": "512K", "heap-limit": "16M", "threads": 4, "product": 7, "svn": 2, "debug": true,
    });
    all.as_object_mut().unwrap().extend(choices.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}
