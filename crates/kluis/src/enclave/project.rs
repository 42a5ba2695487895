//! What cargo knows of a project: which of its packages are enclaves, which is the host
//! program.

use crate::exit::Error;
use enclave_image::Config;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate by which a package is known as a host program.
pub(crate) const HOST_CRATE: &str = "enclave-host";

/// The crate that is an enclave's runtime.
const ENCLAVE_CRATE: &str = "enclave";

/// A project.
#[derive(Debug)]
pub(crate) struct Project {
    /// Folder of the workspace.
    pub(crate) root: PathBuf,
    /// Names of its packages.
    pub(crate) packages: Vec<String>,
    /// Cargo's folder for what it builds.
    pub(crate) target: PathBuf,
    /// At least one.
    pub(crate) enclaves: Vec<Enclave>,
    /// The program that runs outside.
    pub(crate) host: Option<Host>,
}

/// A package that is an enclave.
#[derive(Debug)]
pub(crate) struct Enclave {
    /// Of the package.
    pub(crate) package: String,
    /// Of its program, which is the enclave's name.
    pub(crate) name: String,
    /// `[package.metadata.enclave]`.
    pub(crate) config: Config,
    /// Folder of the crate `enclave` that it uses; `None` if it is from a registry.
    pub(crate) runtime: Option<PathBuf>,
}

/// The package of the host program.
#[derive(Debug)]
pub(crate) struct Host {
    /// Of the package.
    pub(crate) package: String,
    /// Of its program.
    pub(crate) name: String,
    /// Folder of the crate `enclave-host` that it uses; `None` if it is from a registry.
    pub(crate) host_crate: Option<PathBuf>,
}

/// What `cargo metadata` writes, as far as it counts here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    #[serde(default)]
    metadata: Option<serde_json::Value>,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    path: Option<PathBuf>,
}

impl Project {
    /// The project that the folder is part of.
    ///
    /// # Errors
    /// There is none, or it has no enclave.
    pub(crate) fn find(folder: Option<&Path>) -> Result<Self, Error> {
        let mut cargo = cargo();
        if let Some(folder) = folder {
            if !folder.is_dir() {
                return Err(Error::bad(format!("--project {} is no folder", folder.display())));
            }
            cargo.current_dir(folder);
        }
        cargo.args(["metadata", "--format-version=1", "--no-deps"]);
        let output = cargo.output().map_err(no_cargo)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let why =
                said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it does not say why");
            return Err(Error::bad(format!(
                "there is no project that cargo could read: {why}; make one with `kluis enclave new NAME`"
            )));
        }
        let metadata = serde_json::from_slice(&output.stdout)
            .map_err(|e| Error::failed(format!("`cargo metadata` cannot be read: {e}")))?;
        Self::of(metadata)
    }

    fn of(metadata: Metadata) -> Result<Self, Error> {
        let mut enclaves = Vec::new();
        let mut hosts = Vec::new();
        for package in &metadata.packages {
            if let Some(config) = package.metadata.as_ref().and_then(|m| m.get("enclave")) {
                enclaves.push(package.enclave(config)?);
            } else if let Some(found) = package.dependencies.iter().find(|d| d.name == HOST_CRATE) {
                let name = package.program()?;
                hosts.push(Host { package: package.name.clone(), name, host_crate: found.path.clone() });
            }
        }
        if enclaves.is_empty() {
            return Err(Error::bad(format!(
                "no package of {} is an enclave: add [package.metadata.enclave] to the Cargo.toml of those that \
                 are, or make a project with `kluis enclave new NAME`",
                metadata.workspace_root.display()
            )));
        }
        if let [first, second, ..] = &hosts[..] {
            return Err(Error::bad(format!(
                "both {} and {} use {HOST_CRATE}: a project has one host program",
                first.package, second.package
            )));
        }
        Ok(Self {
            root: metadata.workspace_root,
            packages: metadata.packages.into_iter().map(|package| package.name).collect(),
            target: metadata.target_directory,
            enclaves,
            host: hosts.pop(),
        })
    }

    /// Folder of what is built: enclaves, signatures, the host program.
    pub(crate) fn output(&self) -> PathBuf {
        self.target.join("enclave")
    }

    /// Cargo's folder for programs of all kinds: it tells them apart by their flags.
    pub(crate) fn cargo_target(&self) -> PathBuf {
        self.target.join("enclave-build")
    }

    /// Folder of enclaves that are built for their tests.
    pub(crate) fn test_output(&self) -> PathBuf {
        self.target.join("enclave-test")
    }

    /// Folder of what is built for a debugger.
    pub(crate) fn debug_output(&self) -> PathBuf {
        self.target.join("enclave-debug")
    }
}

impl Package {
    fn enclave(&self, config: &serde_json::Value) -> Result<Enclave, Error> {
        let config = Config::deserialize(config).map_err(|e| {
            Error::bad(format!("[package.metadata.enclave] of {}: {e}", self.manifest_path.display()))
        })?;
        let runtime = self.dependencies.iter().find(|d| d.name == ENCLAVE_CRATE).and_then(|d| d.path.clone());
        Ok(Enclave { package: self.name.clone(), name: self.program()?, config, runtime })
    }

    /// Name of its one program.
    fn program(&self) -> Result<String, Error> {
        let mut programs = self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bin"));
        match (programs.next(), programs.next()) {
            (Some(one), None) => Ok(one.name.clone()),
            _ => Err(Error::bad(format!(
                "{} has not exactly one program (src/main.rs): an enclave or a host program is one",
                self.manifest_path.display()
            ))),
        }
    }
}

/// Cargo, as it is set up for whoever calls.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

pub(crate) fn no_cargo(e: std::io::Error) -> Error {
    Error::bad(format!("cargo cannot be started: {e}; install Rust, 1.90 or later"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn project(packages: serde_json::Value) -> Result<Project, Error> {
        let metadata =
            json!({ "packages": packages, "workspace_root": "/p", "target_directory": "/p/target" });
        Project::of(serde_json::from_value(metadata).unwrap())
    }

    fn package(
        name: &str,
        metadata: serde_json::Value,
        uses: &[&str],
        programs: &[&str],
    ) -> serde_json::Value {
        let targets: Vec<_> = programs.iter().map(|name| json!({ "name": name, "kind": ["bin"] })).collect();
        let uses: Vec<_> = uses.iter().map(|name| json!({ "name": name, "path": "/sdk" })).collect();
        json!({ "name": name, "manifest_path": format!("/p/{name}/Cargo.toml"), "metadata": metadata,
                "targets": targets, "dependencies": uses })
    }

    #[test]
    fn packages_are_told_apart() {
        let enclave = package(
            "hello-enclave",
            json!({ "enclave": { "heap": "4M", "svn": 3 } }),
            &["enclave"],
            &["hello"],
        );
        let host = package("hello-host", json!(null), &["enclave-host"], &["host"]);
        let other = package("interface", json!({ "docs": 1 }), &[], &[]);
        let found = project(json!([enclave, host, other])).unwrap();
        assert_eq!(found.enclaves.len(), 1);
        assert_eq!((found.enclaves[0].name.as_str(), found.enclaves[0].config.svn), ("hello", 3));
        assert_eq!(found.enclaves[0].config.settings().heap, 4 << 20);
        assert_eq!(found.host.as_ref().unwrap().package, "hello-host");
        assert_eq!(found.host.unwrap().host_crate.as_deref(), Some(Path::new("/sdk")));
    }

    #[test]
    fn what_is_wrong_is_told_in_one_line() {
        let enclave = |metadata: serde_json::Value, programs: &[&str]| {
            let package = package("e", metadata, &[], programs);
            project(json!([package])).unwrap_err().to_string()
        };
        for (error, words) in [
            (enclave(json!(null), &["e"]), "[package.metadata.enclave]"),
            (enclave(json!({ "enclave": { "heep": 1 } }), &["e"]), "unknown field `heep`"),
            (enclave(json!({ "enclave": { "heap": "many" } }), &["e"]), "a size such as"),
            (enclave(json!({ "enclave": { "svn": 70000 } }), &["e"]), "70000"),
            (enclave(json!({ "enclave": {} }), &[]), "exactly one program"),
            (enclave(json!({ "enclave": {} }), &["a", "b"]), "exactly one program"),
        ] {
            assert!(error.contains(words) && !error.contains('\n'), "{error}");
        }
        let host = |name| package(name, json!(null), &["enclave-host"], &["x"]);
        let enclave = package("e", json!({ "enclave": {} }), &[], &["e"]);
        let error = project(json!([enclave, host("a"), host("b")])).unwrap_err().to_string();
        assert!(error.contains("both a and b"), "{error}");
    }
}
