//! A machine's life: pauses, its clocks through them and under load, and its end.

mod common;

use common::{Scratch, kluis, output, text, turn};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `kluis` whose machines are this test's own.
fn own(s: &Scratch, args: &[&str]) -> Command {
    let mut command = kluis();
    command.env("XDG_RUNTIME_DIR", s.at("")).args(args);
    command
}

fn good(s: &Scratch, args: &[&str]) -> String {
    let out = output(&mut own(s, args), b"");
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

fn signal(name: &str, process: &Child) {
    let sent = Command::new("kill").args(["-s", name, &process.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// A machine whose command answers each line of its input with one.
struct Machine {
    child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

/// What a clock showed, and between which two moments.
struct Reading {
    guest: f64,
    asked: Instant,
    answered: Instant,
}

impl Machine {
    fn start(s: &Scratch, args: &[&str], script: &str) -> Self {
        let mut command = own(s, &["run", "--quiet", "--timeout", "500s", "--memory", "256M"]);
        command.args(args).args(["--", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the machine has ended");
        line.trim().to_owned()
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input.as_ref().unwrap(), "{question}").unwrap();
        self.line()
    }

    /// Seconds since the guest's boot.
    fn uptime(&mut self) -> Reading {
        let asked = Instant::now();
        let guest = self.ask("cut -d' ' -f1 /proc/uptime").parse().unwrap();
        Reading { guest, asked, answered: Instant::now() }
    }

    /// The rest of its output, and its exit code.
    fn finish(mut self) -> (String, Option<i32>) {
        drop(self.input.take());
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().code())
    }
}

/// What `/proc/uptime` leaves out, and more.
const SLACK: f64 = 0.1;

/// Checks that the guest's clock went on from `then` to `now` as the host's did, but for
/// a pause of at least and at most so long.
fn same_time(then: &Reading, now: &Reading, (least, most): (Duration, Duration)) {
    let passed = now.guest - then.guest;
    let from = now.asked.duration_since(then.answered).saturating_sub(most).as_secs_f64();
    let to = now.answered.duration_since(then.asked).saturating_sub(least).as_secs_f64();
    println!("{passed:.2} s in the guest, {from:.2} to {to:.2} s here");
    assert!(passed >= from - SLACK && passed <= to + SLACK, "{passed} s in the guest, {from} to {to} here");
}

const NONE: (Duration, Duration) = (Duration::ZERO, Duration::ZERO);
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn clocks_are_true_under_load_and_stand_still_in_a_pause() {
    let _turn = turn();
    let s = Scratch::new();
    // both processors are at work all the time
    let script = "work() { while :; do :; done; }; work & work &
        while read -r line; do eval \"$line\"; done; kill $(jobs -p); exit 5";
    let mut machine = Machine::start(&s, &["--cpus", "2"], script);
    let state = |s: &Scratch| -> serde_json::Value {
        serde_json::from_str::<Vec<_>>(&good(s, &["ps", "--json"])).unwrap().remove(0)
    };
    let one = machine.uptime();
    assert_eq!((state(&s)["paused"].as_bool(), state(&s)["cpus"].as_u64()), (Some(false), Some(2)));
    assert_eq!(state(&s)["pid"].as_u64(), Some(machine.child.id().into()));
    sleep(WHILE);
    let two = machine.uptime();
    same_time(&one, &two, NONE);

    let before = Instant::now();
    good(&s, &["pause"]);
    let stands = Instant::now();
    assert_eq!(state(&s)["paused"].as_bool(), Some(true));
    assert!(good(&s, &["ps"]).contains("paused"));
    sleep(WHILE);
    // once more changes nothing
    good(&s, &["pause"]);
    let least = stands.elapsed();
    good(&s, &["resume"]);
    let three = machine.uptime();
    same_time(&two, &three, (least, before.elapsed()));
    let again = output(&mut own(&s, &["resume"]), b"");
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
    // the hardware clock has gone on, the system's has not
    let rtc: f64 = machine.ask("cat /sys/class/rtc/rtc0/since_epoch").parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((rtc - now).abs() < 60.0, "{rtc} is not {now}");
    let system: f64 = machine.ask("date +%s").parse().unwrap();
    assert!(rtc - system >= least.as_secs_f64() - 2.0, "{system} in the system, {rtc} in the hardware");

    // Nobody tells the machine of this: the time has passed, as on a host that was busy.
    let three = machine.uptime();
    signal("STOP", &machine.child);
    sleep(WHILE);
    signal("CONT", &machine.child);
    let four = machine.uptime();
    same_time(&three, &four, NONE);
    assert!(four.guest - three.guest >= WHILE.as_secs_f64() - SLACK);
    // nothing of it was a fault to the kernel
    let complaints = machine.ask("dmesg | grep -ciE 'unstable|lockup|stall|time went backwards'");
    assert_eq!(complaints, "0");
    assert_eq!(machine.finish(), (String::new(), Some(5)));
}

#[test]
fn interrupt_ends_the_command_and_the_machine_writes_out_its_disks() {
    let _turn = turn();
    let s = Scratch::new();
    let disk = s.file("disk", vec![0; 1 << 20]);
    // held open, so that only a shutdown writes it out
    let script = "exec 3<>/dev/vda; echo kept >&3; trap 'exit 9' INT; echo up; while :; do sleep 0.1; done";
    let mut machine = Machine::start(&s, &["--disk", &disk], script);
    assert_eq!(machine.line(), "up");
    signal("INT", &machine.child);
    assert_eq!(machine.finish().1, Some(9));
    assert_eq!(&std::fs::read(&disk).unwrap()[..5], b"kept\n");

    // a guest that does not care: the second signal stops the machine at once
    let mut machine = Machine::start(&s, &[], "trap '' INT; echo up; while :; do sleep 0.1; done");
    assert_eq!(machine.line(), "up");
    signal("INT", &machine.child);
    sleep(Duration::from_millis(300));
    signal("INT", &machine.child);
    assert_eq!(machine.finish().1, Some(130));
    assert_eq!(std::fs::read_dir(s.path("kluis")).unwrap().count(), 0, "no socket is left");
}
