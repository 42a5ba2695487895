//! Serving the host: one thread, one `poll` over all descriptors, nothing
//! that can block on a slow or absent host except what it is meant to.

mod session;

use crate::log;
use crate::ports::Ports;
use crate::resume;
use crate::setup;
use agent_proto::{Decoder, FrameError, ToGuest, ToHost, VERSION};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::WaitOptions;
use session::{Session, Source};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Answers waiting for the host to read them, in bytes, beyond which no more
/// of its frames are read.
const OUTBOX_LIMIT: usize = 64 << 10;

/// Frames kept for a command that cannot start yet.
const QUEUE_LIMIT: usize = 64;

/// How long a port that the host closed is left alone before another look.
/// Linux reports such a port as ready all the time.
const AWAY: Duration = Duration::from_millis(100);

/// Set by SIGCHLD in process 1, whose adopted children need reaping.
static CHILDREN: AtomicBool = AtomicBool::new(false);

/// A port, and whether the host has it open as far as we know.
#[derive(Debug)]
struct Port {
    fd: OwnedFd,
    away: Option<Instant>,
}

impl Port {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, away: None }
    }

    /// The descriptor, unless the host has closed the port.
    fn here(&self) -> Option<BorrowedFd<'_>> {
        self.away.is_none().then(|| self.fd.as_fd())
    }

    fn leave(&mut self) {
        self.away = Some(Instant::now() + AWAY);
    }
}

/// What a ready descriptor is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Control,
    StdinPort,
    StdinSink,
    Source(Source),
    OutPort(Source),
    Child,
}

/// The agent: its channels to the host and the command it runs.
#[derive(Debug)]
pub struct Agent {
    control: Port,
    stdin: Port,
    stdout: Port,
    stderr: Port,
    decoder: Decoder,
    outbox: Vec<u8>,
    session: Option<Session>,
    /// The next command and what was said about it, while the last one's
    /// input is still being discarded.
    queued: VecDeque<ToGuest>,
    /// Whether this is process 1 and reaps everybody's orphans.
    is_init: bool,
    shutdown: bool,
}

impl Agent {
    /// An agent on these ports. With `is_init` it reaps all orphans, which only
    /// process 1 gets.
    #[must_use]
    pub fn new(ports: Ports, is_init: bool) -> Self {
        Self {
            control: Port::new(ports.control),
            stdin: Port::new(ports.stdin),
            stdout: Port::new(ports.stdout),
            stderr: Port::new(ports.stderr),
            decoder: Decoder::new(),
            outbox: Vec::new(),
            session: None,
            queued: VecDeque::new(),
            is_init,
            shutdown: false,
        }
    }

    /// Serves the host until it asks for a shutdown.
    pub fn run(mut self) {
        if self.is_init {
            notice_children();
        }
        self.say(&ToHost::Hello { version: VERSION });
        while !self.shutdown {
            let ready = self.wait();
            for (tag, flags) in ready {
                self.handle(tag, flags);
            }
            if self.is_init && CHILDREN.swap(false, Ordering::Relaxed) {
                self.reap_orphans();
            }
            self.advance();
        }
    }

    fn say(&mut self, message: &ToHost) {
        if let Err(e) = message.encode(&mut self.outbox) {
            log::error(format!("cannot say {message:?}: {e}"));
        }
    }

    fn refuse(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        log::error(&reason);
        self.say(&ToHost::Refused { reason });
    }

    /// Waits for something to do and says what.
    fn wait(&mut self) -> Vec<(Tag, PollFlags)> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for port in [&mut self.control, &mut self.stdin, &mut self.stdout, &mut self.stderr] {
            match port.away {
                Some(until) if until <= now => port.away = None,
                Some(until) => wake = Some(wake.map_or(until, |w| w.min(until))),
                None => {}
            }
        }
        let mut tags = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut add = |tag, fd, flags| {
            tags.push(tag);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(fd) = self.control.here() {
            let mut flags = PollFlags::empty();
            if self.outbox.len() < OUTBOX_LIMIT {
                flags |= PollFlags::IN;
            }
            if !self.outbox.is_empty() {
                flags |= PollFlags::OUT;
            }
            add(Tag::Control, fd, flags);
        }
        if let Some(session) = &self.session {
            if let Some(fd) = self.stdin.here()
                && session.wants_input()
            {
                add(Tag::StdinPort, fd, PollFlags::IN);
            }
            if let Some((fd, flags)) = session.sink_interest() {
                add(Tag::StdinSink, fd, flags);
            }
            for which in [Source::Stdout, Source::Stderr] {
                if let Some(fd) = session.source_interest(which) {
                    add(Tag::Source(which), fd, PollFlags::IN);
                }
                if session.has_output(which)
                    && let Some(fd) = self.out_port(which).here()
                {
                    add(Tag::OutPort(which), fd, PollFlags::OUT);
                }
            }
            if let Some(fd) = session.child_interest() {
                add(Tag::Child, fd, PollFlags::IN);
            }
        }
        let timeout = wake.map(|at| {
            let left = at.saturating_duration_since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => tags
                .into_iter()
                .zip(fds.iter().map(PollFd::revents))
                .filter(|(_, flags)| !flags.is_empty())
                .collect(),
            Err(Errno::INTR) => Vec::new(),
            Err(e) => {
                // out of memory at worst: let the machine recover
                log::error(format!("cannot wait for the host: {e}"));
                std::thread::sleep(AWAY);
                Vec::new()
            }
        }
    }

    fn out_port(&self, which: Source) -> &Port {
        match which {
            Source::Stdout => &self.stdout,
            Source::Stderr => &self.stderr,
        }
    }

    fn handle(&mut self, tag: Tag, flags: PollFlags) {
        match tag {
            Tag::Control => {
                if flags.contains(PollFlags::OUT) {
                    self.flush_control();
                }
                if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_control();
                }
            }
            Tag::StdinPort => {
                if let Some(session) = &mut self.session
                    && !session.take_input(self.stdin.fd.as_fd())
                {
                    self.stdin.leave();
                }
            }
            Tag::StdinSink => {
                if let Some(session) = &mut self.session {
                    session.give_input(flags);
                }
            }
            Tag::Source(which) => {
                if let Some(session) = &mut self.session {
                    session.take_output(which);
                }
            }
            Tag::OutPort(which) => {
                let port = match which {
                    Source::Stdout => &mut self.stdout,
                    Source::Stderr => &mut self.stderr,
                };
                let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR);
                if let Some(session) = &mut self.session
                    && (gone || !session.give_output(which, port.fd.as_fd()))
                {
                    port.leave();
                    session.output_port_closed(which);
                }
            }
            Tag::Child => {
                if let Some(session) = &mut self.session {
                    session.reap();
                }
            }
        }
    }

    fn flush_control(&mut self) {
        match rustix::io::write(&self.control.fd, &self.outbox) {
            Ok(n) => {
                self.outbox.drain(..n);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.control.leave(),
        }
    }

    fn read_control(&mut self) {
        let mut buf = [0; 16 << 10];
        match rustix::io::read(&self.control.fd, &mut buf) {
            Ok(0) => {
                // another host program starts a frame of its own
                self.decoder = Decoder::new();
                self.control.leave();
            }
            Ok(n) => {
                self.decoder.push(&buf[..n]);
                self.obey();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.control.leave(),
        }
    }

    fn obey(&mut self) {
        loop {
            match ToGuest::next(&mut self.decoder) {
                Ok(None) => return,
                Ok(Some(message)) => self.message(message),
                Err(e @ FrameError::Oversized { .. }) => self.refuse(format!("frame skipped: {e}")),
                Err(e) => self.refuse(format!("frame ignored: {e}")),
            }
        }
    }

    fn message(&mut self, message: ToGuest) {
        let at_once = matches!(message, ToGuest::Shutdown | ToGuest::Resume { .. });
        if !self.queued.is_empty() && !at_once {
            if self.queued.len() < QUEUE_LIMIT {
                self.queued.push_back(message);
            } else {
                self.refuse("too many frames before the last command's input has come");
            }
            return;
        }
        match message {
            ToGuest::Exec(exec) => match &self.session {
                None => self.session = Some(Session::start(&exec)),
                Some(s) if s.reported() && s.input_ended() => {
                    self.queued.push_back(ToGuest::Exec(exec));
                }
                Some(s) if s.reported() => {
                    self.refuse("the last command's input has not ended (StdinEof comes first)");
                }
                Some(_) => self.refuse("a command is running already"),
            },
            ToGuest::StdinEof { total } => {
                if let Some(session) = &mut self.session
                    && !session.end_input(total)
                {
                    self.refuse("input ended before what was received already");
                }
            }
            ToGuest::Winsize { rows, cols } => {
                if let Some(session) = &self.session {
                    session.resize(rows, cols);
                }
            }
            ToGuest::Signal(signal) => {
                if let Some(session) = &self.session {
                    session.signal(signal);
                }
            }
            ToGuest::CloseOutput(stream) => {
                if let Some(session) = &mut self.session {
                    session.close_output(stream.into());
                }
            }
            ToGuest::Mount(share) => {
                if let Err(why) = setup::share(&share) {
                    self.refuse(why);
                }
            }
            ToGuest::Shutdown => self.shutdown = true,
            ToGuest::Resume { wall_ns, seed } => match resume::resume(wall_ns, &seed) {
                Ok(()) => self.say(&ToHost::Resumed),
                Err(e) => self.refuse(format!("cannot go on from a snapshot: {e}")),
            },
            other => self.refuse(format!("not understood: {other:?}")),
        }
    }

    /// Does what follows from what was handled: reports an end, goes on to the
    /// next command.
    fn advance(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        for (which, port) in [(Source::Stdout, &self.stdout), (Source::Stderr, &self.stderr)] {
            if port.away.is_some() {
                session.output_port_closed(which);
            }
        }
        session.take_last_output();
        if let Some(exit) = session.report() {
            self.say(&exit);
        }
        if self.session.as_ref().is_some_and(Session::over) {
            self.session = None;
            for message in std::mem::take(&mut self.queued) {
                self.message(message);
            }
        }
    }

    /// Reaps whatever ended; the command itself may be among it.
    fn reap_orphans(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some(session) = &mut self.session {
                session.reaped(pid, status);
            }
        }
    }
}

/// Lets SIGCHLD interrupt `poll`. A signal that comes between the look and the
/// wait only leaves a zombie until the next event: the command itself is
/// watched through its own descriptor.
fn notice_children() {
    extern "C" fn note(_: libc::c_int) {
        CHILDREN.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(libc::c_int) = note;
    // SAFETY: `sigaction` is plain data for which zeroes mean no flags and an
    // empty mask; the handler only stores to an atomic, which is
    // async-signal-safe.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_NOCLDSTOP;
        libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut())
    };
    if done != 0 {
        log::error("cannot watch for ended processes");
    }
}
