//! `kluis run` with Debian's kernel: what the README promises, end to end.
//!
//! Each boot takes seconds, so each test asks one boot for as much as it can
//! tell; they run one after the other, to leave the host to one machine. The
//! image is built first if it is not in the cache. Deadlines here are only for
//! a machine that hangs.

mod common;

use common::{Scratch, kluis, output, text};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "500s";

/// One machine at a time; the first caller has the image built.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static IMAGE: Once = Once::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    IMAGE.call_once(|| {
        let image = image::ensure(&image::Options::default());
        assert!(image.is_ok(), "no guest image: {}", image.unwrap_err());
    });
    turn
}

fn run(args: &[&str]) -> Command {
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT]).args(args);
    command
}

fn sh(args: &[&str], script: &str) -> Output {
    output(run(args).args(["--", "sh", "-c", script]), b"")
}

#[test]
fn command_has_its_kernel_its_streams_and_its_exit_code() {
    let _turn = turn();
    let out = sh(&[], "uname -srm; id -u; echo err >&2; printf 'a\\0b\\377' >&2; read x || echo eof; exit 7");
    assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
    let said = text(&out.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("Linux 6.") && lines[0].ends_with("-cloud-amd64 x86_64"), "{said}");
    assert_eq!(lines[1..], ["0", "eof"]);
    assert_eq!(out.stderr, b"err\na\0b\xff");
}

#[test]
fn sixteen_mebibytes_come_back_identical() {
    let _turn = turn();
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    })
    .take(2 << 20)
    .flatten()
    .collect();
    let out = output(run(&[]).args(["--", "cat"]), &data);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(out.stdout == data, "{} bytes came back", out.stdout.len());
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn eight_processors_work() {
    let _turn = turn();
    // as many instructions on each processor, for it alone
    let script = "for cpu in 0 1 2 3 4 5 6 7; do
        taskset $(printf %x $((1 << cpu))) sh -c 'n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done' &
    done; wait; nproc";
    let out = sh(&["--cpus", "8", "--json"], script);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "8\n");
    let stats: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    let retired: Vec<u64> =
        stats["retired"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert_eq!(retired.len(), 8);
    // an iteration takes far more than a hundred instructions
    assert!(retired.iter().all(|&n| n > 30_000 * 100), "{retired:?}");
    assert_eq!(stats["end"]["kind"], "command");
    assert!(stats["boot_to_init_seconds"].as_f64().unwrap() > 0.0, "{stats}");
    assert_eq!(stats["unimplemented"].as_array().unwrap().len(), 0, "{stats}");
}

#[test]
fn signal_reaches_the_command() {
    let _turn = turn();
    let script = "trap 'echo got it; exit 9' TERM; echo up; while :; do sleep 0.05; done";
    let mut child = run(&["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "up");
    let kill = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn closed_output_ends_the_command_that_writes() {
    let _turn = turn();
    let mut child = run(&["--", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut some = [0; 2];
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    assert_eq!(&some, b"y\n");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

#[test]
fn disks_keep_what_is_written_and_only_that() {
    let _turn = turn();
    let s = Scratch::new();
    let writable = s.file("writable", vec![b'w'; 1 << 20]);
    let fixed = s.file("fixed", [b'r'; 4096]);
    let script = "head -c 3 /dev/vda; head -c 3 /dev/vdb; echo
        printf changed | dd of=/dev/vda bs=1 seek=5000 conv=notrunc 2>/dev/null
        printf changed 2>/dev/null > /dev/vdb || echo read-only
        wc -c < /dev/vdb";
    let out = sh(&["--disk", &writable, "--disk", &format!("{fixed},ro")], script);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "wwwrrr\nread-only\n4096\n");
    let after = std::fs::read(&writable).unwrap();
    assert_eq!(after.len(), 1 << 20);
    assert_eq!(&after[4998..5009], b"wwchangedww");
    assert!(std::fs::read(&fixed).unwrap() == [b'r'; 4096]);
}

#[test]
fn time_is_up_for_a_command_that_runs() {
    let _turn = turn();
    // a host on which the boot itself takes longer gives the same code
    let out = output(kluis().args(["run", "--timeout", "20s", "--", "sleep", "10000"]), b"");
    assert_eq!(out.status.code(), Some(124));
    assert!(text(&out.stderr).contains("--timeout"), "{}", text(&out.stderr));
}
