//! `examples/signer`, and with it what sealing promises: a key outlasts its machine, and
//! stays on its processor, with its signer, and with no version before the one that used
//! it last.

mod common;

use common::example::Example;
use common::{output, text, turn};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the secrets of two processors are.
const HOME: &str = "home";
const ELSEWHERE: &str = "elsewhere";

/// The example, signed in the name of others.
struct Signed {
    example: Example,
}

impl Signed {
    fn new() -> Self {
        let example = Example::new("signer");
        std::fs::create_dir(example.user.path("keys")).unwrap();
        for machine in [HOME, ELSEWHERE] {
            // a key for development, which it would take its time to make
            let state = example.user.path(machine).join("kluis");
            std::fs::create_dir_all(&state).unwrap();
            let key = state.join("enclave-development.pem");
            std::fs::copy(signer("other"), &key).unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { example }
    }

    /// `kluis enclave` on a processor whose secrets are in the folder `machine`.
    fn enclave(&self, machine: &str, args: &[&str], input: &str) -> Output {
        let mut command = self.example.enclave(args);
        command.env("XDG_STATE_HOME", self.example.user.at(machine)).env_remove("KLUIS_PLATFORM");
        let out = output(&mut command, input.as_bytes());
        println!("{machine}: {args:?}\n{}{}", text(&out.stdout), text(&out.stderr));
        out
    }

    /// Runs the host program; its exit code and what it says.
    fn run(&self, machine: &str, arguments: &[&str], input: &str) -> (Option<i32>, String) {
        let keys = format!("{}:/keys", self.example.user.at("keys"));
        let run = ["run", "--quiet", "--timeout", "500s", "--memory", "256M", "--share", &keys, "--"];
        let out = self.enclave(machine, &[&run[..], arguments].concat(), input);
        (out.status.code(), text(&out.stdout))
    }

    fn sign(&self, machine: &str, payment: &str) -> (Option<i32>, String) {
        self.run(machine, &["sign", "/keys"], payment)
    }

    /// Signs the enclave itself, as a version of a signer's.
    fn signed_by(&self, signer: &str, svn: &str) {
        let key = self::signer(signer);
        let out = self.enclave(HOME, &["sign", "signer", "--key", key.to_str().unwrap(), "--svn", svn], "");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    }

    /// Whether OpenSSL takes the signature of an order, and what it is.
    fn order(&self, number: u32) -> (bool, String) {
        let order = self.example.user.at(&format!("keys/order-{number}"));
        let verify = Command::new("openssl")
            .args(["dgst", "-sha256", "-keyform", "DER", "-verify", &self.example.user.at("keys/key.pub")])
            .args(["-signature", &format!("{order}.sig"), &order])
            .output();
        (verify.unwrap().status.success(), std::fs::read_to_string(order).unwrap())
    }
}

/// The file of a signer's key, for tests alone: everybody has it.
fn signer(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/enclave-keys").join(name).with_extension("pem")
}

#[test]
fn a_key_stays_on_its_processor_with_its_signer_and_its_version() {
    let _turn = turn();
    let signed = Signed::new();
    let built = signed.enclave(HOME, &["build"], "");
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    signed.signed_by("one", "1");

    // sealed in one machine
    let (code, said) = signed.run(HOME, &["create", "/keys", "500", "1200"], "");
    assert_eq!(code, Some(0), "{said}");

    // opened in the next, within the policy
    let payments = "500 Ada\n501 Ada\n1 Ada/Eve\n400 Bob-2 Ltd\n301 Ada\n";
    let (code, said) = signed.sign(HOME, payments);
    assert_eq!(code, Some(1), "{said}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert_eq!(lines[0], "signed order 1: pay 500 cents to Ada, 500 in all");
    assert_eq!(lines[1], "refused 501 Ada: the key signs payments of up to 500 cents");
    assert!(lines[2].starts_with("refused 1 Ada/Eve: the payee"), "{said}");
    assert_eq!(lines[3], "signed order 2: pay 400 cents to Bob-2 Ltd, 900 in all");
    assert_eq!(lines[4], "refused 301 Ada: 300 cents are left of what the key signs in all");
    assert_eq!(signed.order(1), (true, "order 1: pay 500 cents to Ada, 500 in all\n".into()));
    assert!(signed.order(2).0);
    std::fs::write(signed.example.user.path("keys/order-2"), "order 2: pay 4 cents to Eve, 504 in all\n")
        .unwrap();
    assert!(!signed.order(2).0);

    // not on another processor
    let refused =
        (Some(1), "refused 1 Ada: the key is of another machine or signer, or was changed\n".into());
    assert_eq!(signed.sign(ELSEWHERE, "1 Ada\n"), refused);

    // not for another signer, of the same enclave
    signed.signed_by("other", "1");
    assert_eq!(signed.sign(HOME, "1 Ada\n"), refused);

    // by a later version, which seals it again
    signed.signed_by("one", "2");
    assert_eq!(
        signed.sign(HOME, "1 Ada\n"),
        (Some(0), "signed order 3: pay 1 cents to Ada, 901 in all\n".into())
    );

    // no longer by the earlier one
    signed.signed_by("one", "1");
    let later = "a later version of the enclave has sealed the key: run that, or a still later one";
    assert_eq!(signed.sign(HOME, "1 Ada\n"), (Some(1), format!("refused 1 Ada: {later}\n")));

    // and what the enclave's own tests say, inside
    let out = signed.enclave(HOME, &["test", "--quiet", "--timeout", "500s", "--memory", "256M"], "");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    assert!(text(&out.stdout).contains("4 passed; 0 failed"), "{}", text(&out.stdout));
}
