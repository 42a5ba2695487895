//! The `debian` image: what is on its disk, judged by itself and by others' tests,
//! with its own init. The image is made first if it is not in the cache, which takes
//! minutes; all looks at it share two boots.

mod common;

use common::{Scratch, kluis, output, output_within, text, turn};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Longer than any boot here takes on a slow host.
const TIMEOUT: &str = "2h";
/// The same, for whoever waits.
const PATIENCE: Duration = Duration::from_secs(2 * 3600 + 60);

fn debian(args: &[&str]) -> Command {
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT, "--image", "debian", "--cpus", "2"]).args(args);
    command
}

fn build() {
    let out = output_within(PATIENCE, kluis().args(["image", "build", "debian"]), b"");
    assert!(out.status.success(), "{}", text(&out.stderr));
}

/// Asserts that the script went through, and gives what it said.
fn said(out: &Output) -> String {
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}\n{}", text(&out.stderr));
    said
}

/// The package of python3's own tests, as this build's python3 has it: its file tree
/// as a disk, a tar archive.
fn python_tests(scratch: &Scratch) -> String {
    let out = output(kluis().args(["image", "show", "debian", "--json"]), b"");
    let image: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let library = image["manifest"]["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| {
            let name = p["name"].as_str().unwrap();
            name.starts_with("libpython3.") && name.ends_with("-stdlib")
        })
        .unwrap();
    let name = library["name"].as_str().unwrap().replace("-stdlib", "-testsuite");
    let wanted = format!("{name}={}", library["version"].as_str().unwrap());
    let folder = scratch.path("testsuite");
    std::fs::create_dir(&folder).unwrap();
    let fetched = output(
        Command::new("apt-get")
            .args(["-q", "-o", "APT::Sandbox::User=root", "download", &wanted])
            .current_dir(&folder),
        b"",
    );
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let deb = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let tar = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb), b"");
    assert!(tar.status.success());
    let mut tar = tar.stdout;
    tar.resize(tar.len().next_multiple_of(512), 0);
    scratch.file("testsuite.tar", tar)
}

/// Unpacks the disk with python3's tests, runs these and tells the outcome.
fn python(tests: &str) -> String {
    format!(
        "mkdir /root/py; tar x -f /dev/vdb -C /root/py --wildcards './usr/lib/python3*/test'
        cp -r /root/py/usr/lib/python3*/test /root/py/test
        cd /root/py
        for t in {tests}; do
            python3 -m test --timeout 1200 $(echo $t | tr , ' ') > log 2>&1 && echo \"$t passed\" || cat log
        done
        cd /\n"
    )
}

/// Programs that know the right answers, one line each.
const SELF_CHECKS: &str = r#"
    echo "state $(systemctl is-system-running --wait)"
    echo "failed $(systemctl --failed --no-legend | wc -l)"
    echo "audit $(dpkg --audit | wc -l)"
    cat > hello.c <<'END'
#include <stdio.h>
#include <math.h>
int main(int argc, char **argv) { printf("hello %.6f\n", sqrt(argc + 1)); return 7; }
END
    gcc -O2 -Wall -Werror hello.c -lm && ./a.out; echo "exit $?"
    printf abc | openssl dgst -sha256 -r
    printf abc | openssl dgst -sha3-256 -r
    printf '\x6b\xc1\xbe\xe2\x2e\x40\x9f\x96\xe9\x3d\x7e\x11\x73\x93\x17\x2a' |
        openssl enc -aes-128-ecb -nopad -K 2b7e151628aed2a6abf7158809cf4f3c | od -An -tx1
    for kind in 'ed25519' 'ec -pkeyopt ec_paramgen_curve:P-256' 'rsa -pkeyopt rsa_keygen_bits:1024'; do
        openssl genpkey -algorithm $kind -out key 2>/dev/null
        openssl pkey -in key -pubout -out pub
        openssl pkeyutl -sign -rawin -inkey key -in hello.c -out sig
        openssl pkeyutl -verify -rawin -pubin -inkey pub -in hello.c -sigfile sig
        echo >> hello.c
        openssl pkeyutl -verify -rawin -pubin -inkey pub -in hello.c -sigfile sig 2>/dev/null
    done
    python3 -c 'import sys, ssl, sqlite3, ctypes; print(sys.version_info[0], 2**200 % 1000007)'
    sshd -t -h /dev/null -o HostKeyAlgorithms=ssh-ed25519 2>/dev/null; ssh-keygen -q -t ed25519 -N '' -f k
    ssh-keygen -lf k | cut -d' ' -f1,4
    apt-get check -qq && echo apt
"#;

#[test]
#[ignore = "makes the image, minutes, and runs others' tests: cargo test --release -p kluis --test debian -- --ignored"]
fn debian_works_and_keeps_what_is_written_in_its_overlay_alone() {
    let _turn = turn();
    build();
    let s = Scratch::new();
    let overlay = s.at("overlay");
    let tests = python_tests(&s);
    let disk = format!("{tests},ro");
    let script = format!(
        "{SELF_CHECKS}\n{}\nexec >&2; exec > /dev/null; echo kept > /root/kept",
        python(
            "test_struct test_float test_zlib test_hashlib,-i,*scrypt*,-i,*threaded*,-i,*_large* \
             test_decimal,-i,*IBM*,-i,Py* test_threading,-m,*Lock*,-m,*Event*,-m,*Barrier*,-m,*Condition*"
        )
    );
    let mut command = debian(&["--overlay", &overlay, "--disk", &disk]);
    let out = output_within(PATIENCE, command.args(["--", "sh", "-c", &script]), b"");
    let said = said(&out);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    for line in [
        "state running",
        "failed 0",
        "audit 0",
        "hello 1.414214",
        "exit 7",
        // FIPS 180-4 and 202, the hash of "abc"
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad *stdin",
        "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532 *stdin",
        // SP 800-38A, F.1.1
        "3a d7 7b b4 0d 7a 36 60 a8 9e ca f3 24 66 ef 97",
        "256 (ED25519)",
        "apt",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{said}");
    }
    let count = |text: &str| lines.iter().filter(|line| **line == text).count();
    assert_eq!(count("Signature Verified Successfully"), 3, "{said}");
    assert_eq!(count("Signature Verification Failure"), 3, "{said}");
    assert_eq!(lines.iter().filter(|line| line.ends_with(" passed")).count(), 6, "{said}");

    // the login shell of another machine on the same overlay, and a third that has none
    let out =
        output_within(PATIENCE, &mut debian(&["--overlay", &overlay]), b"cat /root/kept; echo $0; exit 3\n");
    assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(3), "kept\n/bin/bash\n"));
    assert_eq!(text(&out.stderr), "");
    // the base is whole
    let out = output(kluis().args(["image", "show", "debian"]), b"");
    assert!(text(&out.stdout).contains("package  apt "));
}

#[test]
fn files_that_are_no_overlays_are_refused_in_one_line() {
    let s = Scratch::new();
    let mut good = b"KLUISOVL\x01\0\0\0\0\x10\0\0".to_vec();
    good.resize(8192, 0);
    for (name, data, why) in [
        (
            "text",
            &b"not an overlay, but longer than its header is: more than fifty-six bytes"[..],
            "no overlay",
        ),
        ("short", b"KLUIS", "no overlay"),
        ("foreign", &good, "not there any more"),
    ] {
        let file = s.file(name, data);
        let out = output(&mut debian(&["--overlay", &file, "--", "true"]), b"");
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(why) && said.contains(&file) && said.lines().count() == 1, "{said}");
        assert_eq!(std::fs::read(Path::new(&file)).unwrap(), data);
    }
    let out = output(kluis().args(["run", "--overlay", "x", "--", "true"]), b"");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("--image debian"));
}

#[test]
#[ignore = "takes half an hour or so: cargo test --release -p kluis --test debian -- --ignored"]
fn pythons_longer_tests_pass() {
    let _turn = turn();
    build();
    let s = Scratch::new();
    let disk = format!("{},ro", python_tests(&s));
    let tests = "test_hashlib test_decimal test_threading test_math test_long test_int test_cmath test_random \
                 test_array test_memoryview test_re test_json test_pickle test_bz2 test_lzma test_socket,-m,*Unix*";
    let out =
        output_within(PATIENCE, debian(&["--disk", &disk]).args(["--", "sh", "-c", &python(tests)]), b"");
    let said = said(&out);
    assert_eq!(said.lines().filter(|line| line.ends_with(" passed")).count(), 16, "{said}");
}

#[test]
#[ignore = "needs the network; takes half an hour or so: cargo test --release -p kluis --test debian -- --ignored"]
fn stress_ng_verifies_cpu_and_memory_methods() {
    let _turn = turn();
    build();
    let script = "set -e
        apt-get update -q >&2
        apt-get install -qy stress-ng >&2
        for method in $(stress-ng --cpu 1 --cpu-method which 2>&1 | sed 's/.*: *//'); do
            case $method in all) continue;; esac
            stress-ng -q --cpu 1 --cpu-method $method --cpu-ops 1 --verify || echo \"cpu $method failed\"
        done
        for method in $(stress-ng --vm 1 --vm-method which 2>&1 | sed 's/.*: *//'); do
            case $method in all) continue;; esac
            stress-ng -q --vm 1 --vm-bytes 1M --vm-method $method --vm-ops 1 --verify || echo \"vm $method failed\"
        done
        echo done";
    let out = output_within(PATIENCE, debian(&[]).args(["--", "sh", "-c", script]), b"");
    assert_eq!(said(&out), "done\n");
}
