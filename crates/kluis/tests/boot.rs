//! `kluis run` with Debian's kernel: what the README promises, end to end.
//!
//! Each boot takes seconds, so each test asks one boot for as much as it can
//! tell; they run one after the other, to leave the host to one machine. The
//! image is built first if it is not in the cache. Deadlines here are only for
//! a machine that hangs.

mod common;

use common::{Scratch, kluis, output, text, turn};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "500s";

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

/// Linux on i386: CRC-32 of "123456789" bit by bit, in hexadecimal by DAS and
/// STOSB, PUSHA and POPA on the way; writes it and exits with 42, by INT 80H.
#[rustfmt::skip]
const I386: &[u8] = &[
    0xe8, 0x00, 0x00, 0x00, 0x00, 0x5d, 0x8d, 0xb5, 0x6c, 0x00, 0x00, 0x00, 0xb9, 0x09, 0x00, 0x00,
    0x00, 0xb8, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xb6, 0x16, 0x46, 0x31, 0xd0, 0xbb, 0x08, 0x00, 0x00,
    0x00, 0xd1, 0xe8, 0x73, 0x05, 0x35, 0x20, 0x83, 0xb8, 0xed, 0x4b, 0x75, 0xf4, 0xe2, 0xe7, 0xf7,
    0xd0, 0x60, 0x61, 0x83, 0xec, 0x0c, 0x89, 0xe7, 0xfc, 0xb9, 0x08, 0x00, 0x00, 0x00, 0xc1, 0xc0,
    0x04, 0x50, 0x24, 0x0f, 0x3c, 0x0a, 0x1c, 0x69, 0x2f, 0x0c, 0x20, 0xaa, 0x58, 0xe2, 0xef, 0xc6,
    0x07, 0x0a, 0x89, 0xe1, 0xba, 0x09, 0x00, 0x00, 0x00, 0xbb, 0x01, 0x00, 0x00, 0x00, 0xb8, 0x04,
    0x00, 0x00, 0x00, 0xcd, 0x80, 0xbb, 0x2a, 0x00, 0x00, 0x00, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xcd,
    0x80, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39,
];

/// A static 32-bit executable of that code.
fn i386_program() -> Vec<u8> {
    let base = 0x0804_8000u32;
    let length = 84 + I386.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([2u16, 3].into_iter().flat_map(u16::to_le_bytes)); // executable, i386
    elf.extend([1, base + 84, 52, 0, 0].into_iter().flat_map(u32::to_le_bytes));
    elf.extend([52u16, 32, 1, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    // One segment: all of the file, readable and executable.
    elf.extend([1, 0, base, base, length, length, 5, 0x1000].into_iter().flat_map(u32::to_le_bytes));
    elf.extend(I386);
    elf
}

#[test]
fn a_static_32_bit_program_runs() {
    let _turn = turn();
    let script = "cat > /tmp/p; chmod +x /tmp/p; /tmp/p; echo $?";
    let out = output(run(&["--cpus", "2"]).args(["--", "sh", "-c", script]), &i386_program());
    assert_eq!(text(&out.stdout), "cbf43926\n42\n", "{}", text(&out.stderr));
}

#[test]
fn userland_gives_known_answers() {
    let _turn = turn();
    let script = "nproc
        printf abc | md5sum; printf abc | sha1sum; printf abc | sha256sum; printf abc | sha512sum | cut -c1-32
        seq 1 20000 | gzip | gunzip | md5sum
        seq 1 20000 | bzip2 | bunzip2 | sha1sum
        awk 'BEGIN { printf \"%.17g %.17g %.17g\\n\", 1 / 3, 355 / 113, 1e300 * 1e-308 / 7 }'
        awk 'BEGIN { x = 0.5; for (i = 0; i < 1000; i++) x = 3.7 * x * (1 - x); printf \"%.17g\\n\", x }'
        printf '3 1 2' | tr ' ' '\\n' | sort -n | tr '\\n' ' '; echo";
    let out = sh(&["--cpus", "4"], script);
    // The logistic map is chaotic: one wrong bit anywhere shows.
    let mut x = 0.5f64;
    for _ in 0..1000 {
        x = 3.7 * x * (1.0 - x);
    }
    let logistic: f64 = text(&out.stdout).lines().nth(8).unwrap_or("").parse().unwrap_or(0.0);
    assert_eq!(logistic.to_bits(), x.to_bits(), "{}{}", text(&out.stdout), text(&out.stderr));
    let said = text(&out.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "4");
    assert_eq!(lines[1], "900150983cd24fb0d6963f7d28e17f72  -");
    assert_eq!(lines[2], "a9993e364706816aba3e25717850c26c9cd0d89d  -");
    assert_eq!(lines[3], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -");
    assert_eq!(lines[4], "ddaf35a193617abacc417349ae204131");
    assert_eq!(lines[5], "e071f707df7bbeee2a6a1eb48011ddd0  -");
    assert_eq!(lines[6], "49972ff155d0d5fb6bb9d8f18a7a4c4a2ea9562c  -");
    assert_eq!(lines[7], "0.33333333333333331 3.1415929203539825 1.4285714285714286e-09");
    assert_eq!(lines[9].trim(), "1 2 3");
}
