//! gdb itself against small machines: a program of a few bytes, whose every
//! address is known.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::Kernel;
use machine::gdb::Server;
use machine::{Outcome, Paused, Running};

const PATIENCE: Duration = Duration::from_secs(60);

/// Counts in a loop, with a call.
const PROGRAM: &[u8] = &[
    0xbc, 0x00, 0x00, 0x30, 0x00, // 100000: mov esp, 0x300000
    0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // 100005: inc qword [0x200000]
    0xe8, 0x02, 0x00, 0x00, 0x00, // 10000d: call 100014
    0xeb, 0xf1, // 100012: jmp 100005
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, // 100014: mov rax, [0x200000]
    0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x20, 0x00, // 10001c: mov [0x200008], rax
    0x0f, 0x1f, 0x44, 0x00, 0x00, // 100024: nop
    0xc3, // 100029: ret
];

/// `ud2`, with no handlers for it: a triple fault.
const FAULT: &[u8] = &[0x0f, 0x0b];

struct Debugged {
    running: Arc<Running>,
    server: Server,
    _kernel: Kernel,
}

fn debugged(name: &str, code: &[u8], cpus: usize) -> Debugged {
    let kernel = Kernel::new(name, code);
    let (running, paused): (Arc<Running>, Paused) = common::start(kernel.config(cpus));
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    server.serve(running.clone(), Some(paused), false).unwrap();
    Debugged { running, server, _kernel: kernel }
}

impl Debugged {
    /// What gdb prints for these commands.
    fn gdb(&self, commands: &[&str]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-q", "-batch", "-iex", "set auto-load off", "-ex", "set confirm off"]);
        gdb.args(["-ex", "set architecture i386:x86-64"]);
        gdb.args(["-ex", &format!("target remote {}", self.server.address().unwrap())]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let output = gdb.stdin(Stdio::null()).output().expect("gdb is installed (see ./test)");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        println!("{text}");
        text.into_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.running.bus_read(address, 8).try_into().unwrap())
    }
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
}

#[test]
fn breakpoints_steps_registers_and_memory() {
    let machine = debugged("gdb-break", PROGRAM, 2);
    let text = machine.gdb(&[
        "printf \"start %lx, count %lu\\n\", $pc, *(unsigned long*)0x200000",
        "info threads",
        "break *0x100014",
        "continue",
        "printf \"first %lx, count %lu, sp %lx\\n\", $pc, *(unsigned long*)0x200000, $sp",
        "continue 4",
        "printf \"fifth %lx, count %lu\\n\", $pc, *(unsigned long*)0x200000",
        "stepi",
        "printf \"step %lx, rax %lu\\n\", $pc, $rax",
        // what is at a breakpoint is as the guest has it
        "x/8xb 0x100014",
        "set $rax = 0x1234",
        "stepi",
        "printf \"written %lx\\n\", *(unsigned long*)0x200008",
        "stepi",
        "set $xmm0.v2_int64[0] = 0x1234",
        "printf \"xmm %lx\\n\", $xmm0.v2_int64[0]",
        "set {unsigned long}0x200000 = 100",
        "delete",
        "hbreak *0x100029",
        "continue",
        "printf \"hardware %lx, rax %lu\\n\", $pc, $rax",
        "info registers efer cr3 eflags cs",
        "set $cr3 = 0",
        "monitor cpus",
        "monitor regs 1",
        "monitor translate 0x200008",
        "monitor phys 0x100000 16",
        "monitor phys 0x100000000 16",
        "monitor nonsense",
        "x/4xb 0x123456789000",
        "detach",
    ]);
    has(
        &text,
        &[
            "start 100000, count 0",
            "first 100014, count 1, sp 2ffff8",
            "fifth 100014, count 5",
            "step 10001c, rax 5",
            "0x100014:\t0x48\t0x8b\t0x04\t0x25\t0x00\t0x00\t0x20\t0x00",
            "written 1234",
            "xmm 1234",
            "hardware 100029, rax ",
            "Thread 1.2 (waiting to be started)",
            "processor 1: active, 64-bit, cpl 0",
            "processor 2: waiting to be started",
            "0x200008 is at physical 0x200008",
            "000000100000  bc 00 00 30 00 48 ff 04 25 00 00 20 00 e8 02 00",
            "000100000000  ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff",
            "monitor translate ADDR",
            "Cannot access memory at address 0x123456789000",
            "efer           0x500",
        ],
    );
    // it goes on without the debugger
    let count = machine.word(0x200000);
    let begin = std::time::Instant::now();
    while machine.word(0x200000) <= count + 10_000 {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn watchpoints_of_each_kind() {
    let machine = debugged("gdb-watch", PROGRAM, 1);
    let text = machine.gdb(&[
        "watch *(unsigned long*)0x200008",
        "continue",
        "printf \"write %lx\\n\", $pc",
        "delete",
        "rwatch *(unsigned long*)0x200000",
        "continue",
        "printf \"read %lx\\n\", $pc",
        "delete",
        // the stack: a call writes, a return reads
        "awatch *(unsigned long*)0x2ffff8",
        "continue",
        "printf \"access %lx\\n\", $pc",
        "continue",
        "printf \"access %lx\\n\", $pc",
        "delete",
        "break *0x100005",
        "continue",
        "printf \"break %lx dr7 is the guest's\\n\", $pc",
        "kill",
    ]);
    has(&text, &["write 100024", "Old value = 0", "break 100005"]);
    has(&text, &["Hardware read watchpoint", "Hardware access (read/write) watchpoint", "access 100014"]);
    assert!(text.contains("read 10000d") || text.contains("read 10001c"), "{text}");
    assert_eq!(machine.running.wait(Some(PATIENCE)), Some(Outcome::Stopped), "kill stops the machine");
}

#[test]
fn a_triple_fault_can_be_looked_at() {
    let machine = debugged("gdb-fault", FAULT, 1);
    let text = machine.gdb(&["continue", "printf \"at %lx\\n\", $pc", "monitor cpus", "continue"]);
    has(&text, &["SIGSEGV", "at 100000", "shut down", "Program terminated with signal SIGSEGV"]);
    assert!(matches!(machine.running.wait(Some(PATIENCE)), Some(Outcome::TripleFault(_))));
}

/// A packet of the remote protocol.
fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

#[test]
fn ctrl_c_interrupts_and_a_vanished_debugger_leaves_nothing() {
    let machine = debugged("gdb-interrupt", PROGRAM, 1);
    let mut stream = machine.connect();
    stream.write_all(&[packet(b"Z0,100014,1"), packet(b"vCont;c")].concat()).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 256];
    let mut until = |stream: &mut TcpStream, what: &[u8]| {
        answer.clear();
        while !answer.windows(what.len()).any(|window| window == what) {
            let n = stream.read(&mut piece).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend(&piece[..n]);
        }
    };
    until(&mut stream, b"$T05");
    stream.write_all(&[packet(b"z0,100014,1"), packet(b"vCont;c")].concat()).unwrap();
    let count = machine.word(0x200000);
    let begin = std::time::Instant::now();
    while machine.word(0x200000) <= count {
        assert!(begin.elapsed() < PATIENCE);
    }
    stream.write_all(&[3]).unwrap();
    until(&mut stream, b"$S02");
    let count = machine.word(0x200000);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(machine.word(0x200000), count);
    // with a breakpoint set it is gone without a word
    stream.write_all(&packet(b"Z0,100014,1")).unwrap();
    drop(stream);
    let begin = std::time::Instant::now();
    while machine.word(0x200000) <= count + 1000 {
        assert!(begin.elapsed() < PATIENCE, "the machine stands");
    }
}

#[test]
fn clients_that_talk_nonsense_harm_nobody() {
    let machine = debugged("gdb-nonsense", PROGRAM, 2);
    // xorshift, fixed seed
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: &[&[u8]] = &[
        b"g",
        b"G00",
        b"m0,ffffffffffffffff",
        b"mfffffffffffffff8,40",
        b"M100000,4:zz",
        b"M100000,fffff:00",
        b"p1",
        b"pffffffff",
        b"P10=00",
        b"Hg2",
        b"Hgffff",
        b"Hc0",
        b"vCont;s:7",
        b"vCont;s:1",
        b"vCont;c",
        b"Z0,100005,1",
        b"Z2,0,0",
        b"Z2,ffffffffffffffff,ffffffffffffffff",
        b"Z3,200000,8",
        b"z4,1,1",
        b"?",
        b"qXfer:features:read:target.xml:fffffff,fff",
        b"qXfer:features:read:target.xml:0,ffff",
        b"qRcmd,70687973203020ff",
        b"qRcmd,7265677320393939",
        b"qThreadExtraInfo,99",
        b"qsThreadInfo",
        b"T5",
        b"!",
        b"R",
        b"D;9",
        b"\x80\xff",
    ];
    for _ in 0..60 {
        let mut stream = machine.connect();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        for _ in 0..1 + random() % 20 {
            let mut bytes = match random() % 4 {
                0 => (0..random() % 64).map(|_| random() as u8).collect(),
                1 => vec![3],
                _ => packet(words[random() as usize % words.len()]),
            };
            if random() % 8 == 0 && !bytes.is_empty() {
                let at = random() as usize % bytes.len();
                bytes[at] ^= 1 << (random() % 8);
            }
            if stream.write_all(&bytes).is_err() {
                break;
            }
            let _ = stream.read(&mut [0; 4096]);
        }
    }
    // more than a packet may have
    let mut stream = machine.connect();
    let _ = stream.write_all(&[b"$".as_slice(), &vec![b'a'; 1 << 20]].concat());
    drop(stream);
    // the machine still runs, and a debugger still finds it
    let text = machine.gdb(&["info threads", "echo all well\\n", "kill"]);
    has(&text, &["Thread 1.1", "Thread 1.2", "all well"]);
    assert_eq!(machine.running.wait(Some(PATIENCE)), Some(Outcome::Stopped));
}
