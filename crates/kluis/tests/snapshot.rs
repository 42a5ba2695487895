//! Snapshots of machines with Debian's kernel: their work goes on, each start is a
//! machine of its own, enclaves are lost and nothing of them is on disk.

mod common;

use common::{Scratch, guest, kluis, output, text, turn};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "500s";

/// `kluis` whose machines, and whose prepared snapshots, are this test's own.
fn own(s: &Scratch, args: &[&str]) -> Command {
    let mut command = kluis();
    command.env("XDG_RUNTIME_DIR", s.at("")).args(args);
    command
}

fn good(s: &Scratch, args: &[&str], input: &[u8]) -> String {
    let out = output(&mut own(s, args), input);
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// The one line with which `kluis` refuses.
fn refused(s: &Scratch, args: &[&str]) -> String {
    let Output { status, stderr, .. } = output(&mut own(s, args), b"");
    let why = text(&stderr);
    assert_eq!((status.code(), why.lines().count()), (Some(2), 1), "{args:?}: {why}");
    why
}

/// A machine that runs a command.
struct Machine {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Machine {
    fn start(s: &Scratch, args: &[&str], input: &[u8]) -> Self {
        let mut command = own(s, &["run", "--quiet", "--timeout", TIMEOUT]);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // ends the input, too
        std::thread::spawn(move || stdin.write_all(&input));
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn read_until(&mut self, wanted: &str) -> String {
        let (mut all, mut line) = (String::new(), String::new());
        while line.trim() != wanted {
            line.clear();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "ended before {wanted:?}: {all}");
            all += &line;
        }
        all
    }

    /// The rest of its output, and its exit code.
    fn finish(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

/// Chained digests on two processors; says where it is, and ends with 7.
const WORK: &str = "
work() { h=$1; i=0; while [ $i -lt 150 ]; do h=$(echo $h $i | sha256sum | cut -c1-64); i=$((i+1));
  [ $1 = a ] && [ $i = 20 ] && echo begun; done; echo $1 $h; }
work a & work b & wait; exit 7";

#[test]
fn work_goes_on_in_every_machine_from_it() {
    let _turn = turn();
    let s = Scratch::new();
    let snap = s.at("work.snap");
    let args = ["--cpus", "2", "--memory", "256M", "--", "sh", "-c", WORK];
    let mut machine = Machine::start(&s, &args, b"");
    machine.read_until("begun");
    let told = good(&s, &["snapshot", "take", &snap], b"");
    assert!(told.contains("Snapshot taken"), "{told}");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().filter(|line| *line != "begun").map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (rest, code) = machine.finish();
    let whole = sorted(&rest);
    assert_eq!((code, whole.len()), (Some(7), 2), "{rest}");
    let again: Vec<_> = (0..2).map(|_| Machine::start(&s, &["--snapshot", &snap], b"")).collect();
    for machine in again {
        let (rest, code) = machine.finish();
        assert_eq!((sorted(&rest), code), (whole.clone(), Some(7)));
    }

    assert!(good(&s, &["snapshot", "inspect", &snap], b"").contains("a command runs"));
    good(&s, &["snapshot", "verify", &snap], b"");
    assert!(refused(&s, &["snapshot", "take", &snap]).contains("exists"));
    assert!(refused(&s, &["run", "--snapshot", &snap, "--", "true"]).contains("leave out the command"));
    let none = s.file("none.snap", vec![0; 8192]);
    assert!(refused(&s, &["run", "--snapshot", &none]).contains("no snapshot of Kluis"));
    let mut bytes = std::fs::read(&snap).unwrap();
    bytes.truncate(bytes.len() - 1);
    let cut = s.file("cut.snap", &bytes);
    assert!(refused(&s, &["run", "--snapshot", &cut]).contains("damaged"));
    let other = ["--platform", &s.at("other"), "run", "--snapshot", &snap];
    assert!(refused(&s, &other).contains("another platform"));
}

#[test]
fn prepared_machines_are_each_their_own_and_on_time() {
    let _turn = turn();
    let s = Scratch::new();
    let snap = s.at("ready.snap");
    let out = output(&mut own(&s, &["snapshot", "prepare", "--memory", "256M", &snap]), b"");
    assert!(out.status.success(), "{}", text(&out.stderr));
    let script = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; date +%s; cat";
    let run = || {
        let begin = Instant::now();
        let args = ["run", "--quiet", "--timeout", TIMEOUT, "--snapshot", &snap, "--", "sh", "-c", script];
        let said = good(&s, &args, b"input\n");
        println!("{:?} to the end of a command", begin.elapsed());
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // true time long after the snapshot
    std::thread::sleep(Duration::from_secs(3));
    let (one, other) = (run(), run());
    assert_ne!(one[0], other[0], "two machines draw the same numbers");
    assert_ne!(one[1], other[1], "two machines draw the same numbers");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for said in [&one, &other] {
        assert!(now.abs_diff(said[2].parse().unwrap()) < 600, "{said:?}");
        assert_eq!(said[3], "input");
    }
}

#[test]
fn enclaves_are_lost_and_nothing_of_them_is_on_disk() {
    let _turn = turn();
    let s = Scratch::new();
    let snap = s.at("enclave.snap");
    let program = std::fs::read(guest::program("sgx-check")).unwrap();
    let script = format!(
        "head -c {} >/tmp/check; chmod +x /tmp/check; CHECK=/tmp/check
        $CHECK hold; echo held $?; $CHECK sgx1 >/tmp/log 2>&1; echo again $?; dmesg | grep -c 'Call Trace'",
        program.len()
    );
    let args = ["--memory", "256M", "--", "sh", "-c", &script];
    // without an end of its input the enclave is held
    let mut command = own(&s, &["run", "--quiet", "--timeout", TIMEOUT]);
    let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&program).unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let mut machine = Machine { child, lines };
    machine.read_until("holding");
    good(&s, &["snapshot", "take", &snap], b"");
    drop(input);
    let (said, _) = machine.finish();
    assert!(said.contains("held 0\n") && said.contains("again 0\n"), "the machine goes on: {said}");

    let (lost, code) = Machine::start(&s, &["--snapshot", &snap], b"").finish();
    println!("{lost}");
    assert!(lost.contains("held 1\n"), "its owner is told: {lost}");
    assert!(lost.contains("again 0\n0\n"), "and can make it anew, without complaints: {lost}");
    assert_eq!(code, Some(1), "grep found none");

    let value = |name: &str| {
        let hex = said.lines().find_map(|line| line.strip_prefix(name)).expect(&said).trim();
        u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
    };
    let (secret, control) = (value("secret "), value("control "));
    let bytes = std::fs::read(&snap).unwrap();
    let count = |wanted: [u8; 16]| bytes.windows(16).filter(|window| *window == wanted).count();
    assert_ne!(count(control), 0, "the control is not found: the search can fail");
    assert_eq!(count(secret), 0, "the secret is in the snapshot");
}

/// A multiboot image that says `r`, waits for a byte on COM1, says the number of
/// processors as fw_cfg has it, and exits with 10h.
const IMAGE: &[u8] = &[
    0x66, 0xba, 0xf8, 0x03, 0xb0, b'r', 0xee, // out 3f8h, 'r'
    0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, // until there is a byte
    0x66, 0xba, 0x10, 0x05, 0x66, 0xb8, 0x05, 0x00, 0x66, 0xef, // out 510h, 5
    0x66, 0xba, 0x11, 0x05, 0xec, 0x04, b'0', // in 511h
    0x66, 0xba, 0xf8, 0x03, 0xee, // out 3f8h
    0x66, 0xba, 0xf4, 0x00, 0xb0, 0x10, 0xee, // out f4h, 10h
    0xeb, 0xfe,
];

#[test]
fn images_made_for_qemu_go_on() {
    const AT: u32 = 0x10_0000;
    let s = Scratch::new();
    let header = [0x1bad_b002u32, 1 << 16, 0xe451_4ffe, AT, AT, 0, 0, AT + 32];
    let mut image: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    image.extend(IMAGE);
    let (image, snap) = (s.file("image", image), s.at("image.snap"));
    let mut command = own(&s, &["run", "--quiet", "--timeout", TIMEOUT, "--debug-exit"]);
    command.args(["--cpus", "3", "--memory", "64M", "--kernel", &image]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = [0];
    stdout.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"r");
    good(&s, &["snapshot", "take", &snap], b"");
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("3", Some(33)));
    let out = output(&mut own(&s, &["run", "--quiet", "--debug-exit", "--snapshot", &snap]), b"x");
    assert_eq!((text(&out.stdout).as_str(), out.status.code()), ("3", Some(33)), "{}", text(&out.stderr));
    assert!(refused(&s, &["run", "--snapshot", &snap]).contains("debug-exit"));
}
