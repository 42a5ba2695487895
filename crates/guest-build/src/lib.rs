//! How build scripts build programs of `guest/`: by a cargo of their own, with its own target,
//! flags and lock file, whatever the outer cargo was told, and so that two machines with one
//! toolchain build the same bytes.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The target of the guest's programs.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Flags of static programs of the guest.
pub const STATIC: [&str; 2] = [
    "-Ctarget-feature=+crt-static",
    // no relocations to apply when it starts
    "-Crelocation-model=static",
];

/// What cargo is to build.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// Folder with the package, or the workspace, and its lock file.
    pub folder: &'a Path,
    /// Where cargo builds.
    pub target_dir: &'a Path,
    /// Flags of `rustc`.
    pub flags: &'a [String],
    /// Further arguments of cargo's.
    pub arguments: &'a [&'a str],
}

impl Build<'_> {
    /// Builds it; the folder of the programs.
    ///
    /// # Errors
    /// What cargo said.
    pub fn run(&self) -> Result<PathBuf, String> {
        // Without the network first: usually all is there, and an outer `--offline` is not
        // visible here.
        let done = |output: io::Result<std::process::Output>| match output {
            Ok(output) if output.status.success() => Ok(self.target_dir.join(TARGET).join("release")),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(e) => Err(e.to_string()),
        };
        done(self.cargo().arg("--offline").output()).or_else(|_| done(self.cargo().output())).map_err(|why| {
            format!(
                "cannot build {} for {TARGET}; if that target is missing, add it to the toolchain\n{why}",
                self.folder.display()
            )
        })
    }

    fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        // what was set for the outer build is not meant for the guest
        for (name, _) in env::vars_os().filter(|(name, _)| is_of_the_outer_build(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\u{1f}"))
            .current_dir(self.folder)
            .args(["build", "--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(self.target_dir)
            .args(self.arguments);
        command
    }
}

fn is_of_the_outer_build(name: &str) -> bool {
    matches!(
        name,
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
    .any(|prefix| name.starts_with(prefix))
}

/// Flags by which paths of this machine stay out of a program: `root` is `/kluis` in it,
/// cargo's folder `/cargo`.
pub fn remapped(root: &Path) -> Vec<String> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    // the last that fits counts
    let folders = home.map(|home| (home, "/cargo")).into_iter().chain([(root, "/kluis")]);
    folders.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).collect()
}

/// Has the build script run again when a file, or one in a folder, has changed.
pub fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// A path that cargo gives build scripts in a variable.
///
/// # Panics
/// This is no build script.
pub fn folder(variable: &str) -> PathBuf {
    PathBuf::from(env::var_os(variable).expect("set by cargo"))
}

/// All files of a folder, or one file, in one order on every machine: their paths below `path`
/// after `name`, and where they are.
///
/// # Errors
/// They cannot be listed.
pub fn files(path: &Path, name: &str) -> io::Result<Vec<(String, PathBuf)>> {
    if path.is_file() {
        return Ok(vec![(name.to_owned(), path.to_owned())]);
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    let mut all = Vec::new();
    for entry in entries {
        all.extend(files(&entry.path(), &format!("{name}/{}", entry.file_name().to_string_lossy()))?);
    }
    Ok(all)
}

/// Files of the crates of this repository that programs are built with, below `crates`, which
/// is the repository's folder of them: manifests, sources, and the examples that manifests name.
///
/// # Errors
/// They cannot be listed.
pub fn crates(crates: &Path, names: &[&str]) -> io::Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    for name in names {
        watch(&crates.join(name));
        for part in ["Cargo.toml", "src", "examples"] {
            if !crates.join(name).join(part).exists() {
                continue;
            }
            all.extend(files(&crates.join(name).join(part), &format!("crates/{name}/{part}"))?);
        }
    }
    Ok(all)
}

/// The manifest of a workspace of those crates, from this repository's: what they inherit.
pub fn workspace(manifest: &str, crates: &[&str]) -> String {
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
            !crates.contains(&name)
        });
        if wanted && !other && !line.is_empty() {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Writes a file whose content is another one, so that cargo sees what has not changed.
///
/// # Errors
/// It cannot be written.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

/// The flags as [`Build`] takes them.
pub fn flags<'a>(given: impl IntoIterator<Item = &'a str>, root: &Path) -> Vec<String> {
    given.into_iter().map(str::to_owned).chain(remapped(root)).collect()
}

/// Where a program is, as the library that embeds it is told by a variable.
pub fn embed(variable: &str, program: &Path) {
    println!("cargo::rustc-env={variable}={}", program.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_has_what_its_crates_inherit() {
        let manifest = "[workspace]\nmembers = [\"x\"]\n\n[workspace.dependencies]\nlibc = \"1\"\n\
                        a = { path = \"crates/a\" }\nb = { path = \"crates/b\" }\n\n[profile.release]\nlto = 1\n";
        assert_eq!(
            workspace(manifest, &["a"]),
            "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n\n[workspace.dependencies]\n\
             libc = \"1\"\na = { path = \"crates/a\" }\n"
        );
    }

    #[test]
    fn what_the_outer_build_was_told_is_known() {
        for name in ["RUSTFLAGS", "CARGO_PROFILE_RELEASE_LTO", "CARGO_TARGET_DIR", "TARGET"] {
            assert!(is_of_the_outer_build(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS"] {
            assert!(!is_of_the_outer_build(name), "{name}");
        }
    }
}
