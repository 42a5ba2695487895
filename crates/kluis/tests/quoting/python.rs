//! The package `dcap-qvl` of PyPI as a judge: another release than the crate, by way of its
//! Python interface.

use crate::First;
use crate::common::{output_within, text};
use crate::user::now;
use dcap::pki::PckAuthority;
use dcap::{Collateral, Root, Time};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The release that judges; the crate of the same version is not published.
const RELEASE: &str = "dcap-qvl==0.7.0";

/// Judges what it reads, and says what it thinks.
const JUDGE: &str = r#"
import json, sys, dcap_qvl
def judge(case):
    try:
        quote, collateral = bytes.fromhex(case["quote"]), dcap_qvl.QuoteCollateralV3.from_json(case["collateral"])
        if case["root"] is None:
            report = dcap_qvl.verify(quote, collateral, case["at"])
        else:
            report = dcap_qvl.verify_with_root_ca(quote, collateral, bytes.fromhex(case["root"]), case["at"])
        return {"status": report.status, "advisories": report.advisory_ids, "ppid": report.ppid.hex()}
    except ValueError as error:
        return {"error": str(error)}
print(json.dumps([judge(case) for case in json.load(sys.stdin)]))
"#;

/// Python with the package, in an environment of its own.
fn python() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-judge");
    let program = folder.join("bin/python");
    let run = |command: &mut Command| {
        let out = output_within(Duration::from_secs(600), command, b"");
        assert!(out.status.success(), "{command:?}: {}{}", text(&out.stdout), text(&out.stderr));
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    run(Command::new(&program).args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:", RELEASE]));
    program
}

/// Something to judge, and what we think of it.
struct Case {
    name: String,
    quote: Vec<u8>,
    collateral: String,
    /// Without one, Intel's: the judge has it built in.
    root: Option<Root>,
    at: Time,
}

impl Case {
    fn ours(&self) -> Result<dcap::Verdict, dcap::Refusal> {
        let intel = Root::intel();
        let collateral = Collateral::from_json(&self.collateral)?;
        dcap::verify(&self.quote, &collateral, self.root.as_ref().unwrap_or(&intel), self.at)
    }

    fn json(&self) -> Value {
        let root = self.root.as_ref().map(|root| dcap::hex::encode(root.certificate().der()));
        json!({ "quote": dcap::hex::encode(&self.quote), "collateral": self.collateral, "root": root, "at": self.at.unix() })
    }
}

/// Quotes of real processors, and what is none any more.
fn genuine(cases: &mut Vec<Case>) {
    for (name, quote, collateral, window) in [
        (
            "real1",
            &include_bytes!("../../../dcap/testdata/real1/quote.bin")[..],
            include_str!("../../../dcap/testdata/real1/collateral.json"),
            [1_750_330_571, 1_752_919_278],
        ),
        (
            "real2",
            include_bytes!("../../../dcap/testdata/real2/quote.bin"),
            include_str!("../../../dcap/testdata/real2/collateral.json"),
            [1_748_430_000, 1_750_400_000],
        ),
    ] {
        let mut add = |what: &str, quote: &[u8], root: Option<Root>, at| {
            let (quote, collateral) = (quote.to_vec(), collateral.to_owned());
            let at = Time::from_unix(at).unwrap();
            cases.push(Case { name: format!("{name}, {what}"), quote, collateral, root, at });
        };
        for at in window {
            add("in time", quote, None, at);
            add("in time, with Intel's root given", quote, Some(Root::intel()), at);
        }
        add("too early", quote, None, 1_600_000_000);
        add("too late", quote, None, 1_900_000_000);
        for byte in [50, 100, 440, 510, 700, 1000, 1400] {
            let mut changed = quote.to_vec();
            changed[byte] ^= 1;
            add(&format!("byte {byte} changed"), &changed, None, window[0]);
        }
    }
}

/// Quotes of a platform of ours, made in a machine.
fn ours(cases: &mut Vec<Case>) {
    let first = First::machine();
    let root = || Root::from_pem(&first.files["root.pem"]).unwrap();
    let add = |cases: &mut Vec<Case>, what: &str, quote: &[u8], collateral: &[u8], root| {
        let (name, quote) = (format!("ours, {what}"), quote.to_vec());
        cases.push(Case { name, quote, collateral: text(collateral), root, at: now() });
    };
    let (quote, collateral) = (&first.files["quote"], &first.files["collateral.json"]);
    for name in ["quote", "quote.anew", "quote.aesm", "quote.intel"] {
        add(cases, name, &first.files[name], collateral, Some(root()));
    }
    add(cases, "under Intel's root", quote, collateral, None);
    let mut changed = quote.clone();
    changed[300] ^= 1;
    add(cases, "changed", &changed, collateral, Some(root()));
    // what the maker says of it later
    let user = first.user();
    let exported = |folder: &str| {
        user.works(&["platform", "export", folder]);
        std::fs::read(user.scratch.path(folder).join("collateral.json")).unwrap()
    };
    user.works(&["platform", "update", "--advisory", "KLUIS-SA-00008"]);
    add(cases, "with an advisory", quote, &exported("advised"), Some(root()));
    user.works(&["platform", "revoke"]);
    add(cases, "revoked", quote, &exported("revoked"), Some(root()));
}

#[test]
#[ignore = "installs a package from PyPI"]
fn the_python_package_has_our_verdicts() {
    let mut cases = Vec::new();
    genuine(&mut cases);
    ours(&mut cases);
    let input = serde_json::to_vec(&cases.iter().map(Case::json).collect::<Vec<_>>()).unwrap();
    let out = output_within(Duration::from_secs(60), Command::new(python()).args(["-c", JUDGE]), &input);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let theirs: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(theirs.len(), cases.len());
    let (mut good, mut statuses) = (0, Vec::new());
    for (case, theirs) in cases.iter().zip(&theirs) {
        println!("{}: {theirs}", case.name);
        match case.ours() {
            Ok(ours) => {
                good += 1;
                assert_eq!(theirs["status"], ours.tcb.status.to_string(), "{}", case.name);
                assert_eq!(theirs["advisories"], json!(ours.tcb.advisory_ids), "{}", case.name);
                assert_eq!(theirs["ppid"], dcap::hex::encode(&ours.platform.ppid), "{}", case.name);
                assert_eq!(ours.authority == PckAuthority::Processor, case.name.starts_with("real"));
                statuses.push(ours.tcb.status.to_string());
            }
            Err(refusal) => assert!(theirs["error"].is_string(), "{}: {refusal}, {theirs}", case.name),
        }
    }
    // not all is refused, and not all accepted
    assert_eq!((cases.len(), good), (34, 13));
    for status in ["UpToDate", "OutOfDate", "ConfigurationAndSWHardeningNeeded"] {
        assert!(statuses.iter().any(|seen| seen == status), "{status}");
    }
}
