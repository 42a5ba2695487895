//! Bad input, through the built command: one line with cause and remedy, exit
//! code 2, nothing left behind.

mod common;

use common::{HANG, Scratch, kernel, kluis, output, text};
use std::fs::{self, File};

/// Runs `kluis run` with these arguments, which must be refused; gives what it
/// says. Nothing may be left in the cache or in the folder.
#[track_caller]
fn refused(scratch: &Scratch, args: &[&str]) -> String {
    let entries = || {
        let mut names: Vec<_> =
            fs::read_dir(scratch.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = entries();
    let out = output(kluis().env("XDG_CACHE_HOME", scratch.path("cache")).arg("run").args(args), b"");
    let errors = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{args:?}: {errors}");
    assert_eq!(text(&out.stdout), "");
    assert!(errors.starts_with("kluis: ") && errors.ends_with('\n'), "{errors}");
    assert_eq!(entries(), before, "{args:?} left something behind");
    errors["kluis: ".len()..].trim_end().to_owned()
}

#[track_caller]
fn refused_in_one_line(scratch: &Scratch, args: &[&str], words: &[&str]) {
    let line = refused(scratch, args);
    assert_eq!(line.lines().count(), 1, "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in {line:?}");
    }
}

#[test]
fn unknown_size_lists_the_known() {
    let said = refused(&Scratch::new(), &["--size", "nonsense", "--", "true"]);
    let (line, names) = said.split_once('\n').unwrap();
    assert!(line.contains("nonsense") && line.contains("--size"), "{line}");
    assert_eq!(names.split_whitespace().count(), 20);
    assert!(names.contains("Standard_DC1s_v2") && names.contains("Standard_DC48ds_v3"));
}

#[test]
fn impossible_machines_are_refused() {
    let s = Scratch::new();
    refused_in_one_line(&s, &["--cpu", "i486"], &["i486", "xeon-e-2288g"]);
    refused_in_one_line(&s, &["--cpus", "0"], &["0 processors", "--cpus"]);
    refused_in_one_line(&s, &["--cpus", "1000"], &["1000 processors"]);
    refused_in_one_line(&s, &["--cpus", "-1"], &["--cpus"]);
    refused_in_one_line(&s, &["--memory", "4M"], &["4 MiB", "--memory"]);
    refused_in_one_line(&s, &["--memory", "4"], &["4M or 4G"]);
    refused_in_one_line(&s, &["--memory", "100T"], &["--memory"]);
    refused_in_one_line(&s, &["--timeout", "never"], &["--timeout never", "30s"]);
}

#[test]
fn bad_kernels_are_refused() {
    let s = Scratch::new();
    let whole = kernel(HANG);
    let mut bzimage = vec![0; 4096];
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x202..0x206].copy_from_slice(b"HdrS");
    bzimage[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
    let mut arm = whole.clone();
    arm[18] = 183;
    let mut old = whole.clone();
    old[4] = 1;
    fs::create_dir(s.path("folder")).unwrap();
    for (file, words) in [
        (s.at("missing"), &["cannot read kernel", "missing"][..]),
        (s.at("folder"), &["not a regular file"]),
        (s.file("empty", b""), &["kernel"]),
        (s.file("text", b"#!/bin/sh\necho I am a kernel\n"), &["not an x86-64 kernel"]),
        (s.file("cut", &whole[..whole.len() - 1]), &["truncated", "again"]),
        (s.file("header", &whole[..40]), &["truncated"]),
        (s.file("bzimage", &bzimage), &["kernel"]),
        (s.file("arm", &arm), &["183"]),
        (s.file("old", &old), &["64 bits"]),
    ] {
        refused_in_one_line(&s, &["--kernel", &file, "--console", &s.at("log")], words);
    }
}

#[test]
fn kernel_that_does_not_fit_is_refused() {
    let s = Scratch::new();
    let mut elf = kernel(HANG);
    // its segment shall take 512 MiB
    elf[64 + 40..64 + 48].copy_from_slice(&(512u64 << 20).to_le_bytes());
    let file = s.file("kernel", &elf);
    refused_in_one_line(&s, &["--kernel", &file, "--memory", "128M"], &["more memory"]);
    let good = s.file("good", kernel(HANG));
    let initrd = s.path("initrd");
    File::create(&initrd).unwrap().set_len(100 << 20).unwrap();
    let initrd = initrd.to_str().unwrap();
    refused_in_one_line(
        &s,
        &["--kernel", &good, "--initrd", initrd, "--memory", "64M"],
        &["initrd", "memory"],
    );
    refused_in_one_line(&s, &["--kernel", &good, "--initrd", &s.at("none")], &["initrd", "none"]);
    refused_in_one_line(
        &s,
        &["--kernel", &good, "--append", &"x".repeat(9000)],
        &["command line", "shorten"],
    );
}

#[test]
fn bad_disks_are_refused() {
    let s = Scratch::new();
    let good = s.file("good", kernel(HANG));
    fs::create_dir(s.path("folder")).unwrap();
    for (disk, words) in [
        (s.at("missing"), &["missing", "check the path"][..]),
        (s.at("folder"), &["is a folder"]),
        (s.file("odd", [0; 513]), &["513 bytes", "512"]),
        (s.file("empty", b""), &["0 bytes"]),
        ("/dev/zero".into(), &["/dev/zero", "raw disk image"]),
        (",ro".into(), &["FILE,ro"]),
    ] {
        refused_in_one_line(&s, &["--kernel", &good, "--disk", &disk], words);
    }
}

#[test]
fn disk_in_use_is_refused_and_one_that_is_only_read_is_not() {
    let s = Scratch::new();
    let good = s.file("good", kernel(HANG));
    let disk = s.file("disk", [0; 4096]);
    let user = File::open(&disk).unwrap();
    user.lock_shared().unwrap();
    refused_in_one_line(
        &s,
        &["--kernel", &good, "--disk", &disk, "--console", &s.at("log")],
        &["in use", "copy"],
    );
    let reads = format!("{disk},ro");
    let out = output(
        kluis()
            .args(["run", "--quiet", "--kernel", &good, "--disk", &reads, "--disk", &reads])
            .args(["--timeout", "300ms"]),
        b"",
    );
    assert_eq!(out.status.code(), Some(124), "{}", text(&out.stderr));
    drop(user);
    // nor is the same one twice for writing
    refused_in_one_line(&s, &["--kernel", &good, "--disk", &disk, "--disk", &disk], &["in use"]);
}

#[test]
fn console_file_must_be_possible() {
    let s = Scratch::new();
    let good = s.file("good", kernel(HANG));
    refused_in_one_line(&s, &["--kernel", &good, "--console", &s.at("no/such")], &["console", "no/such"]);
}

#[test]
fn wrong_usage_is_told_with_the_way_to_help() {
    for args in [&["run", "--nonsense"][..], &["nonsense"], &["run", "uname"], &["run", "--tty"]] {
        let out = output(kluis().args(args), b"");
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains("--help"), "{}", text(&out.stderr));
    }
    let out = output(kluis().args(["run", "--size", "Standard_DC1s_v2", "--cpus", "2"]), b"");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--cpus"));
}

#[test]
fn help_completions_and_manual_go_to_standard_output() {
    for (args, word) in [
        (&["--help"][..], "Examples:"),
        (&["--version"], "kluis"),
        (&["run", "--help"], "memory of SGX enclaves"),
        (&["completions", "bash"], "complete -F"),
        (&["completions", "zsh"], "#compdef kluis"),
        (&["man"], ".TH"),
    ] {
        let out = output(kluis().args(args), b"");
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains(word), "{args:?}: {word}");
        assert_eq!(text(&out.stderr), "");
    }
    let s = Scratch::new();
    let out = output(kluis().args(["man", "--dir", &s.at("man")]), b"");
    assert_eq!(out.status.code(), Some(0));
    assert!(s.path("man/kluis-run.1").is_file());
}

#[test]
fn doctor_reports_for_people_and_programs() {
    let s = Scratch::new();
    let doctor =
        |args: &[&str]| output(kluis().arg("doctor").args(args).env("XDG_CACHE_HOME", s.path("cache")), b"");
    let out = doctor(&["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let ok = report["ok"].as_bool().unwrap();
    assert_eq!(out.status.code(), Some(i32::from(!ok)));
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|c| c["name"] == "model xeon-8370c"));
    assert!(checks.iter().all(|c| ["ok", "missing", "note"].iter().any(|s| c["status"] == *s)));
    let people = doctor(&[]);
    assert_eq!(people.status.code(), out.status.code());
    assert_eq!(text(&people.stdout).contains("`kluis run` can work here"), ok);
    assert!(!s.path("cache").exists(), "looking must not make a cache");

    let lost = output(kluis().args(["doctor", "--json"]).env_clear().env("PATH", "/no/such"), b"");
    assert_eq!(lost.status.code(), Some(1), "no folder and no apt: {}", text(&lost.stdout));
}

#[test]
fn image_that_is_not_there_is_not_shown() {
    let s = Scratch::new();
    let out = output(kluis().args(["image", "show"]).env("XDG_CACHE_HOME", s.path("cache")), b"");
    assert_eq!(out.status.code(), Some(125));
    assert!(text(&out.stderr).contains("kluis image build"), "{}", text(&out.stderr));
    assert!(!s.path("cache").exists());
}
