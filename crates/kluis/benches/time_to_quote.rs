//! From an enclave's start to its verified quote: how long each step takes, in a machine of
//! the smallest size, seen from outside.
//!
//! ```sh
//! cargo bench -p kluis --bench time_to_quote -- [ROUNDS]
//! ```

#[path = "../tests/common/mod.rs"]
mod common;

use common::session::Session;
use common::{Scratch, checked, guest, kluis, output, text, turn};
use dcap::{Collateral, Root, TcbStatus, Time};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the guest does, telling each step's end. The service is ready when it has loaded its
/// enclaves and made its key, which the first client waits for.
const SCRIPT: &str = "
set -e; cd /tmp
echo up
/files/aesm-check own target > target
echo ready
for round in $(seq ROUNDS); do
    read go
    /files/aesm-check own target > target
    echo target
    /files/enclave-check /files/closed.sgxs /files/closed.sig report target report
    echo report
    /files/aesm-check own quote report > quote
    echo quote
    echo \"bytes $(hexdump -ve '1/1 \"%02x\"' quote)\"
done
";

/// The steps of a round, as they are printed.
const STEPS: [&str; 5] = [
    "target information, by AESM",
    "enclave started, report made",
    "quote made, by AESM",
    "quote outside",
    "quote verified, by dcap",
];

fn seconds(time: Duration) -> String {
    format!("{:>9.3} ms", time.as_secs_f64() * 1e3)
}

fn main() {
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(5_usize).max(1);
    let user = Scratch::new();
    let platform = user.path("platform");
    let command = |args: &[&str]| {
        let mut command = kluis();
        command.env("KLUIS_PLATFORM", &platform).env("XDG_RUNTIME_DIR", user.at("")).args(args);
        command
    };
    let public = user.at("public");
    for args in [&["platform", "init"][..], &["platform", "export", &public]] {
        let out = output(&mut command(args), b"");
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    let read = |name: &str| std::fs::read(user.path("public").join(name)).unwrap();
    let root = Root::from_pem(&read("root.pem")).unwrap();
    let collateral = text(&read("collateral.json"));
    let closed = checked::enclave(serde_json::json!({ "debug": false }), 0);
    let aesm_check = std::fs::read(guest::program("aesm-check")).unwrap();
    std::fs::create_dir(user.path("files")).unwrap();
    for (name, content) in [
        ("enclave-check", checked::host()),
        ("aesm-check", &aesm_check),
        ("closed.sgxs", &closed.0),
        ("closed.sig", &closed.1),
    ] {
        let file = user.file(&format!("files/{name}"), content);
        std::fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }
    let share = format!("{}:/files:ro", user.at("files"));

    let _turn = turn();
    let start = Instant::now();
    let script = SCRIPT.replace("ROUNDS", &rounds.to_string());
    let shape = ["--size", "Standard_DC1s_v2", "--network", "none", "--share", &share];
    let args = [&["run", "--quiet"], &shape[..], &["--", "sh", "-c", &script]].concat();
    let mut machine = Session::start(&mut command(&args));
    machine.hear("up");
    println!("Standard_DC1s_v2, {rounds} rounds");
    println!("{}  machine up", seconds(start.elapsed()));
    let loaded = Instant::now();
    machine.hear("ready");
    println!("{}  AESM ready: its enclaves loaded, its key made and certified", seconds(loaded.elapsed()));

    let mut times: [Vec<Duration>; STEPS.len()] = Default::default();
    let mut sums = Vec::new();
    for _ in 0..rounds {
        machine.say("go\n");
        let mut last = Instant::now();
        let mut step = |times: &mut Vec<Duration>| {
            let now = Instant::now();
            times.push(now - last);
            last = now;
        };
        let [target, report, quote, outside, verified] = &mut times;
        machine.hear("target");
        step(target);
        machine.hear("report");
        step(report);
        machine.hear("quote");
        step(quote);
        let bytes = dcap::hex::decode(&machine.hear_after("bytes "), "quote").unwrap();
        step(outside);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let collateral = Collateral::from_json(&collateral).unwrap();
        let verdict = dcap::verify(&bytes, &collateral, &root, Time::from_unix(now).unwrap()).unwrap();
        assert_eq!(verdict.tcb.status, TcbStatus::UpToDate);
        step(verified);
        // from the start of the enclave on
        sums.push([report, quote, outside, verified].iter().map(|times| times[times.len() - 1]).sum());
    }
    let (status, _, errors) = machine.end();
    assert!(status.success(), "{errors}");
    println!("median, least and most of the rounds:");
    let named = STEPS.into_iter().zip(&mut times);
    for (name, times) in named.chain([("from the enclave's start to its verified quote", &mut sums)]) {
        times.sort_unstable();
        let [median, least, most] = [times.len() / 2, 0, times.len() - 1].map(|at| seconds(times[at]));
        println!("{median} {least} {most}  {name}");
    }
}
