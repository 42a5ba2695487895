//! Builds the guest's init, which the library embeds.

use guest_build::{Build, STATIC, embed, flags, folder, watch};
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = folder("CARGO_MANIFEST_DIR").join("../..");
    let init = root.join("guest/init");
    let proto = root.join("crates/agent-proto");
    for path in [
        init.join("Cargo.toml"),
        init.join("Cargo.lock"),
        init.join("src"),
        proto.join("Cargo.toml"),
        proto.join("src"),
        "build.rs".into(),
    ] {
        watch(&path);
    }
    let build = Build {
        folder: &init,
        target_dir: &folder("OUT_DIR").join("init-target"),
        flags: &flags(STATIC, &root),
        arguments: &[],
    };
    match build.run() {
        Ok(programs) => {
            embed("KLUIS_INIT", &programs.join("kluis-init"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
