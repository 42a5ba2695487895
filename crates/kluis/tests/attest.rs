//! `kluis attest`, and the platform as maker, through the built command.

mod common;

use common::{Scratch, kluis, output, text};
use dcap::Time;
use manufacturer::Manufacturer;
use manufacturer::testing::{quote_of, report};
use serde_json::Value;
use sgx_abi::{AttributeFlags, ReportBody};
use std::cell::RefCell;
use std::fs;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

const REAL: &[u8] = include_bytes!("../../dcap/testdata/real1/quote.bin");
const REAL_COLLATERAL: &str = include_str!("../../dcap/testdata/real1/collateral.json");
const TDX: &[u8] = include_bytes!("../../dcap/testdata/tdx1/quote.bin");
/// A time at which that collateral is valid.
const THEN: &str = "2025-06-20T00:00:00Z";

/// A user of a platform of their own, and all that was said to them.
struct User {
    scratch: Scratch,
    said: RefCell<String>,
}

impl User {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.file("real", REAL);
        scratch.file("collateral", REAL_COLLATERAL);
        Self { scratch, said: RefCell::default() }
    }

    /// Runs `kluis` in the user's folder.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = kluis();
        command.current_dir(self.scratch.path("")).env("KLUIS_PLATFORM", self.scratch.path("p")).args(args);
        let out = output(&mut command, b"");
        self.said.borrow_mut().push_str(&(text(&out.stdout) + &text(&out.stderr)));
        out
    }

    fn works(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.works(&[args, &["--json"]].concat())).unwrap()
    }

    /// What is refused with a code, in one line with these words.
    #[track_caller]
    fn refused(&self, code: u8, args: &[&str], words: &[&str]) {
        let out = self.run(args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code.into()), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
        // the same as data
        if code > 2 && args[1] == "verify" {
            let out = self.run(&[args, &["--json"]].concat());
            assert_eq!(out.status.code(), Some(code.into()));
            let report: Value = serde_json::from_slice(&out.stdout).unwrap();
            assert_eq!(report["accepted"], false);
            assert_eq!(report["refusal"]["exit_code"], code);
            assert!(said.contains(&format!("[{}]", report["refusal"]["rule"].as_str().unwrap())), "{said}");
        }
    }

    /// A quote of the user's platform of today, in the file `own`.
    fn quote(&self, change: impl FnOnce(&mut ReportBody)) {
        let maker = Manufacturer::open(&self.scratch.path("p")).unwrap().unwrap();
        let mut report = report();
        change(&mut report);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let quote = quote_of(&maker, &report, Time::from_unix(now).unwrap()).unwrap();
        self.scratch.file("own", quote.to_bytes().unwrap());
    }
}

fn verify<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["attest", "verify", "real", "--collateral", "collateral", "--at", THEN], more].concat()
}

#[test]
fn genuine_quotes_are_accepted_by_a_policy_and_refused_with_a_code_each() {
    let user = User::new();
    let policy = |text: &str| user.scratch.file("policy", text);
    let accepting = "\"accept_tcb\":[\"ConfigurationAndSWHardeningNeeded\"]";
    user.refused(
        19,
        &verify(&[]),
        &["ConfigurationAndSWHardeningNeeded", "INTEL-SA-00289", "tcb-not-accepted", "--policy"],
    );
    policy(&format!("{{{accepting}}}"));
    let with_policy = verify(&["--policy", "policy"]);
    let people = user.works(&with_policy);
    for word in ["genuine, and accepted", "\"Intel SGX Root CA\"", "33d8736d", "INTEL-SA-00615"] {
        assert!(people.contains(word), "{word} is not in {people}");
    }
    assert!(!people.contains("software"), "{people}");
    let report = user.json(&with_policy);
    assert_eq!(report["accepted"], true);
    assert_eq!(report["refusal"], Value::Null);
    let verdict = &report["verdict"];
    assert_eq!(verdict["tcb"]["status"], "ConfigurationAndSWHardeningNeeded");
    assert_eq!((&verdict["software_platform"], &verdict["authority"]), (&false.into(), &"processor".into()));
    // "Hello, world!"
    assert!(verdict["enclave"]["report_data"].as_str().unwrap().starts_with("48656c6c6f2c20776f726c6421"));

    let mrenclave = format!("\"mrenclave\":\"{}\"", "0".repeat(64));
    for (field, code, rule) in [
        (mrenclave.as_str(), 21, "mrenclave"),
        ("\"min_isv_svn\":9000", 21, "security-version"),
        ("\"isv_prod_id\":9", 21, "product-id"),
        ("\"report_data\":\"0011\"", 22, "report-data"),
    ] {
        policy(&format!("{{{accepting},{field}}}"));
        user.refused(code, &with_policy, &["real: enclave:", rule]);
    }

    let mut changed = REAL.to_vec();
    changed[60] ^= 1;
    for (quote, code, words) in [
        (&REAL[..1000], 11, ["truncated", "get the file again"]),
        (&[0; (64 << 10) + 1][..], 12, ["oversized", "65536"]),
        (b"{", 11, ["truncated", "version"]),
        (b"{}", 13, ["quote-version", "32123"]),
        (&[3; 2000], 13, ["quote-version", "inspect"]),
        (TDX, 13, ["tee-type", "TDX 1.0"]),
        (&changed, 14, ["quote-signature", "do not believe it"]),
    ] {
        user.scratch.file("bad", quote);
        let args = ["attest", "verify", "bad", "--collateral", "collateral", "--at", THEN];
        user.refused(code, &args, &words);
    }
    user.scratch.file("bad", "{}");
    user.refused(
        10,
        &["attest", "verify", "real", "--collateral", "bad"],
        &["encoding", "pck_crl_issuer_chain"],
    );
    user.refused(16, &["attest", "verify", "real", "--collateral", "collateral"], &["crl-expired", "newer"]);
}

#[test]
fn options_that_cannot_be_used_are_named() {
    let user = User::new();
    user.refused(2, &["attest", "verify", "none"], &["cannot read none"]);
    user.refused(2, &["attest", "verify", "real"], &["no collateral", "--collateral FILE"]);
    user.refused(2, &verify(&["--root", "collateral"]), &["--root collateral is none"]);
    user.refused(2, &verify(&["--policy", "real"]), &["--policy real is none"]);
    user.scratch.file("policy", "{\"mrsinger\":\"77\"}");
    user.refused(2, &verify(&["--policy", "policy"]), &["mrsinger"]);
    user.refused(2, &["attest", "verify", "real", "--at", "soon"], &["--at soon is no time", "2026-01-31"]);
    user.refused(2, &["attest", "verify", "."], &["cannot read .", "directory"]);
    user.refused(2, &["attest", "inspect", "none"], &["cannot read none"]);
    assert!(!user.scratch.path("p").exists(), "looking makes no platform");
}

#[test]
fn inspecting_tells_what_is_there_and_believes_nothing() {
    let user = User::new();
    let people = user.works(&["attest", "inspect", "real"]);
    for word in ["not verified", "version 3, SGX: enclave", "33d8736d", "\"Intel SGX Root CA\"", "FMSPC"] {
        assert!(people.contains(word), "{word} is not in {people}");
    }
    let report = user.json(&["attest", "inspect", "real"]);
    assert_eq!((&report["verified"], &report["certification_data"]), (&false.into(), &5.into()));
    assert_eq!(report["certificates"].as_array().unwrap().len(), 3);
    // a changed one is as good
    let mut changed = REAL.to_vec();
    changed[200] ^= 1;
    user.scratch.file("changed", changed);
    user.works(&["attest", "inspect", "changed"]);
    user.scratch.file("tdx", TDX);
    let people = user.works(&["attest", "inspect", "tdx"]);
    assert!(people.contains("version 4, TDX: trust domain") && people.contains("RTMR3"), "{people}");
    user.scratch.file("cut", &REAL[..500]);
    user.refused(11, &["attest", "inspect", "cut"], &["truncated"]);
}

#[test]
fn the_users_own_platform_is_a_maker() {
    let user = User::new();
    let made = user.json(&["platform", "init"]);
    assert_eq!(made["attestation"]["fmspc"], "4b4c55490001");
    assert_eq!(made["attestation"]["advisories"], Value::Array(vec![]));
    user.quote(|_| ());
    let own = ["attest", "verify", "own"];
    let accepted = ["attest", "verify", "own", "--accept-software-platform"];
    user.refused(18, &own, &["software platform", "whose owner can read every enclave", "--accept-software"]);
    assert!(user.works(&accepted).contains("(a software platform)"));

    // somebody else, who was given the files
    let exported = user.json(&["platform", "export", "public"]);
    assert!(exported["exported"]["valid_until"].is_string());
    let other = User::new();
    for file in ["root.pem", "collateral.json", "pck-chain.pem"] {
        other.scratch.file(file, fs::read(user.scratch.path("public").join(file)).unwrap());
    }
    let quote = fs::read(user.scratch.path("own")).unwrap();
    other.scratch.file("quote", &quote);
    let elsewhere = ["attest", "verify", "quote", "--collateral", "collateral.json"];
    other.refused(15, &elsewhere, &["foreign-root", "Kluis SGX Root CA", "--root FILE"]);
    other.refused(15, &[&elsewhere[..], &["--accept-software-platform"]].concat(), &["foreign-root"]);
    other.works(&[&elsewhere[..], &["--root", "root.pem"]].concat());
    other.json(&["platform", "init"]);
    other.refused(15, &elsewhere, &["foreign-root"]);
    let intel =
        ["attest", "verify", "real", "--collateral", "collateral", "--root", "root.pem", "--at", THEN];
    other.refused(15, &intel, &["Intel SGX Root CA"]);

    user.quote(|report| report.attributes.flags |= AttributeFlags::DEBUG);
    user.refused(20, &accepted, &["DEBUG", "[debug]"]);

    // the drills
    user.quote(|_| ());
    let advised = user.json(&["platform", "update", "--advisory", "KLUIS-SA-00001"]);
    assert_eq!(advised["attestation"]["advisories"], serde_json::json!(["KLUIS-SA-00001"]));
    user.refused(2, &["platform", "update", "--advisory", "KLUIS-SA-00001"], &["published already"]);
    user.refused(2, &["platform", "update", "--advisory", "what now?"], &["no name of an advisory"]);
    user.refused(19, &accepted, &["OutOfDate", "KLUIS-SA-00001"]);
    assert!(user.works(&["platform", "show"]).contains("out of date: KLUIS-SA-00001"));
    user.works(&["platform", "update", "--svn-up"]);
    user.refused(19, &accepted, &["OutOfDate"]);
    user.quote(|_| ());
    user.works(&accepted);
    let revoked = user.json(&["platform", "revoke"]);
    assert_eq!(revoked["attestation"]["revoked"], true);
    user.refused(17, &accepted, &["PCK certificate", "revoked"]);
    user.refused(2, &["platform", "revoke"], &["revoked already", "--svn-up"]);
    // whoever has yesterday's lists does not know
    other.works(&[&elsewhere[..], &["--root", "root.pem"]].concat());

    // nobody was told a secret
    let roots = fs::read(user.scratch.path("p/roots")).unwrap();
    let told = user.said.borrow().to_lowercase();
    let key = String::from_utf8_lossy(&roots[16 + 122..]).lines().nth(2).unwrap().to_lowercase();
    assert!(key.len() == 64 && !told.contains(&key));
    // the fuses and the end of the chain, 8 bytes at a time
    for secret in roots[16 + 32..16 + 80].windows(8).chain(roots[16 + 88..16 + 120].windows(8)) {
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!told.contains(&hex), "{hex}");
    }
}

/// A platform of an earlier version: `roots` as it was written then.
#[test]
fn an_older_platform_becomes_a_maker_in_place() {
    use sha2::{Digest, Sha256};
    let user = User::new();
    user.works(&["platform", "init"]);
    let file = user.scratch.path("p/roots");
    let new = fs::read(&file).unwrap();
    let mut old = new[..16 + 120].to_vec();
    old[8..16].copy_from_slice(&[1, 0, 0, 0, 120, 0, 0, 0]);
    let sum = Sha256::digest(&old);
    old.extend_from_slice(&sum);
    fs::write(&file, &old).unwrap();
    let shown = user.json(&["platform", "show"]);
    assert_eq!(shown["attestation"], Value::Null);
    assert_eq!(fs::read(&file).unwrap(), old, "looking changes nothing");
    let exported = user.json(&["platform", "export", "public"]);
    assert_eq!(exported["id"], shown["id"]);
    assert!(exported["attestation"]["root_fingerprint"].is_string());
    let upgraded = fs::read(&file).unwrap();
    assert_eq!(upgraded[16..16 + 120], old[16..16 + 120], "the secrets are the same");
    user.quote(|_| ());
    user.works(&["attest", "verify", "own", "--accept-software-platform"]);
}
