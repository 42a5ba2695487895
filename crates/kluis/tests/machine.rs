//! `kluis run` with kernels of a few instructions: the serial port, how
//! machines end, what is told about it. No Linux, so no boot to wait for.

mod common;

use common::{ECHO, HANG, RESET, Scratch, TRIPLE_FAULT, kernel, kluis, output, say, text};
use std::io::Read;
use std::process::{Command, Stdio};

/// `kluis run` with a kernel of this code.
fn run(s: &Scratch, code: &[&[u8]]) -> Command {
    let file = s.file("kernel", kernel(&code.concat()));
    let mut command = kluis();
    command.args(["run", "--memory", "64M", "--kernel", &file]);
    command
}

#[test]
fn serial_port_is_standard_output_and_input() {
    let s = Scratch::new();
    let out = output(&mut run(&s, &[&say("hi\r\n"), ECHO, RESET]), b"\x00\xff\x1dq and the rest");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(out.stdout, b"hi\r\n\x00\xff\x1dq");
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn long_input_is_not_lost_in_a_short_fifo() {
    let s = Scratch::new();
    let mut input: Vec<u8> = (0..3000u32).map(|i| b'a' + (i % 16) as u8).collect();
    input.push(b'q');
    let out = output(&mut run(&s, &[ECHO, RESET]), &input);
    assert!(out.stdout == input, "{} of {} bytes", out.stdout.len(), input.len());
}

#[test]
fn console_goes_to_a_file_as_well() {
    let s = Scratch::new();
    let log = s.at("log");
    let out = output(run(&s, &[&say("one\ntwo"), RESET]).args(["--console", &log]), b"");
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(text(&out.stdout), "one\ntwo");
    assert_eq!(std::fs::read_to_string(log).unwrap(), "one\ntwo");
}

#[test]
fn triple_fault_is_reported_with_the_state() {
    let s = Scratch::new();
    let out = output(run(&s, &[TRIPLE_FAULT]).arg("--quiet"), b"");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{said}");
    assert!(said.contains("triple fault") && said.contains("rip 0000000000200000"), "{said}");
}

#[test]
fn machine_that_ends_before_the_agent_comes_is_a_failure() {
    let s = Scratch::new();
    let out = output(run(&s, &[&say("last words\n"), RESET]).args(["--", "true"]), b"");
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{said}");
    assert!(said.contains("agent") && said.contains("last words"), "{said}");
    assert_eq!(text(&out.stdout), "");
}

#[test]
fn kernel_panic_is_a_failure() {
    let s = Scratch::new();
    let out = output(&mut run(&s, &[&say("Kernel panic - not syncing: no\n"), RESET]), b"");
    assert_eq!(out.status.code(), Some(125));
    assert!(text(&out.stderr).contains("panicked"), "{}", text(&out.stderr));
}

#[test]
fn timeout_stops_the_machine() {
    let s = Scratch::new();
    let out = output(run(&s, &[HANG]).args(["--timeout", "200ms"]), b"");
    assert_eq!(out.status.code(), Some(124));
    assert!(text(&out.stderr).contains("--timeout"), "{}", text(&out.stderr));
    let out = output(run(&s, &[HANG]).args(["--timeout", "200ms", "--quiet", "--", "true"]), b"");
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(124), String::new()));
}

/// *proc(5)*, `SigIgn`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & 1 != 0
}

#[test]
fn signal_stops_a_machine_without_a_command() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        if signal == "HUP" && hangup_is_ignored() {
            // under nohup, and then Kluis ignores it as well
            continue;
        }
        let s = Scratch::new();
        let mut child =
            run(&s, &[&say("up"), HANG]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut up = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn sockets_go_with_the_machine_however_it_ends() {
    for signal in ["TERM", "KILL"] {
        let s = Scratch::new();
        let (one, other) = (s.at("one"), s.at("other"));
        let mut command = run(&s, &[&say("up"), HANG]);
        command.args(["--vsock-listen", &format!("7000={one}"), "--vsock-listen", &format!("7001={other}")]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut up = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert!(s.path("one").exists() && s.path("other").exists());
        // somebody else's by now
        std::fs::remove_file(&other).unwrap();
        std::fs::write(&other, "kept").unwrap();
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        child.wait().unwrap();
        let begin = std::time::Instant::now();
        // who was killed could not wait for that
        while signal == "KILL" && s.path("one").exists() && begin.elapsed().as_secs() < 60 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!s.path("one").exists(), "after SIG{signal}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
    }
}

/// Before the guest's first instruction, all threads are confined.
#[test]
fn machines_process_is_confined() {
    let s = Scratch::new();
    let mut child = run(&s, &[&say("up"), HANG]).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()), "{status}");
        threads += 1;
    }
    assert!(threads > 2, "processor, timers, signals: {threads}");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn machine_starts_again_when_asked_to() {
    let s = Scratch::new();
    let mut command = run(&s, &[&say("up "), RESET]);
    let mut child = command.arg("--reboot").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = [0; 9];
    child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(&said, b"up up up ");
    let out = output(run(&s, &[HANG]).args(["--reboot", "--", "true"]), b"");
    assert_eq!(out.status.code(), Some(2), "a command does not survive a reset");
}

#[test]
fn closed_standard_output_does_not_stop_the_machine() {
    let s = Scratch::new();
    let mut command = run(&s, &[&say(&"x".repeat(2000)), RESET]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn statistics_are_for_people_and_programs() {
    let s = Scratch::new();
    let out = output(run(&s, &[&say("x"), RESET]).args(["--stats", "--cpus", "2"]), b"");
    let said = text(&out.stderr);
    assert!(said.contains("wall time") && said.contains("processor 1"), "{said}");
    let out = output(run(&s, &[&say("x"), RESET]).args(["--json", "--cpus", "2"]), b"");
    let stats: serde_json::Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(stats["cpus"], 2);
    assert_eq!(stats["model"], "xeon-e-2288g");
    assert_eq!(stats["memory"], 64 << 20);
    assert_eq!(stats["exit_code"], 0);
    assert_eq!(stats["end"]["kind"], "machine");
    let retired = stats["retired"].as_array().unwrap();
    // three that write and five that reset; the second processor was never started
    assert!(retired[0].as_u64().unwrap() >= 8, "{stats}");
    assert_eq!(retired[1], 0);
}

#[test]
fn greatest_size_starts_on_any_host() {
    let s = Scratch::new();
    let file = s.file("kernel", kernel(&[&say("big"), RESET].concat()));
    let out = output(kluis().args(["run", "--size", "Standard_DC48s_v3", "--kernel", &file]), b"");
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert_eq!(text(&out.stdout), "big");
}

#[test]
fn instruction_that_does_not_exist_stops_a_strict_machine() {
    let s = Scratch::new();
    // VMCALL is none of this machine's instructions
    let out = output(run(&s, &[&[0x0f, 0x01, 0xc1], HANG]).args(["--strict", "--timeout", "60s"]), b"");
    assert_eq!(out.status.code(), Some(125), "{}", text(&out.stderr));
}
