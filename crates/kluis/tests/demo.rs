//! `kluis demo`: the story holds, it is told as text and as data, and it fails at the right
//! place when a check is left out.

mod common;

use common::example::{Example, target};
use common::{kluis, output_within, text, turn};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

/// Cargo builds the enclave, once.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Who sees the demo, with a signer's key of the tests' own.
struct Seer(Example);

impl Seer {
    fn new() -> Self {
        let example = Example::new("clinic");
        std::fs::create_dir(example.user.path("tmp")).unwrap();
        Self(example)
    }

    fn demo(&self) -> Command {
        let user = &self.0.user;
        let mut command = kluis();
        command
            .arg("demo")
            .env("CARGO_TARGET_DIR", target())
            .env("XDG_STATE_HOME", user.at("state"))
            .env("XDG_RUNTIME_DIR", user.at(""))
            .env("TMPDIR", user.at("tmp"));
        command
    }

    fn left(&self) -> usize {
        std::fs::read_dir(self.0.user.path("tmp")).unwrap().count()
    }
}

fn run(command: &mut Command) -> Output {
    output_within(PATIENCE, command, b"")
}

#[cfg(not(feature = "unchecked"))]
#[test]
fn the_enclave_passes_its_own_tests() {
    let _turn = turn();
    let example = Example::new("clinic");
    example.unit_tests("clinic-records");
    example.works(&["test"]);
}

#[cfg(not(feature = "unchecked"))]
#[test]
fn the_story_holds_and_nothing_is_left() {
    let _turn = turn();
    let seer = Seer::new();
    let out = run(seer.demo().arg("--json"));
    assert_eq!(out.status.code(), Some(0), "{}{}", text(&out.stdout), text(&out.stderr));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    println!("{told:#}");
    assert_eq!((&told["held"], told.get("unmet")), (&true.into(), None));
    let steps = told["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 12);
    let checks: Vec<&Value> = steps.iter().flat_map(|step| step["checks"].as_array().unwrap()).collect();
    assert!(checks.len() > 30, "{}", checks.len());
    // each refusal names the rule that was broken
    for rule in ["mrenclave", "debug", "security-version", "foreign-root", "report-data"] {
        let named = |check: &&&Value| check["what"].as_str().unwrap().ends_with(&format!("[{rule}]"));
        assert_eq!(checks.iter().filter(named).count(), 1, "{rule}");
    }
    for word in ["SGX_INVALID_MEASUREMENT", "locked"] {
        assert!(checks.iter().any(|check| check["what"].as_str().unwrap().contains(word)), "{word}");
    }
    assert_eq!(seer.left(), 0, "files are left");
}

#[cfg(not(feature = "unchecked"))]
#[test]
fn it_ends_when_it_is_told_to() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let _turn = turn();
    let seer = Seer::new();
    let mut told = seer.demo().stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(told.stdout.take().unwrap()).lines();
    // a machine starts
    assert!(lines.any(|line| line.unwrap().contains("2  A Standard_DC1s_v2 starts")));
    let number = rustix::process::Pid::from_child(&told);
    rustix::process::kill_process(number, rustix::process::Signal::INT).unwrap();
    assert_eq!(told.wait().unwrap().code(), Some(130));
    assert_eq!(seer.left(), 0, "files are left");
}

/// With each check left out the demo says so: exit code 1, and what does not hold.
#[cfg(feature = "unchecked")]
#[test]
fn without_a_check_the_demo_fails() {
    let _turn = turn();
    let seer = Seer::new();
    let without = |(check, step): (&str, usize)| {
        let out = run(seer.demo().arg("--json").env("KLUIS_WITHOUT", check));
        let told = format!("{check}: {}{}", text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(1), "{told}");
        let story: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(story["held"], false, "{told}");
        assert_eq!(story["steps"].as_array().unwrap().len(), step, "{told}");
        println!("without {check}: {}", story["unmet"]);
    };
    // whatever is built is built before two are told at a time
    without(("encryption", 1));
    let checks = [
        ("abort-page", 3),
        ("measurement", 7),
        ("mrenclave", 7),
        ("debug", 8),
        ("sealed-version", 9),
        ("security-version", 9),
        ("foreign-root", 10),
        ("report-data", 11),
        ("integrity", 12),
    ];
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || checks.into_iter().skip(half).step_by(2).for_each(without));
        }
    });
}
