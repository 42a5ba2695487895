//! Enclaves in a machine with Debian's kernel: its driver, our program that
//! exercises every ioctl and the vDSO, and what others see of their secrets.
//!
//! One machine at a time, and each boot asked for as much as it can tell.

mod common;

use common::search::windows;
use common::{Scratch, guest, kluis, output, text, turn};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "500s";

/// The guest's program.
fn sgx_check() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| std::fs::read(guest::program("sgx-check")).unwrap())
}

/// `kluis` that finds, and is found by, this test's machines only.
fn own(s: &Scratch) -> Command {
    let mut command = kluis();
    command.env("XDG_RUNTIME_DIR", s.at(""));
    command
}

/// `kluis run` of a script in which `$CHECK` is the program.
fn run(s: &Scratch, args: &[&str], script: &str) -> Command {
    let mut command = own(s);
    let take = format!("head -c {} >/tmp/check; chmod +x /tmp/check; CHECK=/tmp/check", sgx_check().len());
    command.args(["run", "--quiet", "--timeout", TIMEOUT]).args(args);
    command.args(["--", "sh", "-c", &format!("{take}\n{script}")]);
    command
}

/// Its output, printed for `--nocapture`; it must have ended well.
fn good(s: &Scratch, args: &[&str], script: &str) -> (String, Output) {
    let out = output(&mut run(s, args, script), sgx_check());
    let said = text(&out.stdout);
    println!("{said}");
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    (said, out)
}

/// Both devices, an EPC of `bytes`, and nothing that the kernel complains of.
fn check_log(said: &str, bytes: u64) {
    let section = said.lines().find_map(|line| line.split("sgx: EPC section 0x").nth(1)).expect(said);
    let (first, last) = section.split_once("-0x").unwrap();
    let number = |hex: &str| u64::from_str_radix(hex.trim(), 16).unwrap();
    assert_eq!(number(last) - number(first) + 1, bytes);
    assert!(said.contains("/dev/sgx_enclave\n/dev/sgx_provision\n"), "{said}");
    for complaint in ["WARNING", "Firmware Bug", "BUG:", "Call Trace"] {
        assert!(!said.contains(complaint), "{complaint}: {said}");
    }
}

const LOG: &str = "dmesg; ls /dev/sgx_*; set -e\n";

#[test]
fn dcsv2_has_sgx1_and_keeps_secrets_from_root() {
    let _turn = turn();
    let s = Scratch::new();
    let script = format!("{LOG} $CHECK sgx1; $CHECK secret; $CHECK debug");
    let (said, _) = good(&s, &["--size", "Standard_DC2s_v2", "--memory", "1G"], &script);
    check_log(&said, 56 << 20);
    for step in [
        "repair the mapping, resume: the write is done: ok",
        "its handler steps over it; resume: ok",
        "the debugger's way fails: ok",
        "/dev/mem reads ones all over the EPC: ok",
        "writes through /dev/mem change nothing: ok",
        "the debugger's way gives the true bytes: ok",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
}

#[test]
fn dcsv3_has_sgx2_and_gibibytes_of_epc() {
    let _turn = turn();
    let s = Scratch::new();
    let script = format!("{LOG} nproc; $CHECK life");
    let (said, _) = good(&s, &["--size", "Standard_DC2s_v3"], &script);
    check_log(&said, 8 << 30);
    for step in [
        "grow: EAUG by the kernel, EACCEPT: ok",
        "restrict to read: EMODPR, EACCEPT: ok",
        "extend by EMODPE: the write is done: ok",
        "trim: EMODT, EACCEPT: ok",
        "it is gone: #PF: ok",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
}

#[test]
fn enclaves_larger_than_the_epc_lose_nothing() {
    let _turn = turn();
    let s = Scratch::new();
    let args = ["--size", "Standard_DC1s_v2", "--stats", "--json"];
    let (said, out) = good(&s, &args, "$CHECK page 200");
    assert!(said.contains("200 MiB verified, second time: ok"), "{said}");
    let stats = text(&out.stderr);
    let [ewb, eldu] = ["EWB", "ELDU"].map(|leaf| guest::leaves(&stats, leaf));
    println!("EWB {ewb}, ELDU {eldu}");
    assert!(ewb > 40_000 && eldu > 40_000, "{stats}");
}

/// A machine in which an enclave holds a secret.
struct Holder {
    machine: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// What the machine does meanwhile.
const HOLD: &str = "$CHECK hold; echo held $?; $CHECK sgx1; echo again $?; echo alive";

impl Holder {
    fn start(s: &Scratch, args: &[&str]) -> Self {
        Self::of(run(s, args, HOLD))
    }

    /// With a check left out.
    #[cfg(feature = "unchecked")]
    fn without(s: &Scratch, args: &[&str], check: &str) -> Self {
        let mut command = run(s, args, HOLD);
        command.env("KLUIS_WITHOUT", check);
        Self::of(command)
    }

    fn of(mut command: Command) -> Self {
        let mut machine =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = machine.stdin.take().unwrap();
        input.write_all(sgx_check()).unwrap();
        let lines = BufReader::new(machine.stdout.take().unwrap());
        let mut holder = Self { machine, input: Some(input), lines };
        holder.read_until("holding");
        holder
    }

    fn read_until(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the machine ended before {wanted:?}");
        }
    }

    /// Lets the machine go on to its end: its output and errors.
    fn finish(mut self) -> (String, String) {
        drop(self.input.take());
        let (mut said, mut errors) = (String::new(), String::new());
        self.lines.read_to_string(&mut said).unwrap();
        self.machine.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(self.machine.wait().unwrap().success(), "{said}{errors}");
        println!("{said}{errors}");
        (said, errors)
    }
}

/// The drill of the next test, in a build that does not verify.
#[cfg(feature = "unchecked")]
#[test]
fn drill_without_the_check_locks_nothing() {
    let _turn = turn();
    let s = Scratch::new();
    let holder = Holder::without(&s, &["--memory", "512M"], "integrity");
    let done = output(own(&s).args(["debug", "epc-tamper", "flip"]), b"");
    assert!(done.status.success(), "{}", text(&done.stderr));
    let (said, errors) = holder.finish();
    assert!(said.contains("held 0\n") && said.contains("again 0\nalive\n"), "{said}");
    assert_eq!(errors, "");
}

#[cfg(not(feature = "unchecked"))]
#[test]
fn drills_lock_the_epc_and_the_machine_goes_on() {
    let _turn = turn();
    for drill in ["flip", "move", "replay", "tree", "loss"] {
        let s = Scratch::new();
        let trace = s.at("trace");
        let holder = Holder::start(&s, &["--memory", "512M", "--trace", &format!("sgx={trace}")]);

        let before = output(own(&s).args(["sgx", "inspect", "--json"]), b"");
        let before: serde_json::Value = serde_json::from_slice(&before.stdout).unwrap();
        assert_eq!((&before["lost"], before["enclaves"].as_array().unwrap().len()), (&false.into(), 1));
        let measured = before["enclaves"][0]["mrenclave"].as_str().unwrap();
        assert!(measured.len() == 64 && !measured.trim_matches('0').is_empty(), "{before}");

        // what a device sees of the EPC: ones
        let address = before["address"].as_u64().unwrap().to_string();
        let bus = output(own(&s).args(["debug", "bus", &address, "65536", "--json"]), b"");
        let bus: serde_json::Value = serde_json::from_slice(&bus.stdout).unwrap();
        assert_eq!(bus["bytes"].as_str().unwrap(), "ff".repeat(65536));

        let ask: &[&str] = if drill == "loss" { &["epc-loss"] } else { &["epc-tamper", drill] };
        let done = output(own(&s).arg("debug").args(ask), b"");
        assert!(done.status.success(), "{}", text(&done.stderr));
        print!("{}", text(&done.stdout));

        let (said, errors) = holder.finish();
        assert!(said.contains("held 1\n") && said.contains("again 1\nalive\n"), "{drill}: {said}");
        assert!(errors.contains("the machine has lost its enclaves"), "{drill}: {errors}");
        let trace = std::fs::read_to_string(trace).unwrap();
        let refused = trace.lines().find(|line| line.contains("EPC_PRESENT"));
        assert!(refused.is_some(), "{drill}: no leaf was refused for the loss");
    }
    let s = Scratch::new();
    let none = output(own(&s).args(["sgx", "inspect"]), b"");
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("no machine of yours runs"), "{}", text(&none.stderr));
}

/// Each run is the machine after a power cycle: what is sealed stays good on the
/// platform and on its copy, and nowhere else.
#[test]
fn seal_keys_are_the_platforms() {
    let _turn = turn();
    let s = Scratch::new();
    let words = s.file("words", "correct horse battery staple");
    let on = |platform: &str, args: &[&str]| {
        let mut command = own(&s);
        command.args(["--platform", &s.at(platform)]).args(args);
        let out = output(&mut command, b"");
        assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    };
    on("one", &["platform", "init"]);
    on("other", &["platform", "init"]);
    on("one", &["platform", "backup", &s.at("backup"), "--passphrase-file", &words]);
    on("copy", &["platform", "restore", &s.at("backup"), "--passphrase-file", &words]);
    let key = |platform: &str| {
        let (said, _) = good(&s, &["--memory", "256M", "--platform", &s.at(platform)], "$CHECK hold");
        said.lines().find_map(|line| line.strip_prefix("secret ").map(str::to_owned)).expect(&said)
    };
    let sealed = key("one");
    assert_eq!(sealed, key("one"), "after a power cycle");
    assert_eq!(sealed, key("copy"), "on the platform brought back from its backup");
    assert_ne!(sealed, key("other"), "on another platform");
}

/// kexec is no reset: the next kernel finds the EPC as the last one left it, and
/// cleans it up as on silicon.
#[test]
fn kexec_leaves_the_epc_as_it_is() {
    let _turn = turn();
    let s = Scratch::new();
    let image = image::ensure(&image::Options::default()).unwrap();
    let read = |path: &std::path::Path| std::fs::read(path).unwrap();
    let init = b"#!/bin/sh
        mount -t devtmpfs dev /dev; mount -t proc proc /proc
        exec >/dev/console 2>&1
        check sgx1 && echo AFTER: ok
        poweroff -f";
    let files = guest::archive(&[
        ("kernel", &read(&image.kernel)),
        ("initrd", &read(&image.initrd)),
        ("new/init", init),
        ("new/bin/check", sgx_check()),
    ]);
    let (console, trace) = (s.at("console"), s.at("trace"));
    let mut command = own(&s);
    command.args(["run", "--quiet", "--memory", "512M", "--epc", "8M", "--timeout", TIMEOUT]);
    command.args(["--console", &console, "--trace", &format!("sgx={trace}")]);
    let script = "cd /tmp && tar x && cd new && find . | cpio -o -H newc >>../initrd && \
        bin/check kexec ../kernel ../initrd 'console=ttyS0'";
    let out = output(command.args(["--", "sh", "-c", script]), &files);
    let said = String::from_utf8_lossy(&read(&s.path("console"))).into_owned();
    assert!(said.contains("AFTER: ok"), "{}{}{said}", text(&out.stdout), text(&out.stderr));

    // The new kernel removes what the old one's enclave has left: its SECS only after
    // its pages, so a first attempt fails. After a reset the EPC would be empty.
    let trace = String::from_utf8_lossy(&read(&s.path("trace"))).into_owned();
    let lines: Vec<&str> = trace.lines().collect();
    let made = lines.iter().position(|l| l.contains(" EINIT ")).expect("an enclave was made");
    let refused = lines[made..].iter().find(|l| l.contains(" EREMOVE ") && l.contains("ChildPresent"));
    println!("{}", refused.expect("the enclave's SECS was found with its pages"));
}

#[test]
fn core_of_the_process_has_no_secret() {
    let _turn = turn();
    let s = Scratch::new();
    let holder = Holder::start(&s, &["--memory", "256M"]);
    let pid = holder.machine.id().to_string();
    let view = output(own(&s).args(["sgx", "inspect", "--json"]), b"");
    let view: serde_json::Value = serde_json::from_slice(&view.stdout).unwrap();
    let core = s.at("core");
    let dump = Command::new("gcore").args(["-a", "-o", &core, &pid]).output();
    let file = format!("{core}.{pid}");
    let dumped = dump.as_ref().is_ok_and(|out| out.status.success()) && std::fs::metadata(&file).is_ok();
    let (said, _) = holder.finish();
    let me = Command::new("id").arg("-u").output().unwrap();
    if !dumped && me.stdout != b"0\n" {
        println!("not shown: only root may dump a process that is not its child");
        return;
    }
    assert!(dumped, "gcore (of package gdb) made no core: {dump:?}");

    let value = |name: &str| {
        let hex = said.lines().find_map(|line| line.strip_prefix(name)).expect(&said).trim();
        u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
    };
    let (secret, control) = (value("secret "), value("control "));
    let mut found = [0u64; 2];
    let scanned = windows(std::fs::File::open(&file).unwrap(), |window| {
        found[0] += u64::from(*window == secret);
        found[1] += u64::from(*window == control);
    });
    println!(
        "{scanned} bytes scanned; secret {} times, control {} times; {}",
        found[0], found[1], view["memory"]["backend"]
    );
    assert!(scanned > 256 << 20);
    assert_eq!(found[0], 0, "the secret is in the core");
    assert_ne!(found[1], 0, "the control is not found: the search can fail");
}
