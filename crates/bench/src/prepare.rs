//! What is measured, made ready: the workloads, the kernel, the initramfs.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cpio;
use crate::systems::Plan;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Where the guest finds the workloads; a folder of its own, so that nothing of
/// the image is overlaid.
const FOLDER: &str = "kluis-bench";

/// Everything a system needs to run the workloads.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The static program, on the host.
    pub(crate) workloads: PathBuf,
    /// The guest's busybox, on the host.
    pub(crate) busybox: Option<PathBuf>,
    /// The guest's busybox, in the guest.
    pub(crate) guest_busybox: Option<String>,
    /// bzImage or ELF.
    pub(crate) kernel: PathBuf,
    /// The image's initramfs with the workloads added.
    pub(crate) initrd: PathBuf,
    /// The same with the init of the Kluis of before, if it has one of its own.
    pub(crate) initrd_before: Option<PathBuf>,
}

impl Prepared {
    /// The workloads' path in the guest.
    pub(crate) fn guest_workloads() -> String {
        format!("/{FOLDER}/workloads")
    }

    /// The path in the guest of a script that runs the plan; one word, as it
    /// goes on the kernel command line.
    pub(crate) fn guest_script() -> String {
        format!("/{FOLDER}/run")
    }
}

/// Builds the workloads, gets the guest image (`given`: kernel and initramfs
/// instead of the default image's) and adds the workloads to it; with the program
/// `before_init` as init, for the Kluis of before, as well.
///
/// # Errors
/// If a build or download fails or a file cannot be read or written.
pub(crate) fn prepare(
    given: Option<(PathBuf, PathBuf)>,
    before_init: Option<&Path>,
    plan: &mut Plan,
) -> anyhow::Result<Prepared> {
    let folder = output_folder()?;
    let workloads = build_workloads(&folder)?;
    let (kernel, initrd) = match given {
        Some(files) => files,
        None => default_image()?,
    };
    let image =
        fs::read(&initrd).with_context(|| format!("cannot read the initramfs {}", initrd.display()))?;
    let mut busybox = None;
    let mut guest_busybox = None;
    if let Some((path, data)) = cpio::find(&image, "busybox") {
        let copy = folder.join("busybox");
        fs::write(&copy, data).with_context(|| format!("cannot write {}", copy.display()))?;
        make_executable(&copy)?;
        guest_busybox = Some(format!("/{}", path.trim_start_matches(['.', '/'])));
        busybox = Some(copy);
    } else {
        eprintln!("kluis-bench: no busybox in the initramfs: its workloads are left out");
    }
    plan.ask_names(&workloads, busybox.is_some())?;
    let script = format!(
        "#!/bin/sh\nexec {} {}\n",
        Prepared::guest_workloads(),
        plan.arguments(guest_busybox.as_deref()).join(" ")
    );
    let program = fs::read(&workloads).with_context(|| format!("cannot read {}", workloads.display()))?;
    let mut extra = cpio::Writer::default();
    extra.directory(FOLDER);
    extra.program(&format!("{FOLDER}/workloads"), &program);
    extra.program(&format!("{FOLDER}/run"), script.as_bytes());
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        anyhow::Ok(path)
    };
    let image = cpio::append(image, &extra.finish());
    let initrd = write("initrd.cpio", &image)?;
    let initrd_before = match before_init {
        Some(init) => {
            let program = fs::read(init).with_context(|| format!("cannot read {}", init.display()))?;
            let mut its = cpio::Writer::default();
            // what comes later replaces what was there
            its.program("init", &program);
            Some(write("initrd-before.cpio", &cpio::append(image, &its.finish()))?)
        }
        None => None,
    };
    Ok(Prepared { workloads, busybox, guest_busybox, kernel, initrd, initrd_before })
}

fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}

/// The default guest of `kluis run`.
fn default_image() -> anyhow::Result<(PathBuf, PathBuf)> {
    let image = image::ensure(&image::Options::default())
        .context("cannot make the default image; --kernel and --initrd take another")?;
    Ok((image.kernel, image.initrd))
}

/// `kluis-bench/` in cargo's target folder, where this program lies as well.
fn output_folder() -> anyhow::Result<PathBuf> {
    let exe = env::current_exe().context("cannot find this program's own folder")?;
    let folder = target_folder(&exe).join("kluis-bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Of `<target>/release/kluis-bench`: `<target>`.
fn target_folder(exe: &Path) -> PathBuf {
    exe.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// The workspace's root: that of this run under cargo, else of the build.
fn workspace() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
    let crates = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    crates.parent().unwrap_or(Path::new(".")).to_owned()
}

/// A cargo whose environment is not ours: what was set for the build of the
/// workspace is not meant for the guest.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if is_foreign(&name.to_string_lossy()) {
            command.env_remove(&name);
        }
    }
    command
}

fn is_foreign(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_INCREMENTAL",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CLIPPY_ARGS",
    ];
    const PREFIXES: [&str; 6] =
        ["CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_PKG_", "CARGO_UNSTABLE_", "LLVM_PROFILE_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn build_workloads(folder: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("kluis-bench: building the workloads");
    let source = workspace().join("guest/workloads");
    let target = folder.join("workloads-target");
    let build = |offline: bool| {
        let mut command = cargo();
        command
            .current_dir(&source)
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .args(["build", "--release", "--locked", "--target", TARGET])
            .arg("--target-dir")
            .arg(&target);
        if offline {
            command.arg("--offline");
        }
        command.output()
    };
    // Usually all is there already, and then no network is needed.
    let output = match build(true) {
        Ok(output) if output.status.success() => output,
        _ => build(false)
            .with_context(|| format!("cannot start cargo in {} to build the workloads", source.display()))?,
    };
    if !output.status.success() {
        bail!(
            "cannot build {} for {TARGET}; if that target is missing, add it to the toolchain\n{}",
            source.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(target.join(TARGET).join("release/workloads"))
}

/// The `kluis` command: built by cargo where there is a workspace, so that what
/// is measured is what the sources say; else the one beside this program.
///
/// # Errors
/// If it is neither built nor there.
pub(crate) fn kluis() -> anyhow::Result<PathBuf> {
    let exe = env::current_exe().context("cannot find this program's own folder")?;
    let target = target_folder(&exe);
    let root = workspace();
    if root.join("Cargo.toml").exists() {
        eprintln!("kluis-bench: building kluis");
        // The workspace's own flags are right for the workspace's own program.
        let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(&root)
            .args(["build", "--release", "-p", "kluis", "--target-dir"])
            .arg(&target)
            .output()
            .context("cannot start cargo to build kluis")?;
        if !output.status.success() {
            bail!(
                "cannot build kluis; --kluis FILE takes one already built\n{}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        return Ok(target.join("release/kluis"));
    }
    let beside = exe.with_file_name("kluis");
    if !beside.exists() {
        bail!("no kluis beside {}; --kluis FILE names one", exe.display());
    }
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_does_not_reach_the_guest() {
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
            assert!(is_foreign(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_TOOLCHAIN", "CARGO_NET_OFFLINE"] {
            assert!(!is_foreign(name), "{name}");
        }
    }

    #[test]
    fn the_workspace_has_the_workloads() {
        assert!(workspace().join("guest/workloads/Cargo.toml").exists());
    }
}
