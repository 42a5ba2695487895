//! The agent on socket pairs instead of virtio ports, with this machine's own
//! programs: everything but the drivers.

use agent_proto::*;
use kluis_init::{agent::Agent, ports::Ports};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

struct Host {
    control: UnixStream,
    stdin: UnixStream,
    stdout: UnixStream,
    stderr: UnixStream,
    decoder: Decoder,
    agent: JoinHandle<()>,
}

fn pair() -> (UnixStream, OwnedFd) {
    let (host, guest) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    (host, guest.into())
}

impl Host {
    fn new() -> Self {
        let (control, c) = pair();
        let (stdin, i) = pair();
        let (stdout, o) = pair();
        let (stderr, e) = pair();
        let ports = Ports { control: c, stdin: i, stdout: o, stderr: e };
        let agent = thread::spawn(move || Agent::new(ports, false).run());
        let mut host = Self { control, stdin, stdout, stderr, decoder: Decoder::new(), agent };
        assert_eq!(host.hear(), ToHost::Hello { version: VERSION });
        host
    }

    fn say(&mut self, message: ToGuest) {
        let mut frame = Vec::new();
        message.encode(&mut frame).unwrap();
        self.control.write_all(&frame).unwrap();
    }

    fn hear(&mut self) -> ToHost {
        let mut buf = [0; 4096];
        loop {
            if let Some(m) = ToHost::next(&mut self.decoder).unwrap() {
                return m;
            }
            let n = self.control.read(&mut buf).unwrap();
            assert_ne!(n, 0, "the agent hung up");
            self.decoder.push(&buf[..n]);
        }
    }

    fn exec(&mut self, argv: &[&str]) {
        self.say(ToGuest::Exec(Exec {
            argv: argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
            cwd: b"/".to_vec(),
            ..Exec::default()
        }));
    }

    fn tty(&mut self, script: &str) {
        self.say(ToGuest::Exec(Exec {
            argv: ["sh", "-c", script].map(|a| a.as_bytes().to_vec()).to_vec(),
            cwd: b"/".to_vec(),
            env: vec![(b"V".to_vec(), b"w x".to_vec())],
            tty: Some(Tty { rows: 31, cols: 97, term: b"dumb".to_vec() }),
        }));
    }

    /// The exit and all output, read by count.
    fn end(&mut self) -> (ExitStatus, Vec<u8>, Vec<u8>) {
        match self.hear() {
            ToHost::Exit { status, stdout, stderr } => {
                let mut out = vec![0; stdout as usize];
                let mut err = vec![0; stderr as usize];
                self.stdout.read_exact(&mut out).unwrap();
                self.stderr.read_exact(&mut err).unwrap();
                (status, out, err)
            }
            other => panic!("{other:?}"),
        }
    }

    fn until(&mut self, what: &str) {
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(what.as_bytes()) {
            self.stdout.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }

    fn shutdown(mut self) {
        self.say(ToGuest::Shutdown);
        self.agent.join().unwrap();
    }
}

#[test]
fn exit_codes_signals_and_streams_arrive_apart() {
    let mut h = Host::new();
    h.exec(&["sh", "-c", "echo out; echo err >&2; pwd; exit 7"]);
    assert_eq!(h.end(), (ExitStatus::Code(7), b"out\n/\n".to_vec(), b"err\n".to_vec()));
    h.say(ToGuest::StdinEof { total: 0 });
    h.exec(&["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(h.end().0, ExitStatus::Signal(11));
    h.shutdown();
}

#[test]
fn what_cannot_run_is_told_as_a_shell_would() {
    let mut h = Host::new();
    let cases: [(&[&str], u8, &str); 4] = [
        (&["no-such-program"], 127, "kluis: no-such-program: not found\n"),
        (&["/no/such"], 127, "kluis: /no/such: not found\n"),
        (&["/etc/passwd"], 126, "kluis: /etc/passwd: permission denied\n"),
        (&["/"], 126, "kluis: /: permission denied\n"),
    ];
    for (argv, code, text) in cases {
        h.exec(argv);
        let (status, out, err) = h.end();
        assert_eq!(status, ExitStatus::Code(code));
        assert_eq!((out.as_slice(), String::from_utf8(err).unwrap()), (&[][..], text.into()));
        h.say(ToGuest::StdinEof { total: 0 });
    }
    h.say(ToGuest::Exec(Exec { argv: vec![b"true".to_vec()], cwd: b"/nowhere".to_vec(), ..Exec::default() }));
    assert_eq!(h.end(), (ExitStatus::Code(126), vec![], b"kluis: /nowhere: not found\n".to_vec()));
    h.shutdown();
}

#[test]
fn sixteen_mebibytes_pass_through_cat_unchanged() {
    let mut x = 1u32;
    let data: Vec<u8> = (0..16 << 20)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        })
        .collect();
    let mut h = Host::new();
    h.exec(&["cat"]);
    let mut stdin = h.stdin.try_clone().unwrap();
    let sent = data.clone();
    let writer = thread::spawn(move || stdin.write_all(&sent).unwrap());
    // the end is announced before most of the bytes are there
    h.say(ToGuest::StdinEof { total: data.len() as u64 });
    let mut back = vec![0; data.len()];
    h.stdout.read_exact(&mut back).unwrap();
    writer.join().unwrap();
    assert!(back == data, "bytes changed on the way");
    assert_eq!(h.hear(), ToHost::Exit { status: ExitStatus::Code(0), stdout: data.len() as u64, stderr: 0 });
    h.shutdown();
}

#[test]
fn input_left_over_is_discarded_before_the_next_command() {
    let mut h = Host::new();
    h.exec(&["head", "-c", "3"]);
    h.stdin.write_all(b"abcdefghij").unwrap();
    assert_eq!(h.end().1, b"abc");
    h.exec(&["cat"]);
    assert!(matches!(h.hear(), ToHost::Refused { .. }), "its input is open");
    // the next command is accepted though 6 bytes are still to come
    h.say(ToGuest::StdinEof { total: 16 });
    h.exec(&["cat"]);
    h.stdin.write_all(b"klmnopNEXT").unwrap();
    h.say(ToGuest::StdinEof { total: 4 });
    assert_eq!(h.end(), (ExitStatus::Code(0), b"NEXT".to_vec(), vec![]));
    h.shutdown();
}

#[test]
fn a_program_left_behind_does_not_hold_up_the_end() {
    let mut h = Host::new();
    h.exec(&["sh", "-c", "sleep 1000 & echo $!; exit 3"]);
    let (status, out, _) = h.end();
    assert_eq!(status, ExitStatus::Code(3));
    let pid: i32 = String::from_utf8(out).unwrap().trim().parse().unwrap();
    // SAFETY: plain system call.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "it still runs");
    h.shutdown();
}

#[test]
fn a_flood_nobody_reads_blocks_only_its_command() {
    let mut h = Host::new();
    h.exec(&["yes"]);
    assert_ne!(h.stdout.read(&mut [0; 64]).unwrap(), 0);
    h.exec(&["true"]);
    assert!(matches!(h.hear(), ToHost::Refused { .. }), "busy, yet it answers");
    // closing the output ends it by SIGPIPE, as on one machine
    h.say(ToGuest::CloseOutput(Stream::Stdout));
    match h.hear() {
        ToHost::Exit { status, .. } => assert_eq!(status, ExitStatus::Signal(13)),
        other => panic!("{other:?}"),
    }
    h.shutdown();
}

#[test]
fn signals_reach_the_whole_group() {
    let mut h = Host::new();
    h.exec(&["sh", "-c", "sleep 1000 | sleep 1000; echo not here"]);
    h.say(ToGuest::Signal(15));
    assert_eq!(h.end(), (ExitStatus::Signal(15), vec![], vec![]));
    h.shutdown();
}

#[test]
fn a_terminal_has_size_type_signals_and_an_end_of_file() {
    let mut h = Host::new();
    h.tty("test -t 0 -a -t 1 -a -t 2 && echo $TERM $V; stty size; trap 'stty size; exit 9' WINCH; echo sleeping; while :; do sleep 0.05; done");
    h.until("dumb w x\r\n31 97\r\nsleeping\r\n");
    h.say(ToGuest::Winsize { rows: 5, cols: 6 });
    h.until("5 6\r\n");
    match h.hear() {
        ToHost::Exit { status, stderr, .. } => {
            assert_eq!((status, stderr), (ExitStatus::Code(9), 0));
        }
        other => panic!("{other:?}"),
    }
    h.say(ToGuest::StdinEof { total: 0 });

    // ^C typed: the line discipline makes it SIGINT
    h.tty("echo ready; exec sleep 1000");
    h.until("ready\r\n");
    h.stdin.write_all(b"\x03").unwrap();
    match h.hear() {
        ToHost::Exit { status, .. } => assert_eq!(status, ExitStatus::Signal(2)),
        other => panic!("{other:?}"),
    }
    h.say(ToGuest::StdinEof { total: 1 });
    h.until("^C");

    h.tty("stty -echo; echo ready; cat; echo done");
    h.until("ready\r\n");
    h.stdin.write_all(b"one\ntwo").unwrap();
    h.say(ToGuest::StdinEof { total: 7 });
    h.until("one\r\ntwodone\r\n");
    match h.hear() {
        ToHost::Exit { status, .. } => assert_eq!(status, ExitStatus::Code(0)),
        other => panic!("{other:?}"),
    }
    h.shutdown();
}

#[test]
fn broken_frames_are_refused_and_the_agent_goes_on() {
    let mut h = Host::new();
    h.control.write_all(&[1, 0, 0, 0, 0x77, 0]).unwrap();
    assert!(matches!(h.hear(), ToHost::Refused { .. }));
    h.control.write_all(&[2, 0, 0, 0, 1, 0xFF, 0xFF]).unwrap();
    assert!(matches!(h.hear(), ToHost::Refused { .. }));
    let len = MAX_PAYLOAD as u32 + 1;
    h.control.write_all(&len.to_le_bytes()).unwrap();
    h.control.write_all(&[1]).unwrap();
    assert!(matches!(h.hear(), ToHost::Refused { .. }));
    h.control.write_all(&vec![6; len as usize]).unwrap();
    h.exec(&["sh", "-c", "exit 4"]);
    assert_eq!(h.end().0, ExitStatus::Code(4));
    h.shutdown();
}

#[test]
fn closed_ports_leave_the_agent_alive() {
    let h = Host::new();
    let Host { mut control, stdin, stdout, stderr, agent, .. } = h;
    drop((stdin, stdout, stderr));
    let mut frame = Vec::new();
    ToGuest::Exec(Exec {
        argv: ["sh", "-c", "echo lost; exit 5"].map(|a| a.as_bytes().to_vec()).to_vec(),
        cwd: b"/".to_vec(),
        ..Exec::default()
    })
    .encode(&mut frame)
    .unwrap();
    control.write_all(&frame).unwrap();
    let mut decoder = Decoder::new();
    let exit = loop {
        if let Some(m) = ToHost::next(&mut decoder).unwrap() {
            break m;
        }
        let mut buf = [0; 64];
        let n = control.read(&mut buf).unwrap();
        decoder.push(&buf[..n]);
    };
    assert_eq!(exit, ToHost::Exit { status: ExitStatus::Code(5), stdout: 0, stderr: 0 });
    frame.clear();
    ToGuest::Shutdown.encode(&mut frame).unwrap();
    control.write_all(&frame).unwrap();
    agent.join().unwrap();
}

#[test]
fn a_share_that_cannot_be_mounted_is_refused_and_the_agent_goes_on() {
    let mut host = Host::new();
    for target in ["relative", "/dev/null/below"] {
        host.say(ToGuest::Mount(Mount {
            tag: b"no such share".to_vec(),
            target: target.into(),
            read_only: true,
        }));
        match host.hear() {
            ToHost::Refused { reason } => assert!(reason.contains(target), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    host.exec(&["sh", "-c", "echo on"]);
    host.say(ToGuest::StdinEof { total: 0 });
    assert_eq!(host.end().1, b"on\n");
}
