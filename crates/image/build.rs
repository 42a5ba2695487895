//! Builds the guest's init, which the library embeds.
//!
//! It is a static program for the guest, so it is built by a cargo of its own,
//! with its own target, flags and lock file, whatever the outer cargo was told.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() -> ExitCode {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let init = here.join("../../guest/init");
    let proto = here.join("../agent-proto");
    for path in [
        init.join("Cargo.toml"),
        init.join("Cargo.lock"),
        init.join("src"),
        proto.join("Cargo.toml"),
        proto.join("src"),
        here.join("build.rs"),
    ] {
        println!("cargo::rerun-if-changed={}", path.display());
    }

    // Without the network first: usually all is there, and an outer
    // `--offline` is not visible here.
    let target_dir = out.join("init-target");
    let first = build(&init, &target_dir, true).output();
    let built = match first {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => match build(&init, &target_dir, false).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(e) => Err(e.to_string()),
        },
        Err(e) => Err(e.to_string()),
    };
    if let Err(why) = built {
        eprintln!(
            "cannot build the guest's init ({}) for {TARGET}; if that target is missing, \
             add it to the toolchain\n{why}",
            init.display()
        );
        return ExitCode::FAILURE;
    }
    let program = target_dir.join(TARGET).join("release/kluis-init");
    println!("cargo::rustc-env=KLUIS_INIT={}", program.display());
    ExitCode::SUCCESS
}

fn build(init: &Path, target_dir: &Path, offline: bool) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // what was set for the outer build is not meant for the guest
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let foreign = matches!(
            text.as_ref(),
            "RUSTFLAGS"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTC_WRAPPER"
                | "CLIPPY_ARGS"
                | "CARGO_INCREMENTAL"
                | "CARGO_MANIFEST_DIR"
                | "CARGO_MANIFEST_PATH"
                | "TARGET"
                | "__CARGO_DEFAULT_LIB_METADATA"
        ) || [
            "CARGO_BUILD_",
            "CARGO_TARGET_",
            "CARGO_PROFILE_",
            "CARGO_CFG_",
            "CARGO_FEATURE_",
            "CARGO_PKG_",
            "CARGO_UNSTABLE_",
            "LLVM_PROFILE_",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix))
            || text == "CARGO_TARGET_DIR";
        if foreign {
            command.env_remove(&name);
        }
    }
    // Paths of this machine stay out of the program: two machines with one
    // toolchain build the same bytes.
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // no relocations to apply when it starts
        "-Crelocation-model=static".to_owned(),
    ];
    let root = init.join("../..");
    let root = root.canonicalize().unwrap_or(root);
    flags.push(format!("--remap-path-prefix={}=/kluis", root.display()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command
        .current_dir(init)
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    if offline {
        command.arg("--offline");
    }
    command
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
}
