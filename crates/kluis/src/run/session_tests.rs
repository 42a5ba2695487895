//! The session against an agent in memory, which plays the guest's side.

use super::*;
use agent_proto::{Exec, Tty};
use devices::virtio::console::PortSink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Condvar, Mutex};
use std::thread;

/// The guest's side of the control port; takes a few bytes at a time.
#[derive(Default)]
struct Control {
    decoder: Mutex<Decoder>,
    came: Condvar,
    stuck: AtomicBool,
}

impl Port for Control {
    fn write(&self, data: &[u8]) -> usize {
        if self.stuck.load(Ordering::Relaxed) {
            return 0;
        }
        let n = data.len().min(7);
        self.decoder.lock().unwrap().push(&data[..n]);
        self.came.notify_all();
        n
    }
    fn wait_room(&self, _: Duration) {}
    fn kick(&self) {}
    fn accepted(&self) -> u64 {
        0
    }
}

#[derive(Default)]
struct Face {
    ready: bool,
    notes: Vec<String>,
    suspended: usize,
}

impl Front for Face {
    fn ready(&mut self) -> Result<(), Error> {
        self.ready = true;
        Ok(())
    }
    fn size(&self) -> (u16, u16) {
        (31, 97)
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.into());
    }
    fn alert(&mut self, text: &str) {
        self.notes.push(text.into());
    }
    fn suspend(&mut self) {
        self.suspended += 1;
    }
}

/// What an agent has in its hands.
struct Guest {
    control: Arc<Control>,
    control_out: Outlet,
    stdout: Outlet,
    events: Sender<Event>,
}

impl Guest {
    fn say(&mut self, message: &ToHost) {
        let mut frame = Vec::new();
        message.encode(&mut frame).unwrap();
        self.raw(&frame);
    }

    fn raw(&mut self, bytes: &[u8]) {
        assert_eq!(PortSink::write(&mut self.control_out, bytes), bytes.len());
    }

    fn hello(&mut self) {
        self.say(&ToHost::Hello { version: VERSION });
    }

    fn hear(&self) -> ToGuest {
        let mut decoder = self.control.decoder.lock().unwrap();
        loop {
            if let Some(message) = ToGuest::next(&mut decoder).unwrap() {
                return message;
            }
            let (next, waited) = self.control.came.wait_timeout(decoder, Duration::from_secs(20)).unwrap();
            assert!(!waited.timed_out(), "the host says nothing");
            decoder = next;
        }
    }

    fn start(&mut self) {
        self.hello();
        assert!(matches!(self.hear(), ToGuest::Exec(_)));
    }

    fn out(&mut self, data: &[u8]) {
        assert_eq!(PortSink::write(&mut self.stdout, data), data.len());
    }

    fn exit(&mut self, status: ExitStatus, stdout: u64, stderr: u64) {
        self.say(&ToHost::Exit { status, stdout, stderr });
    }

    fn event(&self, event: Event) {
        self.events.send(event).unwrap();
    }
}

/// Runs a session against `guest`, with writers that give what they wrote.
fn play(
    tty: bool,
    limit: Option<Duration>,
    guest: impl FnOnce(Guest) + Send + 'static,
) -> (End, Face, Vec<u8>) {
    let (events_in, events) = mpsc::channel();
    let notify = events_in.clone();
    let control_in = Outlet::notifying(move || drop(notify.send(Event::Control)));
    let control = Arc::new(Control::default());
    let channels = Channels {
        control: control.clone(),
        control_in: control_in.clone(),
        stdout: Outlet::new(),
        stderr: Outlet::new(),
    };
    let stdout = channels.stdout.clone();
    let side = Guest { control, control_out: control_in, stdout, events: events_in };
    let out = channels.stdout.clone();
    let writer = thread::spawn(move || {
        let mut written = Vec::new();
        out.write_to(&mut written, &|| {}).unwrap();
        written
    });
    let agent = thread::spawn(move || guest(side));
    let exec = Exec {
        argv: vec![b"x".to_vec()],
        tty: tty.then(|| Tty { rows: 1, cols: 2, term: vec![] }),
        ..Exec::default()
    };
    let mut frame = Vec::new();
    ToGuest::Exec(exec).encode(&mut frame).unwrap();
    let mut face = Face::default();
    let end = Session::new(&channels, &mut face, First::Exec(frame), tty)
        .run(&events, Some(Instant::now() + limit.unwrap_or(Duration::from_secs(60))));
    agent.join().unwrap();
    channels.stdout.end();
    (end, face, writer.join().unwrap())
}

#[test]
fn command_runs_and_all_output_is_out_first() {
    let (end, face, written) = play(false, None, |mut g| {
        g.start();
        g.exit(ExitStatus::Code(7), 10, 0);
        // the ports are not ordered among each other: output after its count
        thread::sleep(Duration::from_millis(30));
        g.out(b"01234");
        thread::sleep(Duration::from_millis(30));
        g.out(b"56789");
    });
    assert!(matches!(end, End::Command(ExitStatus::Code(7))), "{end:?}");
    assert!(face.ready);
    assert_eq!(written, b"0123456789");
}

#[test]
fn nothing_is_said_before_the_greeting() {
    let (end, ..) = play(false, None, |mut g| {
        g.event(Event::InputEnd { total: 3 });
        thread::sleep(Duration::from_millis(20));
        g.start();
        assert_eq!(g.hear(), ToGuest::StdinEof { total: 3 });
        g.exit(ExitStatus::Signal(9), 0, 0);
    });
    assert!(matches!(end, End::Command(ExitStatus::Signal(9))), "{end:?}");
}

#[test]
fn end_of_input_and_closed_output_are_passed_on() {
    let (end, ..) = play(false, None, |mut g| {
        g.start();
        g.event(Event::InputEnd { total: 12 });
        assert_eq!(g.hear(), ToGuest::StdinEof { total: 12 });
        g.event(Event::OutputGone(Stream::Stdout, ErrorKind::BrokenPipe.into()));
        assert_eq!(g.hear(), ToGuest::CloseOutput(Stream::Stdout));
        g.exit(ExitStatus::Signal(13), 0, 0);
    });
    assert!(matches!(end, End::Command(ExitStatus::Signal(13))), "{end:?}");
}

#[test]
fn full_disk_behind_an_output_is_a_failure() {
    let (end, ..) = play(false, None, |mut g| {
        g.start();
        g.event(Event::OutputGone(Stream::Stderr, ErrorKind::StorageFull.into()));
    });
    assert!(matches!(&end, End::Broken(why) if why.contains("standard error")), "{end:?}");
}

#[test]
fn signal_goes_to_the_command_and_the_second_to_us() {
    let (end, face, _) = play(false, None, |mut g| {
        g.start();
        g.event(Event::Signal(2));
        assert_eq!(g.hear(), ToGuest::Signal(2));
        g.event(Event::Signal(15));
        assert_eq!(g.hear(), ToGuest::Signal(15));
        g.event(Event::Signal(15));
    });
    assert!(matches!(end, End::Signal(15)), "{end:?}");
    assert_eq!(face.notes.len(), 2);
}

#[test]
fn signal_during_the_boot_or_on_a_terminal_is_ours() {
    let (end, ..) = play(false, None, |g| g.event(Event::Signal(2)));
    assert!(matches!(end, End::Signal(2)), "{end:?}");
    let (end, ..) = play(true, None, |mut g| {
        g.start();
        g.event(Event::Signal(1));
    });
    assert!(matches!(end, End::Signal(1)), "{end:?}");
}

#[test]
fn terminal_has_its_size_and_can_be_stopped() {
    let size = ToGuest::Winsize { rows: 31, cols: 97 };
    let (end, face, _) = play(true, None, move |mut g| {
        g.start();
        assert_eq!(g.hear(), size);
        g.event(Event::Signal(SIGWINCH));
        assert_eq!(g.hear(), size);
        g.event(Event::Signal(SIGTSTP));
        assert_eq!(g.hear(), size);
        g.event(Event::Escape(Action::Help));
        g.event(Event::Escape(Action::PowerOff));
        assert_eq!(g.hear(), ToGuest::Shutdown);
        g.event(Event::Escape(Action::Quit));
    });
    assert!(matches!(end, End::Quit), "{end:?}");
    assert_eq!(face.suspended, 1);
    assert!(face.notes.iter().any(|note| note.contains("Ctrl-] q")));
}

#[test]
fn time_is_up_also_while_the_guest_is_silent_or_stuck() {
    let short = Some(Duration::from_millis(60));
    let (end, ..) = play(false, short, |_| {});
    assert!(matches!(end, End::TimedOut), "{end:?}");
    let (end, ..) = play(false, short, |mut g| {
        g.control.stuck.store(true, Ordering::Relaxed);
        g.hello();
        g.event(Event::InputEnd { total: 0 });
    });
    assert!(matches!(end, End::TimedOut), "{end:?}");
}

#[test]
fn machine_that_ends_early_ends_the_session() {
    let (end, face, _) = play(false, None, |g| g.event(Event::Over(Outcome::TripleFault("rip".into()))));
    assert!(matches!(end, End::Machine(Outcome::TripleFault(_))), "{end:?}");
    assert!(!face.ready);
    let (end, ..) = play(false, None, |mut g| {
        g.start();
        g.exit(ExitStatus::Code(0), 100, 0);
        g.event(Event::Over(Outcome::PowerOff));
    });
    assert!(matches!(end, End::Machine(Outcome::PowerOff)), "{end:?}");
}

#[test]
fn last_words_before_the_machine_ends_count() {
    let (end, ..) = play(false, None, |mut g| {
        g.start();
        g.out(b"ok");
        g.exit(ExitStatus::Code(3), 2, 0);
        g.event(Event::Over(Outcome::PowerOff));
    });
    assert!(matches!(end, End::Command(ExitStatus::Code(3))), "{end:?}");
}

#[test]
fn agents_that_cannot_be_trusted_end_the_session() {
    type Script = fn(&mut Guest);
    let cases: [(&str, Script); 7] = [
        ("version", |g| g.say(&ToHost::Hello { version: VERSION + 1 })),
        ("nonsense", |g| g.raw(&[1, 0, 0, 0, 0x55, 0])),
        ("nonsense", |g| g.raw(&[0xff; 64])),
        ("cannot be", |g| g.exit(ExitStatus::Code(0), 0, 0)),
        ("anew", |g| {
            g.hello();
            g.hello();
        }),
        ("refuses: no room", |g| {
            g.hello();
            g.say(&ToHost::Refused { reason: "no\u{1b} room\r".into() });
        }),
        ("cannot be", |g| {
            g.hello();
            g.exit(ExitStatus::Code(0), u64::MAX, u64::MAX);
            g.exit(ExitStatus::Code(0), 0, 0);
        }),
    ];
    for (text, script) in cases {
        let (end, ..) = play(false, None, move |mut g| script(&mut g));
        assert!(matches!(&end, End::Broken(why) if why.contains(text)), "{text}: {end:?}");
    }
}
