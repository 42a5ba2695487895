//! The `debian` image: what is on its disk, judged by itself and by others' tests,
//! with its own init. The image is made first if it is not in the cache, which takes
//! minutes; all that is looked at shares boots.

mod common;

use common::repository::{self, Proxy};
use common::session::Session;
use common::{Scratch, checked, guest, kluis, output, output_within, platform, text, turn};
use manufacturer::Manufacturer;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than any boot here takes on a slow host.
const TIMEOUT: &str = "2h";
/// The same, for whoever waits.
const PATIENCE: Duration = Duration::from_secs(2 * 3600 + 60);

fn debian(args: &[&str]) -> Command {
    let mut command = kluis();
    command.args(["run", "--timeout", TIMEOUT, "--image", "debian", "--cpus", "2"]).args(args);
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
    // by the host's lists of packages, or, if they are old, by those that the image was made by
    let own = image::default_folder().unwrap().join("apt");
    let own = [("Dir::State", "state"), ("Dir::Cache", "cache")]
        .map(|(option, part)| format!("-o{option}={}", own.join(part).display()));
    let fetch = |options: &[String]| {
        let mut apt = Command::new("apt-get");
        apt.args(["-q", "-o", "APT::Sandbox::User=root"]).args(options).args(["download", &wanted]);
        output(apt.current_dir(&folder), b"")
    };
    let mut fetched = fetch(&[]);
    if !fetched.status.success() {
        fetched = fetch(&own);
    }
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let deb = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let tar = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb), b"");
    assert!(tar.status.success());
    let mut tar = tar.stdout;
    tar.resize(tar.len().next_multiple_of(512), 0);
    scratch.file("testsuite.tar", tar)
}

/// Puts python3's tests from the second disk to the rest of it, runs these and tells the
/// outcome.
fn python(tests: &str) -> String {
    format!(
        "tar x -f /dev/vdb -C / --wildcards './usr/lib/python3*/test'
        for t in {tests}; do
            python3 -m test --timeout 1200 $(echo $t | tr , ' ') > log 2>&1 && echo \"$t passed\" || cat log
        done\n"
    )
}

/// What the guest does in the first boot, in the shared folder; each program knows the
/// right answer.
const CHECKS: &str = r#"
    echo "state $(systemctl is-system-running --wait)"
    echo "failed $(systemctl --failed --no-legend | wc -l)"
    echo "audit $(dpkg --audit | wc -l)"
    cd /work
    gcc -O2 -Wall -Werror hello.c -lm && ./a.out; echo "exit $?"
    cd /root

    # until the host has been here by both ports
    python3 -m http.server --directory /work 8080 2>/dev/null & server=$!
    until curl -fso /dev/null http://127.0.0.1:8080/hello.c; do sleep 0.2; done
    echo visitors
    until [ -e /work/visited ]; do sleep 0.2; done
    kill $server

    printf abc | openssl dgst -sha256 -r
    printf abc | openssl dgst -sha3-256 -r
    printf '\153\301\276\342\056\100\237\226\351\075\176\021\163\223\027\052' |
        openssl enc -aes-128-ecb -nopad -K 2b7e151628aed2a6abf7158809cf4f3c | od -An -tx1
    cp /work/hello.c signed
    for kind in 'ed25519' 'ec -pkeyopt ec_paramgen_curve:P-256' 'rsa -pkeyopt rsa_keygen_bits:1024'; do
        openssl genpkey -algorithm $kind -out key 2>/dev/null
        openssl pkey -in key -pubout -out pub
        openssl pkeyutl -sign -rawin -inkey key -in signed -out sig
        openssl pkeyutl -verify -rawin -pubin -inkey pub -in signed -sigfile sig
        echo >> signed
        openssl pkeyutl -verify -rawin -pubin -inkey pub -in signed -sigfile sig 2>/dev/null
    done
    certificates=$(find /usr/share/ca-certificates -name '*.crt' | wc -l)
    [ $certificates -gt 100 ] && [ $certificates = $(grep -c BEGIN /etc/ssl/certs/ca-certificates.crt) ] &&
        openssl verify /usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt
    python3 -c 'import sys, ssl, sqlite3, ctypes; print(sys.version_info[0], 2**200 % 1000007)'

    apt-get check -qq && echo checked
    echo "deb [trusted=yes] http://packages.invalid/ ./" > list
    mine="-o Dir::Etc::sourcelist=/root/list -o Dir::Etc::sourceparts=-"
    apt-get $mine -q update >&2 && apt-get $mine -qy install greeting >&2 && cat /usr/share/greeting
    apt-get -q -o APT::Update::Error-Mode=any update >&2 && echo updated
    echo kept > /root/kept
"#;

/// Quotes in the second boot, without a network: by an unmodified client of AESM that
/// nobody runs, with the key that the service names and by the name that Intel's has; and by
/// root's own program. What is asked about the machine is asked before and after.
const QUOTES: &str = r#"
    set -e
    stat -c '%A %G %n' /dev/sgx_enclave /dev/sgx_provision /run/aesmd/aesm.socket
    systemctl is-active kluis-aesmd.service || true
    mkdir /tmp/quotes
    cp /work/*-check /work/closed.* /tmp/quotes
    cd /tmp/quotes
    chmod 755 *-check
    chmod 777 .
    as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups --no-new-privs sh -ec "$1"; }
    as_nobody '
        ./aesm-check own target > target
        ./enclave-check closed.sgxs closed.sig report target report
        ./aesm-check own quote report > quote.aesm
        ./aesm-check intel quote report > quote.intel'
    kluis-quote --target-info > target.root
    cmp target target.root
    kluis-quote report > quote
    cp quote* /work
    echo "$(systemctl is-active kluis-aesmd.service) $(ps -C aesmd -o user=)"
    echo "failed $(systemctl --failed --no-legend | wc -l)"
"#;

const HELLO: &str = "#include <stdio.h>\n#include <math.h>\n\
    int main(int argc, char **argv) { printf(\"hello %.6f\\n\", sqrt(argc + 1)); return 7; }\n";

/// Where this user's cache is, for a command with another home.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).unwrap()
}

/// An ssh client that trusts whom it meets, with this key.
fn ssh(s: &Scratch, address: &str, key: &Path, command: &str) -> Output {
    let (host, port) = address.split_once(':').unwrap();
    let known = format!("UserKnownHostsFile={}", s.at("known"));
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"])
        .args(["-o", "StrictHostKeyChecking=no", "-o", &known, "-p", port, "-i"])
        .arg(key)
        .args([&format!("root@{host}"), command]);
    output(&mut ssh, b"")
}

fn make_key(file: &Path) {
    let made =
        output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file), b"");
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn debian_is_a_place_to_work() {
    let _turn = turn();
    build();
    let s = Scratch::new();
    std::fs::create_dir_all(s.path("home/.ssh")).unwrap();
    std::fs::create_dir(s.path("work")).unwrap();
    let (key, strange) = (s.path("home/.ssh/id_ed25519"), s.path("strange"));
    make_key(&key);
    make_key(&strange);
    s.file("work/hello.c", HELLO);
    let tests = "test_struct,test_float,test_zlib test_hashlib,-i,*scrypt*,-i,*threaded*,-i,*_large* \
                 test_decimal,-m,CExplicit*,-m,CArithmetic*,-m,CFormat*,-m,CUsability* test_threading,-m,*Lock*,-m,*Event*,-m,*Barrier*,-m,*Condition*";
    s.file("work/check", format!("{CHECKS}\n{}", python(tests)));
    let proxy = Proxy::start();
    let setting =
        format!("Acquire::http::Proxy::{} \"http://localhost:{}/\";\n", repository::HOST, proxy.port);
    let (overlay, disk) = (s.at("overlay"), format!("{},ro", python_tests(&s)));
    let share = format!("{}:/work", s.at("work"));

    let mut machine = Session::start(
        debian(&["--overlay", &overlay, "--disk", &disk, "--share", &share])
            .args(["--publish", "0:22", "--publish", "0:8080"])
            .env("APT_CONFIG", s.file("apt.conf", setting))
            .env("XDG_CACHE_HOME", cache())
            .env("HOME", s.at("home")),
    );
    let [shell, web] = [22, 8080].map(|port| machine.published(port));
    machine.say("sh /work/check </dev/null; echo \"by $0\"; exit 3\n");
    machine.hear("visitors");
    let out = ssh(&s, &shell, &key, "id -un; cd /work && ./a.out");
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("root\nhello 1.414214\n", Some(7)));
    let out = ssh(&s, &shell, &strange, "true");
    assert!(text(&out.stderr).contains("Permission denied"), "{}", text(&out.stderr));
    let out = output(Command::new("curl").args(["-fsS", &format!("http://{web}/hello.c")]), b"");
    assert_eq!(text(&out.stdout), HELLO, "{}", text(&out.stderr));
    s.file("work/visited", "");
    let (status, said, errors) = machine.end();
    assert_eq!(status.code(), Some(3), "{said}\n{errors}");

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
        "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt: OK",
        "checked",
        "hello",
        "updated",
        "by /bin/bash",
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{said}\n{errors}");
    }
    let count = |text: &str| lines.iter().filter(|line| **line == text).count();
    assert_eq!(count("Signature Verified Successfully"), 3, "{said}");
    assert_eq!(count("Signature Verification Failure"), 3, "{said}");
    assert_eq!(lines.iter().filter(|line| line.ends_with(" passed")).count(), 4, "{said}");
    assert!(proxy.asked().iter().any(|address| address.ends_with("/greeting.deb")), "{:?}", proxy.asked());
    assert!(errors.contains(&format!("this host's proxy 127.0.0.1:{0} as 10.0.2.2:{0}", proxy.port)));
    // the guest wrote in the share as whoever shares it
    assert!(std::fs::metadata(s.path("work/a.out")).unwrap().len() > 0);

    // another machine goes on with its disk, makes quotes, and is stopped from outside
    let (stream, sigstruct) = checked::enclave(serde_json::json!({ "debug": false }), 0);
    let aesm_check = std::fs::read(guest::program("aesm-check")).unwrap();
    for (name, content) in [
        ("enclave-check", checked::host()),
        ("aesm-check", &aesm_check),
        ("closed.sgxs", &stream),
        ("closed.sig", &sigstruct),
        ("quotes", QUOTES.as_bytes()),
    ] {
        s.file(&format!("work/{name}"), content);
    }
    let mut machine =
        Session::start(&mut debian(&["--overlay", &overlay, "--network", "none", "--share", &share]));
    // the end of its input, which comes with the signal or before it, does not end it; a shell's
    // background jobs ignore SIGINT
    machine.say("cat /root/kept /usr/share/greeting; sh /work/quotes; echo waiting; exec sleep 1000\n");
    machine.hear("waiting");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(machine.pid().cast_signed()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    let (status, said, errors) = machine.end();
    let quotes = "crw-rw-rw- root /dev/sgx_enclave\ncrw-rw---- sgx_prv /dev/sgx_provision\n\
                  srw-rw-rw- root /run/aesmd/aesm.socket\ninactive\nactive aesmd\nfailed 0\n";
    assert_eq!((status.code(), said), (Some(143), format!("kept\nhello\n{quotes}waiting\n")), "{errors}");
    assert!(!errors.contains("did not power off"), "{errors}");
    assert_clean(Path::new(&overlay));
    let measured = enclave_image::sgxs::Enclave::read(&stream).unwrap().measure();
    for name in ["quote", "quote.aesm", "quote.intel"] {
        verified(&s.path("work").join(name), measured);
    }
}

/// Asserts that a quote which was made in a machine is of this enclave, by this platform.
fn verified(file: &Path, mrenclave: [u8; 32]) {
    let maker = Manufacturer::open(platform()).unwrap().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = dcap::Time::from_unix(now).unwrap();
    let (root, collateral) = (maker.root().unwrap(), maker.issued(now).unwrap().collateral);
    let verdict = dcap::verify(&std::fs::read(file).unwrap(), &collateral, &root, now);
    let verdict = verdict.unwrap_or_else(|refusal| panic!("{}: {refusal}", file.display()));
    assert_eq!((verdict.tcb.status, verdict.report.mrenclave), (dcap::TcbStatus::UpToDate, mrenclave));
}

/// Asserts that the ext4 on an overlay was unmounted: its superblock says "clean", and no
/// journal is to be replayed (*Documentation/filesystems/ext4/super.rst*).
fn assert_clean(overlay: &Path) {
    let file = File::open(overlay).unwrap();
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    };
    // the map follows the header, the first block the map (docs/debian.md)
    let len = u64::from_le_bytes(read(16, 8).try_into().unwrap());
    let map = len.div_ceil(4096).div_ceil(8).next_multiple_of(4096);
    assert_eq!(read(4096, 1)[0] & 1, 1, "the superblock was written");
    let superblock = read(4096 + map + 1024, 1024);
    let half = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
    assert_eq!(half(0x38), 0xef53);
    assert_eq!((half(0x3a) & 1, half(0x60) & 4), (1, 0), "state, incompatible features");
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
    for (args, remedy) in [
        (&["run", "--overlay", "x", "--", "true"][..], "--image debian"),
        (&["run", "--warm", "--image", "debian", "--overlay", "x", "--", "true"], "leave out --overlay"),
    ] {
        let out = output(kluis().args(args), b"");
        let said = text(&out.stderr);
        assert_eq!((out.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(remedy), "{said}");
    }
    assert!(!Path::new("x").exists());
}

/// What the guest of a warm start says: how long it is up, what is left of the machine
/// before, a random number, who may log in, and what a program of its own says.
const WARM: &str = "cut -d. -f1 /proc/uptime
    systemctl is-system-running --wait; cat /root/mine 2>/dev/null || echo new; echo old > /root/mine
    cat /proc/sys/kernel/random/uuid; cat /run/kluis/authorized_keys 2>/dev/null | wc -l
    python3 -c 'print(6 * 7)'; exit 5";

#[test]
#[ignore = "boots Debian twice, minutes: cargo test --profile tested -p kluis --test debian -- --ignored"]
fn a_warm_debian_is_each_time_a_new_one() {
    let _turn = turn();
    build();
    let s = Scratch::new();
    std::fs::create_dir_all(s.path("home/.ssh")).unwrap();
    let run = || {
        let begin = Instant::now();
        let mut command = debian(&["--quiet", "--warm", "--", "sh", "-c", WARM]);
        let out =
            output_within(PATIENCE, command.env("XDG_CACHE_HOME", cache()).env("HOME", s.at("home")), b"");
        let took = begin.elapsed();
        let said = text(&out.stdout);
        assert_eq!(out.status.code(), Some(5), "{said}\n{}", text(&out.stderr));
        let lines: Vec<String> = said.lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(lines.len(), 6, "{said}");
        println!("up {} s, {took:?} to the end of the command", lines[0]);
        (lines, took)
    };
    let (first, _) = run();
    let (second, took) = run();
    // a machine that has booted is up for less time than this took
    assert!(second[0].parse::<u64>().unwrap() > took.as_secs(), "{second:?} after {took:?}");
    for said in [&first, &second] {
        assert_eq!((said[1].as_str(), said[2].as_str(), said[5].as_str()), ("running", "new", "42"));
        assert_eq!(said[4], "0", "nobody may log in");
    }
    assert_ne!(first[3], second[3], "two machines draw the same numbers");
    make_key(&s.path("home/.ssh/id_ed25519"));
    assert_eq!(run().0[4], "1", "a key of now is known, though there was none when the other was prepared");
}

#[test]
#[ignore = "starts hundreds of processes, minutes: cargo test --profile tested -p kluis --test debian -- --ignored"]
fn programs_that_the_set_up_stood_in_for_find_their_work_done() {
    let _turn = turn();
    build();
    let script = "set -e
        cp /etc/ssl/certs/ca-certificates.crt before
        update-ca-certificates | grep added
        cmp before /etc/ssl/certs/ca-certificates.crt
        DPKG_MAINTSCRIPT_PACKAGE=x deb-systemd-helper was-enabled ssh.service && echo enabled
        find /usr/lib/python3.* -name '*.py' ! -name py_compile.py ! -path '*/dist-packages/*' | sort > sources
        find /usr/lib/python3.* -name '*.pyc' | sed 's|__pycache__/||; s|[.]cpython-[0-9]*[.]pyc|.py|' | sort > made
        comm -23 sources made | head
        find / -xdev -name '*.real'";
    let out = output_within(PATIENCE, debian(&[]).args(["--", "sh", "-c", script]), b"");
    assert_eq!(said(&out), "0 added, 0 removed; done.\nenabled\n");
}

#[test]
#[ignore = "an hour and more: cargo test --profile tested -p kluis --test debian -- --ignored"]
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

/// Each method for one operation, or for a minute: some take longer for one than anybody
/// would wait, natively too. Those have verified nothing, and are told.
#[test]
#[ignore = "needs the network, minutes: cargo test --profile tested -p kluis --test debian -- --ignored stress"]
fn stress_ng_verifies_cpu_and_memory_methods() {
    let _turn = turn();
    build();
    let script = "set -e
        apt-get update -q >&2
        apt-get install -qy stress-ng >&2
        each() {
            kind=$1; shift
            for method in $(stress-ng --$kind 1 --$kind-method which 2>&1 | sed 's/.*: *//'); do
                case $method in all) continue;; esac
                rm -f told
                if stress-ng -q --$kind 1 \"$@\" --$kind-method $method --$kind-ops 1 --verify -t 60 \
                    --metrics --yaml told >&2; then
                    case $(sed -n 's/.*bogo-ops: *//p' told) in
                        0) echo \"$kind $method: nothing\";;
                        [1-9]*) echo \"$kind $method: verified\";;
                        *) echo \"$kind $method: untold\";;
                    esac
                else
                    echo \"$kind $method: failed\"
                fi
            done
        }
        each cpu
        each vm --vm-bytes 1M
        echo done";
    let out = output_within(PATIENCE, debian(&[]).args(["--", "sh", "-c", script]), b"");
    let said = said(&out);
    let methods = said.strip_suffix("done\n").expect(&said);
    let with = |kind: &str, outcome: &str| -> Vec<&str> {
        methods.lines().filter_map(|line| line.strip_prefix(kind)?.strip_suffix(outcome)).collect()
    };
    for kind in ["cpu ", "vm "] {
        let (verified, nothing) = (with(kind, ": verified"), with(kind, ": nothing"));
        println!("{}: {} verified; nothing within a minute: {nothing:?}", kind.trim(), verified.len());
        assert_eq!(verified.len() + nothing.len(), with(kind, "").len(), "{said}");
        assert!(verified.len() > nothing.len(), "{said}");
    }
}
