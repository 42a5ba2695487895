//! Attends a machine that runs: the conversation with its agent, or its serial port.

use super::console::Console;
use super::escape::{self, Action, Escape};
use super::front::{Host, epc_lost};
use super::incoming::Incoming;
use super::plan::{Access, Plan};
use super::save::{self, Done};
use super::session::{Channels, End, Event, First, Front, Session};
use super::streams::{self, Outlet, Port, own};
use super::sweep::Sweeper;
use crate::cli::{ImageName, RunArgs};
use crate::control::Control;
use crate::exit::Error;
use crate::snapshot::owner;
use ::platform::Platform;
use agent_proto::{SEED_LEN, Stream};
use devices::virtio::console::HostPort;
use machine::Running;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a guest may take to write out its disks and power off.
const POWER_OFF: Duration = Duration::from_secs(30);
/// The same for a system with services to stop.
const POWER_OFF_SYSTEM: Duration = Duration::from_secs(180);

/// A machine that runs.
pub(super) struct Run<'a> {
    pub(super) args: &'a RunArgs,
    pub(super) plan: &'a Plan,
    pub(super) running: Arc<Running>,
    /// Nobody changes it while the machine runs.
    pub(super) _platform: Platform,
    /// Other commands find it while it runs.
    pub(super) _control: Option<Control>,
    /// Takes sockets away at the end.
    pub(super) _sweeper: Option<Sweeper>,
    pub(super) gdb: Option<Arc<machine::gdb::Server>>,
    /// What the guest is connected to.
    pub(super) _network: Option<net::Connected>,
    pub(super) console: Console,
    pub(super) console_out: Option<Outlet>,
    pub(super) incoming: Incoming,
    pub(super) front: Host,
    pub(super) events: Receiver<Event>,
    pub(super) start: Instant,
    pub(super) deadline: Option<Instant>,
    /// The agent was ready; the command ended.
    pub(super) times: (Option<Instant>, Option<Instant>),
}

/// The first serial port as a port.
struct SerialPort(Arc<Running>);

impl Port for SerialPort {
    fn write(&self, data: &[u8]) -> usize {
        self.0.serial_input(data)
    }
    fn wait_room(&self, _: Duration) {
        // the guest reads a few bytes at a time and tells nobody
        thread::sleep(Duration::from_millis(2));
    }
    fn kick(&self) {}
    fn accepted(&self) -> u64 {
        // nobody counts there
        0
    }
}

impl Run<'_> {
    /// Attends it to its end. `from` is the session of the snapshot that it started
    /// from; with `save` it is only to be ready and saved.
    pub(super) fn attend(
        &mut self,
        from: Option<owner::Session>,
        save: Option<save::Request>,
        ports: Vec<HostPort>,
        events: Sender<Event>,
    ) -> End {
        let plan = self.plan;
        let ended = self.watch_machine(&events).and_then(|()| match (&plan.access, save) {
            (Access::Agent { .. }, Some(save)) => {
                self.with_agent(First::Save(save), false, from, ports, events)
            }
            (Access::Agent { exec, tty }, None) => {
                let first = match from {
                    Some(owner::Session::Command { input_ended, .. }) => First::GoOn { input_ended },
                    _ => First::Exec(exec.clone()),
                };
                self.with_agent(first, *tty, from, ports, events)
            }
            (Access::Serial, _) => self.on_serial_port(events),
        });
        // without threads there is no session, but there is a machine to stop
        ended.unwrap_or_else(|e| End::Broken(e.to_string()))
    }

    fn watch_machine(&self, events: &Sender<Event>) -> Result<(), Error> {
        let (running, events) = (self.running.clone(), events.clone());
        let watch = move || {
            if let Some(outcome) = running.wait(None) {
                let _ = events.send(Event::Over(outcome));
            }
        };
        thread::Builder::new().name("machine".into()).spawn(watch).map_err(Error::no_thread)?;
        Ok(())
    }

    fn with_agent(
        &mut self,
        first: First,
        tty: bool,
        from: Option<owner::Session>,
        ports: Vec<HostPort>,
        events: Sender<Event>,
    ) -> Result<End, Error> {
        let ports: [HostPort; 4] =
            ports.try_into().map_err(|_| Error::failed("the machine has other ports than asked for"))?;
        let [control, stdin, stdout, stderr] = ports.map(|port| Arc::new(port) as Arc<dyn Port>);
        let has_input = !matches!(first, First::GoOn { input_ended: true } | First::Save(_));
        for (outlet, port, to, stream) in [
            (&self.incoming.stdout, stdout, rustix::stdio::stdout(), Stream::Stdout),
            (&self.incoming.stderr, stderr, rustix::stdio::stderr(), Stream::Stderr),
        ] {
            streams::spawn_writer(outlet, port, own(to)?, stream, events.clone())
                .map_err(Error::no_thread)?;
        }
        if has_input {
            self.front.start_input = Some(Box::new(move || {
                let escape = tty.then(Escape::default);
                streams::spawn_reader(own(rustix::stdio::stdin())?, stdin, escape, events)
                    .map_err(Error::no_thread)
            }));
        }
        let channels = Channels {
            control,
            control_in: self.incoming.control.clone(),
            stdout: self.incoming.stdout.clone(),
            stderr: self.incoming.stderr.clone(),
        };
        let mut session = Session::new(&channels, &mut self.front, first, tty);
        if from.is_some() {
            let mut seed = [0; SEED_LEN];
            getrandom::fill(&mut seed)
                .map_err(|e| Error::failed(format!("the host gives no random bytes for the guest: {e}")))?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            session.resume(now.as_nanos() as u64, seed);
        }
        let end = session.run(&self.events, self.deadline);
        self.times = session.times();
        let ready = self.times.0.is_some();
        if self.plan.keeps_data() && matches!(end, End::Command(_) | End::TimedOut | End::Signal(_)) {
            if ready {
                session.shut_down();
                self.await_power_off();
            } else if self.plan.image == ImageName::Debian {
                self.front.note("the guest was booting: its disk is as after a power failure");
            } else {
                self.running.power_button();
                self.await_power_off();
            }
        }
        Ok(end)
    }

    /// Gives a guest that was asked to power off the time to write out its disks.
    fn await_power_off(&mut self) {
        self.front.note("waiting for the guest to power off; Ctrl-C or a signal stops it at once");
        let patience = if self.plan.image == ImageName::Debian { POWER_OFF_SYSTEM } else { POWER_OFF };
        if !wait_for_power_off(&self.events, patience) {
            self.front.note("the guest did not power off: its disks may lack what was written last");
        }
    }

    fn on_serial_port(&mut self, events: Sender<Event>) -> Result<End, Error> {
        let escape = self.front.wants_raw.then(Escape::default);
        let port = Arc::new(SerialPort(self.running.clone()));
        self.front.start_input = Some(Box::new(move || {
            streams::spawn_reader(own(rustix::stdio::stdin())?, port, escape, events)
                .map_err(Error::no_thread)
        }));
        self.front.ready()?;
        let end = self.serve_serial_port()?;
        if self.plan.keeps_data() && matches!(end, End::TimedOut | End::Signal(_)) {
            self.running.power_button();
            self.await_power_off();
        }
        Ok(end)
    }

    fn serve_serial_port(&mut self) -> Result<End, Error> {
        loop {
            let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let event = match left {
                Some(left) if left.is_zero() => return Ok(End::TimedOut),
                Some(left) => self.events.recv_timeout(left),
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Over(outcome)) => return Ok(End::Machine(outcome)),
                Ok(Event::Signal(signal_hook::consts::SIGTSTP)) => self.front.suspend(),
                // a serial port knows no size
                Ok(Event::Signal(signal_hook::consts::SIGWINCH)) => {}
                Ok(Event::Signal(signal)) => return Ok(End::Signal(signal)),
                Ok(Event::Escape(Action::Quit)) => return Ok(End::Quit),
                Ok(Event::Escape(Action::PowerOff)) => self.running.power_button(),
                Ok(Event::Escape(Action::Help)) => self.front.note(escape::HELP),
                Ok(Event::EpcLost(loss)) => self.front.alert(&epc_lost(loss)),
                Ok(Event::Snapshot(request)) => match request.serve(|| Some(owner::Session::Serial)) {
                    Done::Stopped => return Ok(End::Saved),
                    Done::Failed(why) => return Ok(End::Broken(why)),
                    Done::Answered | Done::Later(_) => {}
                },
                Ok(Event::Control | Event::InputEnd { .. } | Event::OutputGone(..)) => {}
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::failed("nothing is left to wait for"));
                }
            }
        }
    }
}

/// Whether the machine ended; a signal ends the wait.
fn wait_for_power_off(events: &Receiver<Event>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Over(_)) => return true,
            Ok(Event::Signal(signal_hook::consts::SIGWINCH)) => {}
            Ok(Event::Signal(_) | Event::Escape(Action::Quit)) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}
