//! gdb itself against Debian's kernel on two processors that are at work, with the
//! machine's process behind its walls.

mod common;

use common::{kluis, output, text, turn};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A processor in a loop of system calls each; addresses of the kernel; the end when
/// there is a line of input.
const SCRIPT: &str = "
echo A >/tmp/aaaa; echo B >/tmp/baaa
work() { while :; do read -r x </tmp/aaaa; [ $x = A ] || echo \"$x\" >/tmp/other; done; }
work & work &
grep -E ' (do_sys_openat2|entry_SYSCALL_64|jiffies_64)$' /proc/kallsyms
echo ready; read -r line; kill $(jobs -p)
echo other $(cat /tmp/other); echo last $line; exit 7";

struct Machine {
    child: Child,
    lines: BufReader<ChildStdout>,
    gdb: String,
}

impl Machine {
    /// Starts it, and a thread that reads its messages but the first, which tells the port.
    fn start(args: &[&str]) -> Self {
        let mut command = kluis();
        command.args(["run", "--network", "none", "--timeout", "500s"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut messages = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        messages.read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "at").expect(&line);
        let gdb = words[at + 1].trim_end_matches(',').to_owned();
        std::thread::spawn(move || std::io::copy(&mut messages, &mut std::io::sink()));
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, gdb }
    }

    /// Its lines up to `wanted`.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "ended before {wanted:?}: {all:?}");
            if line.trim() == wanted {
                return all;
            }
            all.push(line.trim().to_owned());
        }
    }

    /// What gdb prints for these commands.
    fn gdb(&self, commands: &[&str]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-q", "-batch", "-iex", "set auto-load off", "-ex", "set confirm off"]);
        gdb.args(["-ex", &format!("target remote {}", self.gdb)]);
        gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
        let out = output(&mut gdb, b"");
        let said = text(&out.stdout) + &text(&out.stderr);
        println!("{said}");
        said
    }
}

impl Machine {
    /// Waits for it; its exit code.
    fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// The value that gdb printed behind `name`.
fn value(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn linux_on_two_processors() {
    let _turn = turn();
    let mut machine = Machine::start(&[
        "--gdb",
        "127.0.0.1:0,nowait",
        "--cpus",
        "2",
        "--memory",
        "256M",
        "--",
        "sh",
        "-c",
        SCRIPT,
    ]);
    let symbols = machine.until("ready");
    let address = |name: &str| {
        let line = symbols.iter().find(|line| line.ends_with(name)).expect("the kernel's symbol");
        format!("0x{}", line.split(' ').next().unwrap())
    };
    let (open, entry, jiffies) =
        (address(" do_sys_openat2"), address(" entry_SYSCALL_64"), address(" jiffies_64"));
    // "tmp/aaaa", so that only the guest's own loops stop here
    let ours = format!("break *{open} if *(unsigned long*)($rsi + 1) == 0x616161612f706d74");
    let said = machine.gdb(&[
        "info threads",
        "monitor cpus",
        &ours,
        "continue",
        "printf \"open %lx\\n\", $pc",
        "printf \"user %lx\\n\", $rsi",
        "printf \"path %s\\n\", (char*)$rsi",
        // it opens another file then
        "set {char}($rsi + 5) = 'b'",
        "printf \"path %s\\n\", (char*)$rsi",
        "printf \"cpl %lx\\n\", $cs & 3",
        "stepi",
        "printf \"stepped %lx\\n\", $pc",
        "stepi",
        "x/2i $pc",
        "delete",
        // a counter of the timer interrupt
        &format!("watch *(unsigned long*){jiffies}"),
        "continue",
        "delete",
        // from the kernel's entry back to whom it is entered from
        &format!("tbreak *{entry}"),
        "continue",
        "printf \"caller %lx\\n\", $rcx",
        "set $caller = $rcx",
        "tbreak *$caller",
        "continue",
        "printf \"returned %lx\\n\", $pc",
        "printf \"user cpl %lx\\n\", $cs & 3",
        "thread 2",
        "info registers rip cr3 efer",
        "stepi",
        "thread 1",
        "set $rip = $rip",
        "x/4xb 0x123456789000",
        "detach",
    ]);
    for part in [
        "Thread 1.1",
        "Thread 1.2",
        "processor 1: ",
        "processor 2: ",
        "path /tmp/aaaa",
        "path /tmp/baaa",
        "Hardware watchpoint 2",
        "Old value = ",
        "[Switching to thread 2 (Thread 1.2)]",
        "efer           0xd01",
        "Cannot access memory at address 0x123456789000",
        "detached]",
    ] {
        assert!(said.contains(part), "`{part}` is not in\n{said}");
    }
    let open = u64::from_str_radix(&open[2..], 16).unwrap();
    assert_eq!(value(&said, "open "), open);
    assert!((1..16).contains(&(value(&said, "stepped ") - open)), "one instruction");
    assert_eq!((value(&said, "cpl "), value(&said, "user cpl ")), (0, 3));
    assert_eq!(value(&said, "returned "), value(&said, "caller "));
    assert!(value(&said, "user ") < 1 << 47);
    let number = |name: &str| -> u64 {
        said.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim().parse().unwrap()
    };
    assert!(number("New value = ") > number("Old value = "), "ticks");

    // a second debugger, which goes without a word
    let said = machine.gdb(&[&format!("hbreak *{entry}"), "continue", "printf \"again %lx\\n\", $pc"]);
    assert!(said.contains("again ffffffff"), "{said}");
    // and the machine goes on to its end
    machine.child.stdin.take().unwrap().write_all(b"words\n").unwrap();
    let mut rest = String::new();
    machine.lines.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("other B\nlast words\n"), "the guest saw what gdb wrote: {rest}");
    assert_eq!(machine.end(), Some(7));
}
