//! Projects of `examples/`, built and run by the command as their users do.

use super::{Scratch, kluis, output, text};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One of the examples, and a folder of its user's.
pub(crate) struct Example {
    folder: PathBuf,
    pub(crate) user: Scratch,
}

impl Example {
    pub(crate) fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
        let user = Scratch::new();
        // a key for development, which the command would take its time to make
        let state = user.path("state/kluis");
        std::fs::create_dir_all(&state).unwrap();
        let key = state.join("enclave-development.pem");
        std::fs::copy(signer("one"), &key).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        Self { folder, user }
    }

    /// `kluis enclave` in the example's folder; the user's state is in their folder `state`.
    pub(crate) fn enclave(&self, args: &[&str]) -> Command {
        let mut command = kluis();
        command
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", target())
            .env("XDG_STATE_HOME", self.user.at("state"))
            .env("XDG_RUNTIME_DIR", self.user.at(""))
            .arg("enclave")
            .args(args);
        command
    }

    /// Runs it to its end, which is a good one; its output.
    pub(crate) fn works(&self, args: &[&str]) -> Output {
        let out = output(&mut self.enclave(args), b"");
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
        out
    }

    /// Builds a program of the project that runs on the host, with what the host program
    /// has in common with it; its file.
    pub(crate) fn program(&self, package: &str) -> PathBuf {
        self.cargo("build", package).join(package)
    }

    /// Runs the tests of a package that runs on the host.
    pub(crate) fn unit_tests(&self, package: &str) {
        self.cargo("test", package);
    }

    /// Runs a command of cargo's that is to work; the folder of the programs.
    fn cargo(&self, what: &str, package: &str) -> PathBuf {
        let build = target().join("enclave-build");
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(&self.folder)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
            .args([what, "--release", "--locked", "--quiet", "--package", package])
            .args(["--target", enclave_abi::build::TARGET, "--target-dir"])
            .arg(&build);
        let out = output(&mut command, b"");
        assert!(out.status.success(), "{package}: {}{}", text(&out.stdout), text(&out.stderr));
        build.join(enclave_abi::build::TARGET).join("release")
    }

    /// Folder of what `kluis enclave build` makes.
    pub(crate) fn built(&self) -> PathBuf {
        target().join("enclave")
    }
}

/// The file of a signer's key, for tests alone: everybody has it.
pub(crate) fn signer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/enclave-keys").join(name).with_extension("pem")
}

/// Where all examples are built: what they have in common once.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples")
}
