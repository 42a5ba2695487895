//! `kluis platform` and `kluis sizes`, through the built command.

mod common;

use common::{HANG, Scratch, kernel, kluis, output, text};
use serde_json::Value;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Output;
use std::thread;

/// A user of a folder of their own.
struct User {
    scratch: Scratch,
}

impl User {
    fn new() -> Self {
        let user = Self { scratch: Scratch::new() };
        user.scratch.file("words", "correct horse\n");
        user
    }

    /// Runs `kluis` with these arguments, on the platform in folder `p`.
    fn run(&self, args: &[&str]) -> Output {
        output(kluis().env("KLUIS_PLATFORM", self.scratch.path("p")).args(args), b"")
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[&["--json", "platform"], args].concat());
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// What must be refused, in one line.
    #[track_caller]
    fn refused(&self, args: &[&str], words: &[&str]) {
        let out = self.run(&[&["platform"], args].concat());
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!((said.lines().count(), text(&out.stdout).as_str()), (1, ""), "{said}");
        for word in words {
            assert!(said.contains(word), "{word:?} is not in {said:?}");
        }
    }

    fn at(&self, name: &str) -> String {
        self.scratch.at(name)
    }

    fn roots(&self) -> Vec<u8> {
        fs::read(self.scratch.path("p/roots")).unwrap()
    }
}

#[test]
fn platform_is_made_once_and_shown_without_its_secrets() {
    let user = User::new();
    user.refused(&["show"], &["no platform", "kluis platform init", "restore"]);
    assert!(!user.scratch.path("p").exists(), "looking makes nothing");
    let out = user.run(&["platform", "init"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("kluis platform backup FILE"));
    let mode = |name: &str| fs::metadata(user.scratch.path(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("p"), mode("p/roots")), (0o700, 0o600));
    let before = user.roots();
    user.refused(&["init"], &["already", "--platform"]);
    assert_eq!(user.roots(), before);

    let shown = user.json(&["show"]);
    assert_eq!(shown["location"], user.at("p"));
    assert_eq!((&shown["svn"], &shown["owner_epoch_number"]), (&1.into(), &1.into()));
    assert_eq!(shown["kind"], "software");
    assert_eq!(shown["cpusvn"], "01000000000000000000000000000000");
    let people = text(&user.run(&["platform", "show"]).stdout);
    let id = shown["id"].as_str().unwrap();
    assert!(people.contains(id) && people.contains("not Intel's root"), "{people}");
    // 8 bytes of the file after the identity and the times, in any notation
    let told = format!("{shown}{people}").to_lowercase();
    for secret in before[16 + 32..].windows(8).filter(|w| w.iter().any(|&b| b != 0)) {
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!told.contains(&hex), "{hex}");
    }
}

#[test]
fn option_wins_over_the_variable_and_that_over_the_state_folder() {
    let user = User::new();
    let show = |args: &[&str], variable: &str| {
        let mut command = kluis();
        command.env("KLUIS_PLATFORM", variable).env("XDG_STATE_HOME", user.at("state"));
        let out = output(command.args(args).args(["platform", "init", "--json"]), b"");
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let report: Value = serde_json::from_slice(&out.stdout).unwrap();
        report["location"].as_str().unwrap().to_owned()
    };
    assert_eq!(show(&["--platform", &user.at("a")], &user.at("b")), user.at("a"));
    assert_eq!(show(&[], &user.at("b")), user.at("b"));
    assert_eq!(show(&[], ""), user.at("state/kluis/platform"));

    let out = output(kluis().env_clear().args(["platform", "show"]), b"");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("HOME"), "{}", text(&out.stderr));
}

#[test]
fn open_damaged_and_later_files_are_refused() {
    let user = User::new();
    user.json(&["init"]);
    let roots = user.scratch.path("p/roots");
    fs::set_permissions(&roots, Permissions::from_mode(0o644)).unwrap();
    user.refused(&["show"], &["open to others", "0644", "chmod 600"]);
    fs::set_permissions(&roots, Permissions::from_mode(0o600)).unwrap();
    let good = user.roots();
    fs::write(&roots, &good[..100]).unwrap();
    user.refused(&["show"], &["damaged", "restore --replace"]);
    user.refused(&["update", "--svn-up"], &["damaged"]);
    let mut later = good.clone();
    later[8] = 9;
    fs::write(&roots, later).unwrap();
    user.refused(&["show"], &["format 9", "later"]);
    fs::write(&roots, good).unwrap();
    user.json(&["show"]);
}

#[test]
fn lost_platform_comes_back_from_its_backup() {
    let user = User::new();
    let (words, file) = (user.at("words"), user.at("backup"));
    let backup = ["backup", &file, "--passphrase-file", &words];
    let restore = ["restore", &file, "--passphrase-file", &words];
    user.refused(&backup, &["no platform"]);
    user.json(&["init"]);
    let made = user.json(&["update", "--svn-up"]);
    assert_eq!(made["svn"], 2);
    assert_eq!(user.json(&backup)["backup"], file.as_str());
    user.refused(&backup, &["exists", "another name"]);
    let roots = user.roots();
    user.refused(&restore, &["already", "--replace"]);

    fs::remove_dir_all(user.scratch.path("p")).unwrap();
    user.scratch.file("wrong", "correct house\n");
    user.refused(&["restore", &file, "--passphrase-file", &user.at("wrong")], &["passphrase"]);
    assert!(!user.scratch.path("p").exists());
    assert_eq!(user.json(&restore)["id"], made["id"]);
    assert_eq!(user.roots(), roots, "the same to the last bit");

    user.json(&["update", "--new-owner-epoch"]);
    let replaced = user.json(&[&restore[..], &["--replace"]].concat());
    assert_eq!(user.roots(), roots);
    let aside = replaced["replaced"].as_str().unwrap();
    assert_ne!(fs::read(aside).unwrap(), roots);

    user.refused(&["restore", &user.at("none"), "--passphrase-file", &words], &["none", "check the path"]);
    user.refused(&["restore", &words, "--replace", "--passphrase-file", &words], &["no backup"]);
    user.scratch.file("short", "1234567");
    user.refused(&["backup", &user.at("b2"), "--passphrase-file", &user.at("short")], &["7 bytes", "8"]);
    assert!(!user.scratch.path("b2").exists());
}

#[test]
fn concurrent_updates_are_all_done_and_none_while_a_machine_runs() {
    let user = User::new();
    user.json(&["init"]);
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| user.json(&["update", "--svn-up"]));
        }
    });
    assert_eq!(user.json(&["show"])["svn"], 7);
    // as a machine does
    let machine = File::open(user.scratch.path("p/in-use")).unwrap();
    machine.lock_shared().unwrap();
    user.refused(&["update", "--svn-up"], &["in use", "stop"]);
    assert_eq!(user.json(&["show"])["svn"], 7);
    // what its maker says of it changes no processor
    user.json(&["update", "--advisory", "KLUIS-SA-00001"]);
    user.json(&["revoke"]);
    drop(machine);
    assert_eq!(user.json(&["update", "--svn-up"])["svn"], 8);
}

#[test]
fn first_run_makes_a_platform_and_tells_so_once() {
    let user = User::new();
    let hang = user.scratch.file("kernel", kernel(HANG));
    let run = |more: &[&str]| {
        let out = user.run(&[&["run", "--kernel", &hang, "--timeout", "200ms"], more].concat());
        assert_eq!(out.status.code(), Some(124), "{}", text(&out.stderr));
        text(&out.stderr)
    };
    let refused = user.run(&["run", "--kernel", &hang, "--memory", "4M"]);
    assert_eq!(refused.status.code(), Some(2));
    let refused = user.run(&["run", "--kernel", &hang, "--append", &"x".repeat(9000)]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!user.scratch.path("p").exists(), "no machine, no platform");

    let said = run(&[]);
    assert!(said.contains("made a platform") && said.contains(&user.at("p")), "{said}");
    let roots = user.roots();
    assert!(!run(&[]).contains("made a platform"));
    assert_eq!(user.roots(), roots);
    fs::remove_dir_all(user.scratch.path("p")).unwrap();
    assert!(!run(&["--quiet"]).contains("made a platform"));
    assert_ne!(user.roots(), roots);

    fs::set_permissions(user.scratch.path("p"), Permissions::from_mode(0o755)).unwrap();
    let out = user.run(&["run", "--kernel", &hang]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("chmod 700"), "{}", text(&out.stderr));
}

#[test]
fn running_machine_holds_its_platform() {
    let user = User::new();
    user.json(&["init"]);
    let hang = user.scratch.file("kernel", kernel(HANG));
    let mut run = kluis();
    run.env("KLUIS_PLATFORM", user.scratch.path("p")).args(["run", "--kernel", &hang, "--timeout", "100s"]);
    let mut machine =
        run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let lock = File::open(user.scratch.path("p/in-use")).unwrap();
    // until it holds the platform
    while lock.try_lock().is_ok() {
        lock.unlock().unwrap();
        assert_eq!(machine.try_wait().unwrap(), None);
        thread::sleep(std::time::Duration::from_millis(5));
    }
    user.refused(&["update", "--new-owner-epoch"], &["in use"]);
    machine.kill().unwrap();
    machine.wait().unwrap();
    user.json(&["update", "--new-owner-epoch"]);
}

#[test]
fn sizes_are_listed_for_people_and_programs() {
    let out = output(kluis().args(["sizes", "--json"]), b"");
    assert_eq!(out.status.code(), Some(0));
    let sizes: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(sizes.len(), 20);
    let one = sizes.iter().find(|s| s["name"] == "Standard_DC2s_v2").unwrap();
    assert_eq!((&one["cpus"], &one["model"]), (&2.into(), &"xeon-e-2288g".into()));
    assert_eq!((&one["memory_bytes"], &one["epc_bytes"]), (&(8u64 << 30).into(), &(56u64 << 20).into()));
    assert!(sizes.iter().all(|s| s["can_run"].as_bool().unwrap() == s["reason"].is_null()));
    let people = text(&output(kluis().arg("sizes"), b"").stdout);
    assert!(people.contains("Standard_DC48ds_v3") && people.contains("256 GiB"), "{people}");
}

#[test]
fn size_the_host_cannot_honour_is_refused_with_the_reason() {
    let user = User::new();
    let hang = user.scratch.file("kernel", kernel(HANG));
    // 20 GiB of address space
    let limited = |args: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -v 20971520 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kluis")]);
        output(shell.env("KLUIS_PLATFORM", user.scratch.path("p")).args(args), b"")
    };
    let out = limited(&["run", "--size", "Standard_DC4s_v3", "--kernel", &hang, "--timeout", "200ms"]);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    for word in ["Standard_DC4s_v3 needs", "32 GiB memory", "16 GiB EPC", "20 GiB", "ulimit -v", "--epc"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert_eq!(said.lines().count(), 1, "{said}");
    // less of it fits
    let less = ["--memory", "2G", "--epc", "1G", "--kernel", &hang, "--timeout", "200ms"];
    let out = limited(&[&["run", "--size", "Standard_DC4s_v3"], &less[..]].concat());
    assert_eq!(out.status.code(), Some(124), "{}", text(&out.stderr));
    let sizes: Vec<Value> = serde_json::from_slice(&limited(&["sizes", "--json"]).stdout).unwrap();
    let can = |name: &str| sizes.iter().find(|s| s["name"] == name).unwrap()["can_run"].as_bool().unwrap();
    assert!(can("Standard_DC4s_v2") && !can("Standard_DC8_v2") && !can("Standard_DC2s_v3"));
}
