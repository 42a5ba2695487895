//! Somebody with a platform of their own, and machines on it.

use crate::common::{Scratch, checked, guest, kluis, output, text, turn};
use dcap::Time;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a machine leaves behind, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The host's time.
pub(crate) fn now() -> Time {
    Time::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// The guest program with the client of AESM.
fn aesm_check() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| fs::read(guest::program("aesm-check")).unwrap())
}

/// A user with a platform of their own, and a folder in which keys are kept.
pub(crate) struct User {
    pub(crate) scratch: Scratch,
    /// All that commands have said, on both streams.
    said: RefCell<Vec<u8>>,
}

impl User {
    /// Without a platform yet.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("keys")).unwrap();
        Self { scratch, said: RefCell::default() }
    }

    /// With a platform that another user has.
    pub(crate) fn of(roots: &[u8]) -> Self {
        let user = Self::new();
        DirBuilder::new().mode(0o700).create(user.scratch.path("platform")).unwrap();
        let file = user.scratch.file("platform/roots", roots);
        fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
        user
    }

    /// The platform.
    pub(crate) fn roots(&self) -> Vec<u8> {
        fs::read(self.scratch.path("platform/roots")).unwrap()
    }

    /// A key that is kept, sealed; nobody else may read it.
    pub(crate) fn key(&self, name: &str) -> Vec<u8> {
        let path = self.scratch.path("keys").join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::read(path).unwrap()
    }

    /// All that was said.
    pub(crate) fn said(&self) -> Vec<u8> {
        self.said.borrow().clone()
    }

    /// Notes what was said elsewhere.
    pub(crate) fn heard(&self, said: &[u8]) {
        self.said.borrow_mut().extend_from_slice(said);
    }

    /// The command for this user; it tells as much as it can.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = kluis();
        command.current_dir(self.scratch.path("")).args(args);
        command.env("KLUIS_PLATFORM", self.scratch.path("platform"));
        command.env("XDG_RUNTIME_DIR", self.scratch.at("")).env("RUST_LOG", "trace");
        command
    }

    pub(crate) fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let out = output(&mut self.command(args), input);
        println!("{args:?}: {}", text(&out.stderr));
        self.heard(&out.stdout);
        self.heard(&out.stderr);
        out
    }

    pub(crate) fn works(&self, args: &[&str]) -> String {
        let out = self.run(args, b"");
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Runs a script in a machine; what is in its folder `out` then.
    pub(crate) fn machine(&self, script: &str) -> Files {
        let (closed, open) = (
            checked::enclave(serde_json::json!({ "debug": false }), 0),
            checked::enclave(serde_json::json!({}), 0),
        );
        let archive = guest::archive(&[
            ("enclave-check", checked::host()),
            ("aesm-check", aesm_check()),
            ("closed.sgxs", &closed.0),
            ("closed.sig", &closed.1),
            ("open.sgxs", &open.0),
            ("open.sig", &open.1),
        ]);
        let _turn = turn();
        let keys = format!("{}:/keys", self.scratch.at("keys"));
        let script = format!("set -e; cd /tmp; tar x; mkdir out\n{script}\ntar c -C out .");
        let shape = ["--size", "Standard_DC1s_v2", "--memory", "256M", "--network", "none"];
        let args = [&["run", "--timeout", "500s", "--share", &keys][..], &shape];
        let out = self.run(&[&args.concat()[..], &["--", "sh", "-c", &script]].concat(), &archive);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let mut archive = tar::Archive::new(&out.stdout[..]);
        let file = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().file_name()?.to_str()?.to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            Some((name, content))
        };
        archive.entries().unwrap().filter_map(file).collect()
    }

    /// Verifies with what the user's own platform issues; the exit code.
    pub(crate) fn verify(&self, quote: &[u8]) -> (Option<i32>, String) {
        self.scratch.file("quote", quote);
        let out = self.run(&["attest", "verify", "quote", "--accept-software-platform", "--json"], b"");
        (out.status.code(), text(&out.stdout))
    }
}
