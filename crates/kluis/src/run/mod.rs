//! `kluis run`: a machine, and one command or terminal in it.
//!
//! * [`plan`]: what is to be built, or why it cannot be; [`multiboot`]: modules in `--initrd`
//! * [`session`]: the conversation with the guest's agent
//! * [`streams`]: bytes between ports and descriptors; [`escape`]: Ctrl-]
//! * [`save`]: a snapshot of the machine
//! * [`console`]: the guest's serial port
//! * [`network`]: `--network`, `--publish`, `--allow-host`
//! * [`terminal`], [`signals`], [`progress`]: the host's side
//! * [`confine`]: the walls around the process; [`again`]: `--reboot`
//! * [`verdict`]: what the end means; [`stats`]: what it cost; [`trace`]: `--trace`

mod again;
mod confine;
mod console;
mod escape;
mod multiboot;
mod network;
mod plan;
mod progress;
pub(crate) mod save;
mod session;
mod signals;
mod stats;
mod streams;
mod terminal;
mod trace;
mod verdict;

use crate::cli::{ImageName, RunArgs};
use crate::control::{Control, TakeSnapshot};
use crate::exit::Error;
use crate::snapshot::owner::{self, Owner};
use crate::snapshot::prepare;
use crate::{host, units};
use ::platform::Platform;
use agent_proto::{PORT_CONTROL, PORT_STDERR, PORT_STDIN, PORT_STDOUT, SEED_LEN, Stream};
use console::{Console, Tee};
use devices::virtio::console::{HostPort, PortConfig};
use escape::{Action, Escape};
use machine::{Config, Running, Snapshot};
use plan::Access;
pub(crate) use plan::{HostTerminal, Plan};
use progress::Progress;
use save::Done;
use session::{Channels, End, Event, First, Front, Session};
use stats::{Stats, Times};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use streams::{Outlet, Port};
use terminal::Raw;
use verdict::{Circumstances, Verdict};

/// How long a guest may take to write out its disks and power off.
const POWER_OFF: Duration = Duration::from_secs(30);
/// The same for a system with services to stop.
const POWER_OFF_SYSTEM: Duration = Duration::from_secs(180);
/// How long to wait at the end for a slow reader of what came before it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);
/// Lines of the guest's console shown with a failure.
const LAST_LINES: usize = 20;

/// Runs a machine on the platform in `dir` to its end and gives the exit code.
///
/// # Errors
/// There is no machine: bad input, no image, no resources. Nothing is left.
pub(crate) fn main(args: &RunArgs, dir: &Path, json: bool) -> Result<u8, Error> {
    let host_terminal = HostTerminal {
        interactive: terminal::is_interactive(),
        size: terminal::size(),
        term: std::env::var_os("TERM").unwrap_or_default().into_vec(),
    };
    let again = again::Again::inherited()?;
    if args.reboot && again.is_none() {
        return again::supervise();
    }
    let mut platform = crate::platform::for_machine(dir)?;
    let platform_id = platform.info().id;
    let order = prepare::order()?;
    let from = Origin::of(args, &host_terminal, order.is_some(), dir, &platform_id)?;
    let plan = match &from {
        Some(from) => Plan::of_snapshot(args, from.snapshot.about(), from.owner.session, &host_terminal)?,
        None => Plan::new(args, &host_terminal)?,
    };
    if order.is_some() && matches!(plan.access, Access::Serial) {
        return Err(Error::bad(
            "a machine on the serial port tells nobody when it is ready: prepare one with Kluis's agent",
        ));
    }
    let files = match &from {
        Some(_) => Files { disks: plan.disks.clone(), ..Files::default() },
        None => Files::of(&plan, dir, args.quiet)?,
    };
    let (start_from, from) = match from {
        Some(from) => (Some(Box::new(from.snapshot)), Some((from.path, from.owner.session))),
        None => (None, None),
    };
    if !args.quiet
        && let Some((total, _)) = host::memory()
        && plan.memory > total
    {
        eprintln!(
            "kluis: the machine has {}, this host {}: memory is taken as the guest touches it",
            units::bytes(plan.memory),
            units::bytes(total)
        );
    }

    let (network, device) = network::prepare(&plan.network)?.unzip();
    let (events_in, events) = mpsc::channel();
    let raw = match &plan.access {
        Access::Agent { tty, .. } => *tty,
        Access::Serial => host_terminal.interactive,
    };
    let serial = matches!(plan.access, Access::Serial);
    let (tee, new_file) = tee(args, serial)?;
    let console = Console::new(tee);
    let channels = Incoming::new(&events_in);
    if let Some((_, owner::Session::Command { arrived: [stdout, stderr], .. })) = from {
        channels.stdout.go_on_after(stdout);
        channels.stderr.go_on_after(stderr);
    }
    let config = Config {
        model: plan.model.clone(),
        cpus: plan.cpus,
        memory: plan.memory,
        epc: machine::Epc { bytes: plan.epc, roots: crate::platform::roots(&platform) },
        kernel: files.kernel,
        initrd: files.initrd,
        initrd_more: files.initrd_more,
        modules: plan.modules.clone(),
        cmdline: plan.cmdline.clone(),
        snapshot: start_from,
        disks: files.disks,
        shares: plan.shares.clone(),
        vsock: plan.vsock.clone(),
        network: device,
        serial: Box::new(console.clone()),
        ports: if serial { Vec::new() } else { channels.ports() },
        strict: args.strict,
        debug_exit: args.debug_exit,
        test_device: args.test_device,
    };
    let start = Instant::now();
    let (prepared, ports) = machine::prepare(config).map_err(|e| {
        if let Some(file) = new_file {
            // it was made for this run, which does not take place
            let _ = std::fs::remove_file(file);
        }
        match &from {
            Some((path, _)) => crate::snapshot::of_file(path, &e),
            None => Error::bad(e),
        }
    })?;
    // only now: a machine that is refused leaves nothing
    crate::platform::keep(&mut platform, args.quiet)?;
    let running = prepared.machine().clone();
    let events_of_epc = events_in.clone();
    // nobody listens any more at the end of the session
    running.sgx().dram.on_loss(move |loss| drop(events_of_epc.send(Event::EpcLost(loss))));
    if mem::secret::weakest() == mem::secret::Backend::Unlocked && !args.quiet {
        eprintln!(
            "kluis: the limit of locked memory (ulimit -l) is small: part of what enclaves have on the processor \
             may reach swap, and debuggers of yours can read it; see `kluis sgx inspect`"
        );
    }
    if let Some(units::Trace(file)) = &args.trace {
        trace::start(running.sgx(), trace::output(file.as_deref())?);
    }
    let unseen = |e: io::Error| {
        if !args.quiet {
            eprintln!("kluis: no other command will find this machine: {e}");
        }
    };
    let control = Control::bind().map_err(unseen).ok();
    let gdb = args.gdb.map(debugger).transpose()?;

    // Everything is open: the walls go up, which threads inherit.
    confine::files(&plan, control.as_ref(), args.quiet)?;
    confine::calls(&plan, args.quiet)?;
    signals::watch(raw, events_in.clone())?;
    write_console(&console, serial)?;
    let network = network.map(|network| network.connect(args.quiet)).transpose()?;
    let standing = prepared.start().map_err(Error::failed)?;
    if let Some(control) = &control {
        let snapshots = take_snapshot(&running, &platform_id, &events_in);
        control.serve(running.clone(), snapshots).unwrap_or_else(unseen);
    }
    match &gdb {
        // it is dropped when the debugger lets the machine go on
        Some((server, waits)) => {
            let standing = waits.then_some(standing);
            server.serve(running.clone(), standing).map_err(no_thread)?;
        }
        None => drop(standing),
    }
    let mut run = Run {
        args,
        plan: &plan,
        running: running.clone(),
        _platform: platform,
        _control: control,
        gdb: gdb.map(|(server, _)| server),
        _network: network,
        console: console.clone(),
        console_out: console.outlet(),
        incoming: channels,
        // only now: what is refused is told in one line
        front: Host::new(args.quiet, from.is_none(), raw, &plan, start, running.clone()),
        events,
        start,
        deadline: args.timeout.map(|t| start + t),
        times: (None, None),
    };
    let from = from.map(|(_, session)| session);
    let ended = run.watch_machine(&events_in).and_then(|()| match (&plan.access, order) {
        (Access::Agent { .. }, Some(order)) => {
            let save = save::Request::prepared(running.clone(), order.file, &platform_id, &order.key);
            run.with_agent(First::Save(save), false, from, ports, events_in)
        }
        (Access::Agent { exec, tty }, None) => {
            let first = match from {
                Some(owner::Session::Command { input_ended, .. }) => First::GoOn { input_ended },
                _ => First::Exec(exec.clone()),
            };
            run.with_agent(first, *tty, from, ports, events_in)
        }
        (Access::Serial, _) => run.on_serial_port(events_in),
    });
    // without threads there is no session, but there is a machine to stop
    let end = ended.unwrap_or_else(|e| End::Broken(e.to_string()));
    let reset = matches!(end, End::Machine(machine::Outcome::Reset)) && !console.panicked();
    let code = run.finish(end, json)?;
    if let Some(again) = again.filter(|_| reset) {
        again.tell();
    }
    Ok(code)
}

/// Where a machine that is not booted comes from.
struct Origin {
    path: PathBuf,
    snapshot: Snapshot,
    owner: Owner,
}

impl Origin {
    /// The snapshot that `args` names, or one prepared for them; `None` to boot, as
    /// always where one is being prepared.
    fn of(
        args: &RunArgs,
        terminal: &HostTerminal,
        prepares: bool,
        dir: &Path,
        platform: &str,
    ) -> Result<Option<Origin>, Error> {
        let path = match &args.snapshot {
            _ if prepares => return Ok(None),
            Some(path) => path.clone(),
            None if args.warm => prepare::warm(args, terminal, dir, platform)?,
            None => return Ok(None),
        };
        let (snapshot, owner) = crate::snapshot::open(&path)?;
        if owner.platform != platform && !args.other_platform {
            let why = "was taken on another platform: what is sealed there cannot be unsealed here; give that \
                       one with --platform, or add --other-platform";
            return Err(crate::snapshot::of_file(&path, &why));
        }
        Ok(Some(Origin { path, snapshot, owner }))
    }
}

/// What the control socket does when it is asked for a snapshot: it asks the session.
fn take_snapshot(running: &Arc<Running>, platform: &str, events: &Sender<Event>) -> TakeSnapshot {
    let (running, platform, events) = (running.clone(), platform.to_owned(), events.clone());
    Box::new(move |file, stop| {
        let (reply, answer) = mpsc::sync_channel(1);
        let request = save::Request::new(running.clone(), file, stop, &platform, reply);
        events.send(Event::Snapshot(request)).map_err(|_| "the machine ends".to_owned())?;
        answer.recv().unwrap_or_else(|_| Err("the machine ended before that".into()))
    })
}

/// The port of a debugger, and whether the machine waits for it.
fn debugger(gdb: units::Gdb) -> Result<(machine::gdb::Server, bool), Error> {
    let fail = |e| Error::bad(format!("--gdb {}: {e}; choose another port", gdb.address));
    let server = machine::gdb::Server::bind(gdb.address).map_err(fail)?;
    let address = server.address().map_err(fail)?;
    let stands = if gdb.waits { "the machine waits for" } else { "the machine can be debugged by" };
    eprintln!("kluis: {stands} gdb at {address}, which has full control of it");
    Ok((server, gdb.waits))
}

/// What the machine boots and has as disks.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: Option<PathBuf>,
    initrd_more: Vec<u8>,
    disks: Vec<machine::Disk>,
}

impl Files {
    /// The user's own, or an image's, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn of(plan: &Plan, platform: &Path, quiet: bool) -> Result<Self, Error> {
        let disks = plan.disks.clone();
        if let Some(kernel) = &plan.kernel {
            let (kernel, initrd) = (kernel.clone(), plan.initrd.clone());
            return Ok(Self { kernel, initrd, initrd_more: Vec::new(), disks });
        }
        if plan.image == ImageName::Debian {
            let image = crate::debian::for_machine(plan.overlay.as_deref(), platform, quiet)?;
            let root = crate::debian::root(&image, plan.overlay.as_deref());
            return Ok(Self {
                kernel: image.kernel,
                initrd: Some(image.initrd),
                initrd_more: image::debian::keys(&crate::debian::keys(quiet)),
                disks: std::iter::once(root).chain(disks).collect(),
            });
        }
        let image = image::ensure(&image::Options { cache_dir: None, quiet })?;
        let initrd = Some(plan.initrd.clone().unwrap_or(image.initrd));
        Ok(Self { kernel: image.kernel, initrd, initrd_more: Vec::new(), disks })
    }
}

/// Where the console goes, and the file that was made for it if there was none.
fn tee(args: &RunArgs, serial: bool) -> Result<(Tee, Option<PathBuf>), Error> {
    let mut tee = Tee::default();
    let mut new_file = None;
    match &args.console {
        // it is on standard output already
        Some(path) if path.as_os_str() == "-" && serial => {}
        Some(path) if path.as_os_str() == "-" => {
            tee.outlet = Some(Outlet::new());
        }
        Some(path) => {
            let is_new = !path.exists();
            tee.file = Some(File::create(path).map_err(|e| {
                Error::bad(format!("cannot write the console to {}: {e}; check the path", path.display()))
            })?);
            new_file = is_new.then(|| path.clone());
        }
        None => {}
    }
    if serial {
        tee.outlet = Some(Outlet::new());
    }
    Ok((tee, new_file))
}

/// Writes the console's queue, if it has one, to a standard stream.
fn write_console(console: &Console, serial: bool) -> Result<(), Error> {
    let Some(outlet) = console.outlet() else { return Ok(()) };
    let mut to = own(if serial { rustix::stdio::stdout() } else { rustix::stdio::stderr() })?;
    thread::Builder::new()
        .name("console".into())
        .spawn(move || {
            // nobody reads it any more: the guest need not care
            let _ = outlet.write_to(&mut to, &|| {});
        })
        .map_err(|e| Error::failed(format!("cannot start a thread: {e}")))?;
    Ok(())
}

/// A descriptor of our own, without the standard library's buffers.
fn own(fd: BorrowedFd<'_>) -> Result<File, Error> {
    let fail = |e: io::Error| Error::failed(format!("cannot use a standard stream: {e}"));
    Ok(File::from(fd.try_clone_to_owned().map_err(fail)?))
}

/// What comes from the guest's ports.
struct Incoming {
    control: Outlet,
    stdout: Outlet,
    stderr: Outlet,
}

impl Incoming {
    fn new(events: &Sender<Event>) -> Self {
        let events = events.clone();
        // nobody listens any more at the end of the session
        let notify = move || drop(events.send(Event::Control));
        Self { control: Outlet::notifying(notify), stdout: Outlet::new(), stderr: Outlet::new() }
    }

    /// The ports in the order in which [`Run::with_agent`] takes their ends.
    fn ports(&self) -> Vec<PortConfig> {
        let port = |name: &str, sink: Outlet| PortConfig {
            name: name.into(),
            console: false,
            sink: Box::new(sink),
            on_event: None,
        };
        vec![
            port(PORT_CONTROL, self.control.clone()),
            // the guest has nothing to say here
            port(PORT_STDIN, {
                let nowhere = Outlet::new();
                nowhere.close();
                nowhere
            }),
            port(PORT_STDOUT, self.stdout.clone()),
            port(PORT_STDERR, self.stderr.clone()),
        ]
    }
}

type StartInput = Box<dyn FnOnce() -> Result<(), Error>>;

/// The side towards people: progress, terminal, notes.
struct Host {
    quiet: bool,
    /// The terminal is to be raw once the guest has it.
    wants_raw: bool,
    raw: Option<Raw>,
    progress: Option<Progress>,
    start_input: Option<StartInput>,
    running: Arc<Running>,
}

impl Host {
    fn new(
        quiet: bool,
        boots: bool,
        wants_raw: bool,
        plan: &Plan,
        start: Instant,
        running: Arc<Running>,
    ) -> Self {
        let progress = (!quiet && boots && matches!(plan.access, Access::Agent { .. })).then(|| {
            let name = plan.size.map(|s| format!("{}, ", s.name)).unwrap_or_default();
            let cpus =
                if plan.cpus == 1 { "1 processor".into() } else { format!("{} processors", plan.cpus) };
            Progress::begin(&format!("{name}{cpus}, {}", units::bytes(plan.memory)), start)
        });
        Self { quiet, wants_raw, raw: None, progress, start_input: None, running }
    }

    /// Gives the terminal back and takes progress away.
    fn close(&mut self) {
        self.progress = None;
        self.raw = None;
    }
}

impl Front for Host {
    fn ready(&mut self) -> Result<(), Error> {
        if let Some(progress) = self.progress.take() {
            progress.done();
        }
        if self.wants_raw {
            self.note(escape::NOTICE);
            let fail = |e| Error::failed(format!("cannot use the terminal: {e}"));
            self.raw = Some(Raw::enter().map_err(fail)?);
        }
        self.start_input.take().map_or(Ok(()), |start| start())
    }

    fn size(&self) -> (u16, u16) {
        terminal::size()
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.alert(text);
        }
    }

    fn alert(&mut self, text: &str) {
        for line in text.lines() {
            // a raw terminal does not return to the margin by itself
            eprint!("kluis: {line}{}", if self.raw.is_some() { "\r\n" } else { "\n" });
        }
    }

    fn suspend(&mut self) {
        // the guest's time stops with ours; a machine that cannot be paused jumps ahead
        let _paused = self.running.pause();
        match &self.raw {
            Some(raw) => raw.suspend(),
            None => terminal::stop_process(),
        }
    }
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

/// A machine that runs.
struct Run<'a> {
    args: &'a RunArgs,
    plan: &'a Plan,
    running: Arc<Running>,
    /// Nobody changes it while the machine runs.
    _platform: Platform,
    /// Other commands find it while it runs.
    _control: Option<Control>,
    gdb: Option<machine::gdb::Server>,
    /// What the guest is connected to.
    _network: Option<net::Connected>,
    console: Console,
    console_out: Option<Outlet>,
    incoming: Incoming,
    front: Host,
    events: Receiver<Event>,
    start: Instant,
    deadline: Option<Instant>,
    /// The agent was ready; the command ended.
    times: (Option<Instant>, Option<Instant>),
}

fn no_thread(e: io::Error) -> Error {
    Error::failed(format!("cannot start a thread: {e}"))
}

impl Run<'_> {
    fn watch_machine(&self, events: &Sender<Event>) -> Result<(), Error> {
        let (running, events) = (self.running.clone(), events.clone());
        let watch = move || {
            if let Some(outcome) = running.wait(None) {
                let _ = events.send(Event::Over(outcome));
            }
        };
        thread::Builder::new().name("machine".into()).spawn(watch).map_err(no_thread)?;
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
            streams::spawn_writer(outlet, port, own(to)?, stream, events.clone()).map_err(no_thread)?;
        }
        if has_input {
            self.front.start_input = Some(Box::new(move || {
                let escape = tty.then(Escape::default);
                streams::spawn_reader(own(rustix::stdio::stdin())?, stdin, escape, events).map_err(no_thread)
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
            } else {
                self.running.power_button();
            }
            self.await_power_off();
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
            streams::spawn_reader(own(rustix::stdio::stdin())?, port, escape, events).map_err(no_thread)
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

    /// Stops the machine, tells what there is to tell.
    fn finish(mut self, end: End, json: bool) -> Result<u8, Error> {
        // a processor may wait for a reader of the console
        if let Some(outlet) = &self.console_out {
            settle(&[outlet]);
            outlet.close();
        }
        self.running.stop();
        if let Some(gdb) = &self.gdb {
            gdb.finish();
        }
        self.incoming.stdout.end();
        self.incoming.stderr.end();
        let stopped = Instant::now();
        if !matches!(end, End::Command(_)) {
            settle(&[&self.incoming.stdout, &self.incoming.stderr]);
        }
        self.front.close();
        self.console.finish();

        let own_initrd = self.plan.kernel.is_some() || self.plan.initrd.is_some();
        let verdict = Verdict::of(
            end,
            &Circumstances {
                command: !self.args.command.is_empty(),
                connected: self.times.0.is_some() || matches!(self.plan.access, Access::Serial),
                panicked: self.console.panicked(),
                own_initrd,
                timeout: self.args.timeout,
            },
        );
        self.tell(&verdict);
        let unimplemented = self.running.unimplemented();
        if !self.args.quiet && !unimplemented.is_empty() {
            eprintln!(
                "kluis: the guest met {} instructions that Kluis does not know, the first: {}",
                unimplemented.len(),
                unimplemented[0]
            );
        }
        if self.args.stats || json {
            let times = Times {
                start: self.start,
                init: self.console.init_started(),
                ready: self.times.0,
                ended: self.times.1,
                end: stopped,
            };
            let retired = self.running.retired();
            let sgx = crate::sgx::Epc::of(self.running.sgx());
            let (end, code) = (verdict.ending, verdict.code);
            let stats = Stats::new(self.plan, &times, retired, unimplemented, sgx, end, code);
            if json {
                let text = serde_json::to_string(&stats).map_err(Error::failed)?;
                eprintln!("{text}");
            } else {
                eprint!("{}", stats.text());
            }
        }
        Ok(verdict.code)
    }

    fn tell(&self, verdict: &Verdict) {
        let failed = verdict.code == crate::exit::FAILED;
        if let Some(message) = &verdict.ending.message
            && (failed || !self.args.quiet)
        {
            eprintln!("kluis: {message}");
        }
        if let Some(details) = &verdict.details {
            eprintln!("{details}");
        }
        // on the serial port they have just been seen
        if verdict.show_console && matches!(self.plan.access, Access::Agent { .. }) {
            let lines = self.console.tail(LAST_LINES);
            if lines.is_empty() {
                eprintln!("kluis: the guest wrote nothing on its console");
            } else {
                eprintln!("kluis: last lines of the guest's console:");
                lines.iter().for_each(|line| eprintln!("  {line}"));
            }
        }
    }
}

/// What is told when a machine has lost its EPC.
fn epc_lost(loss: mee::Loss) -> String {
    format!("the machine has lost its enclaves: {loss}. It goes on without an EPC until it is reset")
}

/// Gives a slow reader some time for what the guest wrote last.
fn settle(outlets: &[&Outlet]) {
    let deadline = Instant::now() + LAST_OUTPUT;
    while !outlets.iter().all(|outlet| outlet.is_flushed()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
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
