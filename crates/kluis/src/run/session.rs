//! One command in the guest, from the agent's greeting to the last byte of
//! output: the host's side of the protocol (*agent-proto*).

use super::escape::Action;
use super::save::{Done, Request};
use super::streams::{Outlet, Port};
use crate::exit::Error;
use crate::snapshot::owner;
use agent_proto::{Decoder, ExitStatus, SEED_LEN, Stream, ToGuest, ToHost, VERSION};
use machine::Outcome;
use signal_hook::consts::{SIGTSTP, SIGWINCH};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The same signal twice within this time stops the machine.
const INSIST: Duration = Duration::from_secs(2);
/// How long output that the guest has promised may take to begin to come.
const STALLED: Duration = Duration::from_secs(10);
/// Pause between looks at what tells nothing by itself.
const TICK: Duration = Duration::from_millis(2);
/// Frames waiting for the guest beyond which signals and sizes are dropped, in
/// bytes.
const OUTBOX_LIMIT: usize = 4 << 20;

/// What happens around a session.
#[derive(Debug)]
pub(crate) enum Event {
    /// There are bytes on the control port.
    Control,
    /// This process got a signal.
    Signal(i32),
    /// The host's input has ended.
    InputEnd {
        /// Bytes of it sent to the guest.
        total: u64,
    },
    /// An output cannot be written any more.
    OutputGone(Stream, io::Error),
    /// A person at the terminal asked for something.
    Escape(Action),
    /// The EPC is lost.
    EpcLost(mee::Loss),
    /// Somebody asks for a snapshot.
    Snapshot(Request),
    /// The machine ended.
    Over(Outcome),
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The command ended and its output is out.
    Command(ExitStatus),
    /// The machine ended before the command did.
    Machine(Outcome),
    /// The time was up.
    TimedOut,
    /// This process was asked by a signal to end.
    Signal(i32),
    /// A person at the terminal stopped the machine.
    Quit,
    /// It ended with a snapshot.
    Saved,
    /// It cannot go on; cause and remedy.
    Broken(String),
}

/// The side of the session towards people.
pub(crate) trait Front {
    /// The guest is ready and its command starts: input may flow.
    ///
    /// # Errors
    /// The host's terminal or threads.
    fn ready(&mut self) -> Result<(), Error>;
    /// The terminal's rows and columns.
    fn size(&self) -> (u16, u16);
    /// Tells something that people may want to know.
    fn note(&mut self, text: &str);
    /// Tells something that people must know.
    fn alert(&mut self, text: &str);
    /// Stops this process as Ctrl-Z does.
    fn suspend(&mut self);
}

/// The guest's ports and what comes from them.
pub(crate) struct Channels {
    /// Port of frames.
    pub(crate) control: Arc<dyn Port>,
    /// Frames from the guest.
    pub(crate) control_in: Outlet,
    /// The command's output.
    pub(crate) stdout: Outlet,
    /// The command's errors.
    pub(crate) stderr: Outlet,
}

/// What a session begins with, once the guest is ready.
#[derive(Debug)]
pub(crate) enum First {
    /// A command: the frame that starts it.
    Exec(Vec<u8>),
    /// A command that runs already, as a snapshot says.
    GoOn {
        /// Its input has ended.
        input_ended: bool,
    },
    /// A snapshot, and no command.
    Save(Request),
}

/// The command ended; its output is still coming.
struct Draining {
    status: ExitStatus,
    /// Bytes promised on standard output and standard error.
    promised: [u64; 2],
    /// Bytes seen when there was progress last, and when that was.
    seen: (u64, Instant),
    since: Instant,
}

/// A session.
pub(crate) struct Session<'a> {
    channels: &'a Channels,
    front: &'a mut dyn Front,
    /// What is to be done first, until it is.
    first: Option<First>,
    /// The agent has its port open and reads.
    connected: bool,
    /// A command was started.
    commanded: bool,
    input_ended: bool,
    /// A snapshot that somebody waits for.
    asked: Option<Request>,
    tty: bool,
    decoder: Decoder,
    outbox: VecDeque<u8>,
    ready_at: Option<Instant>,
    draining: Option<Draining>,
    ended_at: Option<Instant>,
    last_signal: Option<(i32, Instant)>,
}

impl<'a> Session<'a> {
    /// A session that does `first` once the guest is ready; `tty` says whether its
    /// command has a terminal.
    pub(crate) fn new(channels: &'a Channels, front: &'a mut dyn Front, first: First, tty: bool) -> Self {
        Self {
            channels,
            front,
            first: Some(first),
            connected: false,
            commanded: false,
            input_ended: false,
            asked: None,
            tty,
            decoder: Decoder::new(),
            outbox: VecDeque::new(),
            ready_at: None,
            draining: None,
            ended_at: None,
            last_signal: None,
        }
    }

    /// The machine is from a snapshot: its agent is there already, and is given true
    /// time and fresh randomness before anything else.
    pub(crate) fn resume(&mut self, wall_ns: u64, seed: [u8; SEED_LEN]) {
        self.connected = true;
        self.say(&ToGuest::Resume { wall_ns, seed });
    }

    /// When the agent said that it is ready, and when the command ended.
    pub(crate) fn times(&self) -> (Option<Instant>, Option<Instant>) {
        (self.ready_at, self.ended_at)
    }

    /// Runs the session to its end.
    pub(crate) fn run(&mut self, events: &Receiver<Event>, deadline: Option<Instant>) -> End {
        loop {
            self.flush();
            if let Some(end) = self.settle().or_else(|| self.save()) {
                return end;
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return End::TimedOut;
            }
            let tick = self.tick();
            let wait = left.into_iter().chain(tick).min();
            let event = match wait {
                Some(wait) => events.recv_timeout(wait),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let end = match event {
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    Some(End::Broken("nothing is left that could happen: a defect of Kluis".into()))
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// How long to wait at most, when something has to be looked at.
    fn tick(&self) -> Option<Duration> {
        if let Some(draining) = &self.draining {
            // most output is there at once; a reader that is slow stays so
            let slow = draining.since.elapsed() > Duration::from_millis(200);
            return Some(if slow { 10 * TICK } else { TICK });
        }
        let waiting = self.connected && !self.outbox.is_empty();
        (waiting || self.asked.is_some()).then_some(TICK)
    }

    fn handle(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Control => self.control(),
            Event::Signal(signal) => self.signal(signal),
            Event::InputEnd { total } => {
                self.input_ended = true;
                self.say(&ToGuest::StdinEof { total });
                None
            }
            Event::OutputGone(stream, e) => {
                if self.tty || e.kind() != ErrorKind::BrokenPipe {
                    let name = match stream {
                        Stream::Stdout => "standard output",
                        Stream::Stderr => "standard error",
                    };
                    return Some(End::Broken(format!("cannot write {name}: {e}")));
                }
                self.say(&ToGuest::CloseOutput(stream));
                None
            }
            Event::Escape(Action::Quit) => Some(End::Quit),
            Event::Escape(Action::PowerOff) => {
                self.front.note("asking the guest to power off");
                self.say(&ToGuest::Shutdown);
                None
            }
            Event::Escape(Action::Help) => {
                self.front.note(super::escape::HELP);
                None
            }
            Event::Snapshot(request) => {
                let second = match self.asked {
                    Some(_) => Some(request.refuse("another snapshot is being taken: try again")),
                    None => {
                        self.asked = Some(request);
                        None
                    }
                };
                second.and_then(|done| self.saved(done))
            }
            Event::EpcLost(loss) => {
                self.front.alert(&super::front::epc_lost(loss));
                None
            }
            Event::Over(outcome) => {
                // its last words may not have been read yet
                if let Some(end) = self.control() {
                    return Some(end);
                }
                match &mut self.draining {
                    None => Some(End::Machine(outcome)),
                    Some(draining) => {
                        // nothing more comes: what is here must be all
                        let came = [&self.channels.stdout, &self.channels.stderr].map(Outlet::arrived);
                        (came != draining.promised).then_some(End::Machine(outcome))
                    }
                }
            }
        }
    }

    /// Reads the control port.
    fn control(&mut self) -> Option<End> {
        let (bytes, refused) = self.channels.control_in.take();
        if refused {
            self.channels.control.kick();
        }
        self.decoder.push(&bytes);
        loop {
            match ToHost::next(&mut self.decoder) {
                Ok(None) => return None,
                Ok(Some(message)) => {
                    if let Some(end) = self.message(message) {
                        return Some(end);
                    }
                }
                Err(e) => return Some(End::Broken(format!("the guest's agent talks nonsense: {e}"))),
            }
        }
    }

    fn message(&mut self, message: ToHost) -> Option<End> {
        match message {
            ToHost::Hello { version } if version != VERSION => Some(End::Broken(format!(
                "the guest's agent speaks version {version}, this Kluis version {VERSION}: \
                 use an initrd made by this version (`kluis image build`)"
            ))),
            ToHost::Hello { .. } if self.connected => {
                Some(End::Broken("the guest's agent started anew; its command is lost".into()))
            }
            ToHost::Hello { .. } => {
                self.connected = true;
                self.begin()
            }
            ToHost::Resumed => self.begin(),
            ToHost::Exit { status, stdout, stderr } => {
                if !self.commanded || self.draining.is_some() {
                    return Some(End::Broken("the guest's agent reports an end that cannot be".into()));
                }
                let now = Instant::now();
                self.ended_at = Some(now);
                self.draining =
                    Some(Draining { status, promised: [stdout, stderr], seen: (0, now), since: now });
                None
            }
            ToHost::Refused { .. } if self.draining.is_some() => None,
            ToHost::Refused { reason } => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
                Some(End::Broken(format!("the guest's agent refuses: {reason}")))
            }
            other => {
                Some(End::Broken(format!("the guest's agent says what this Kluis does not know: {other:?}")))
            }
        }
    }

    /// The guest is ready.
    fn begin(&mut self) -> Option<End> {
        let frame = match self.first.take() {
            None => return Some(End::Broken("the guest's agent says twice that it is ready".into())),
            Some(First::Save(request)) => {
                self.asked = Some(request);
                return None;
            }
            Some(First::GoOn { input_ended }) => {
                self.input_ended = input_ended;
                Vec::new()
            }
            Some(First::Exec(frame)) => frame,
        };
        self.commanded = true;
        self.ready_at = Some(Instant::now());
        // before whatever there was to be said meanwhile
        let waiting = std::mem::replace(&mut self.outbox, frame.into());
        self.outbox.extend(waiting);
        match self.front.ready() {
            Ok(()) => {
                // it may have changed since the frame was made
                self.resize();
                None
            }
            Err(e) => Some(End::Broken(e.to_string())),
        }
    }

    /// Takes the snapshot that somebody waits for, if the moment is right.
    fn save(&mut self) -> Option<End> {
        let request = self.asked.take()?;
        let done = if self.first.is_some() {
            request.refuse("the guest is not ready yet: wait until its command runs")
        } else if self.draining.is_some() {
            request.refuse("the guest's command has ended: there is nothing left to go on with")
        } else {
            request.serve(|| self.between_frames().then(|| self.to_keep()))
        };
        self.saved(done)
    }

    fn saved(&mut self, done: Done) -> Option<End> {
        match done {
            Done::Answered => None,
            Done::Stopped => Some(End::Saved),
            Done::Failed(why) => Some(End::Broken(why)),
            Done::Later(request) => {
                self.asked = Some(request);
                None
            }
        }
    }

    /// Whether both directions of the conversation stand between two frames.
    fn between_frames(&self) -> bool {
        self.outbox.is_empty() && self.decoder.is_empty() && self.channels.control_in.is_flushed()
    }

    fn to_keep(&self) -> owner::Session {
        if !self.commanded {
            return owner::Session::Idle;
        }
        let arrived = [&self.channels.stdout, &self.channels.stderr].map(Outlet::arrived);
        owner::Session::Command { tty: self.tty, input_ended: self.input_ended, arrived }
    }

    /// After the command's end: done when its output is out.
    fn settle(&mut self) -> Option<End> {
        let draining = self.draining.as_mut()?;
        let outlets = [&self.channels.stdout, &self.channels.stderr];
        let complete =
            |(outlet, promised): (&&Outlet, &u64)| outlet.is_gone() || outlet.arrived() >= *promised;
        let flushed = outlets.iter().all(|outlet| outlet.is_flushed());
        let all_there = outlets.iter().zip(&draining.promised).all(complete);
        if all_there && flushed {
            return Some(End::Command(draining.status));
        }
        let came = outlets.iter().map(|outlet| outlet.arrived()).fold(0, u64::saturating_add);
        // while the host's reader is slow, the guest cannot go on either
        if came != draining.seen.0 || !flushed {
            draining.seen = (came, Instant::now());
        } else if draining.seen.1.elapsed() > STALLED {
            let promised = draining.promised.iter().fold(0u64, |a, b| a.saturating_add(*b));
            return Some(End::Broken(format!(
                "the command's output is incomplete: {came} bytes came, the guest says there are {promised}"
            )));
        }
        None
    }

    fn signal(&mut self, signal: i32) -> Option<End> {
        match signal {
            SIGWINCH => {
                if self.commanded {
                    self.resize();
                }
                return None;
            }
            SIGTSTP => {
                self.front.suspend();
                if self.commanded {
                    self.resize();
                }
                return None;
            }
            _ => {}
        }
        let insists = self.last_signal.is_some_and(|(last, at)| last == signal && at.elapsed() < INSIST);
        // a terminal's own keys come as bytes: a signal is meant for Kluis
        if !self.commanded || self.draining.is_some() || self.tty || insists {
            return Some(End::Signal(signal));
        }
        let Ok(number @ 1..=64) = u8::try_from(signal) else {
            return None;
        };
        self.say(&ToGuest::Signal(number));
        self.last_signal = Some((signal, Instant::now()));
        self.front.note("signal passed on to the command; once more within 2 s stops the machine");
        None
    }

    fn resize(&mut self) {
        if self.tty {
            let (rows, cols) = self.front.size();
            self.say(&ToGuest::Winsize { rows, cols });
        }
    }

    /// Asks the guest to write out its disks and power off.
    pub(crate) fn shut_down(&mut self) {
        self.say(&ToGuest::Shutdown);
        self.flush();
    }

    fn say(&mut self, message: &ToGuest) {
        let droppable = matches!(message, ToGuest::Signal(_) | ToGuest::Winsize { .. });
        if droppable && self.outbox.len() > OUTBOX_LIMIT {
            return;
        }
        let mut frame = Vec::new();
        // only Exec can be too long, and that one was made before
        if message.encode(&mut frame).is_ok() {
            self.outbox.extend(frame);
        }
    }

    /// Sends what the control port takes now. Linux drops what comes before
    /// the agent has the port open.
    fn flush(&mut self) {
        while self.connected && !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match self.channels.control.write(front) {
                0 => return,
                n => drop(self.outbox.drain(..n)),
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
