//! `examples/signer`, and with it what sealing promises: a key outlasts its machine, and
//! stays on its processor, with its signer, and with no version before the one that used
//! it last.

mod common;

use common::example::{Example, signer};
use common::{kluis, output, text, turn};
use std::process::{Command, Output};

/// Where the secrets of two processors are.
const HOME: &str = "state";
const ELSEWHERE: &str = "elsewhere";

/// The example, and its enclave signed in the name of others.
struct Signed {
    example: Example,
}

impl Signed {
    fn new() -> Self {
        let example = Example::new("signer");
        std::fs::create_dir(example.user.path("keys")).unwrap();
        Self { example }
    }

    /// A command on a processor whose secrets are in the folder `machine`.
    fn on(&self, machine: &str, command: &mut Command) -> Output {
        command.env("XDG_STATE_HOME", self.example.user.at(machine)).env_remove("KLUIS_PLATFORM");
        let out = output(command, b"");
        println!("{machine}: {command:?}\n{}{}", text(&out.stdout), text(&out.stderr));
        out
    }

    /// `kluis enclave` on the processor at home.
    fn enclave(&self, args: &[&str]) -> String {
        let out = self.on(HOME, &mut self.example.enclave(args));
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Makes a folder with the enclave as a version of a signer's, and its host program.
    fn version(&self, signer: &str, svn: &str) {
        let folder = self.example.user.path("versions").join(format!("{signer}-{svn}"));
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["signer-host", "signer.sgxs"] {
            std::fs::copy(self.example.built().join(file), folder.join(file)).unwrap();
        }
        let (key, signature) = (self::signer(signer), folder.join("signer.sig"));
        let [key, signature] = [&key, &signature].map(|path| path.to_str().unwrap());
        self.enclave(&["sign", "signer", "--key", key, "--svn", svn, "--output", signature]);
    }

    /// Runs host programs of versions in one machine, `(version, payments)`; the lines that
    /// they say, and after each the exit code.
    fn sign(&self, machine: &str, runs: &[(&str, &str)]) -> Vec<String> {
        let [keys, versions] =
            ["keys", "versions"].map(|name| format!("{}:/{name}", self.example.user.at(name)));
        let script: String = runs
            .iter()
            .map(|(version, payments)| {
                format!("cd /versions/{version}; printf '{payments}' | ./signer-host sign /keys; echo ends with $?\n")
            })
            .collect();
        let mut command = kluis();
        command
            .env("XDG_RUNTIME_DIR", self.example.user.at(""))
            .args(["run", "--quiet", "--timeout", "500s", "--memory", "256M"])
            .args(["--share", &keys, "--share", &versions, "--", "sh", "-c", &script]);
        let out = self.on(machine, &mut command);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        text(&out.stdout).lines().map(String::from).collect()
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

#[test]
fn a_key_stays_on_its_processor_with_its_signer_and_its_version() {
    let _turn = turn();
    let signed = Signed::new();

    // sealed in one machine, by version 1 of signer one
    let keys = format!("{}:/keys", signed.example.user.at("keys"));
    let machine = ["--quiet", "--timeout", "500s", "--memory", "256M"];
    let create = ["--share", &keys, "--", "create", "/keys", "500", "1200"];
    signed.enclave(&[&["run"], &machine[..], &create].concat());
    for (signer, svn) in [("one", "1"), ("one", "2"), ("other", "1")] {
        signed.version(signer, svn);
    }

    // opened in the next, within the policy
    let payments = r"500 Ada\n501 Ada\n1 Ada/Eve\n400 Bob-2 Ltd\n301 Ada\n";
    let said = signed.sign(
        HOME,
        &[
            ("one-1", payments),
            // not for another signer, of the same enclave
            ("other-1", r"1 Ada\n"),
            // by a later version, which seals it again
            ("one-2", r"1 Ada\n"),
            // no longer by the earlier one
            ("one-1", r"1 Ada\n"),
        ],
    );
    const NOT_HERE: &str = "refused 1 Ada: the key is of another machine or signer, or was changed";
    assert_eq!(
        said,
        [
            "signed order 1: pay 500 cents to Ada, 500 in all",
            "refused 501 Ada: the key signs payments of up to 500 cents",
            "refused 1 Ada/Eve: the payee is no name of 1 to 64 letters, digits, spaces and -",
            "signed order 2: pay 400 cents to Bob-2 Ltd, 900 in all",
            "refused 301 Ada: 300 cents are left of what the key signs in all",
            "ends with 1",
            NOT_HERE,
            "ends with 1",
            "signed order 3: pay 1 cents to Ada, 901 in all",
            "ends with 0",
            "refused 1 Ada: a later version of the enclave has sealed the key: run that, or a still later one",
            "ends with 1",
        ]
    );
    assert_eq!(signed.order(1), (true, "order 1: pay 500 cents to Ada, 500 in all\n".into()));
    assert!(signed.order(2).0 && signed.order(3).0);
    let forged = signed.example.user.path("keys/order-2");
    std::fs::write(forged, "order 2: pay 4 cents to Eve, 504 in all\n").unwrap();
    assert!(!signed.order(2).0);

    // not on another processor, by the version that has sealed it
    assert_eq!(signed.sign(ELSEWHERE, &[("one-2", r"1 Ada\n")]), [NOT_HERE, "ends with 1"]);

    // and what the enclave's own tests say, inside
    let said = signed.enclave(&[&["test"], &machine[..]].concat());
    assert!(said.contains("4 passed; 0 failed"), "{said}");
}
