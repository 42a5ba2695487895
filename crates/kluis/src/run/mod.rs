//! `kluis run`: a machine, and one command or terminal in it.
//!
//! * [`plan`]: what is to be built, or why it cannot be; [`multiboot`]: modules in `--initrd`
//! * [`origin`]: the snapshot, the image or the files that it starts from; [`provision`]: what
//!   it makes quotes with
//! * [`attend`]: from its first instruction to its end
//! * [`session`]: the conversation with the guest's agent
//! * [`incoming`], [`streams`]: bytes between ports and descriptors; [`escape`]: Ctrl-]
//! * [`save`]: a snapshot of the machine
//! * [`console`]: the guest's serial port; [`gdb`]: the debugger's; [`enclave`]: that of a
//!   debugger of an enclave
//! * [`network`]: `--network`, `--publish`, `--allow-host`
//! * [`front`]: what people see; [`terminal`], [`signals`], [`progress`]
//! * [`confine`]: the walls around the process; [`again`]: `--reboot`; [`sweep`]: what is
//!   done outside of the walls
//! * [`finish`]: what is told at the end; [`verdict`]: what it means; [`stats`]: what it
//!   cost; [`trace`]: `--trace`

mod again;
mod attend;
mod confine;
mod console;
pub(crate) mod enclave;
mod escape;
mod finish;
mod front;
mod gdb;
mod incoming;
mod multiboot;
mod network;
mod origin;
mod plan;
mod progress;
mod provision;
pub(crate) mod save;
mod session;
pub(crate) mod signals;
mod stats;
mod streams;
pub(crate) mod sweep;
mod terminal;
mod trace;
mod verdict;

use crate::cli::RunArgs;
use crate::control::Control;
use crate::exit::Error;
use crate::ps::About;
use crate::snapshot::{owner, prepare};
use crate::{host, units};
use attend::Run;
use console::{Console, Tee};
use front::Host;
use incoming::Incoming;
use machine::Config;
pub(crate) use origin::Files;
use origin::Origin;
use plan::Access;
pub(crate) use plan::{HostTerminal, Plan};
use session::{End, Event};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use sweep::Sweeper;

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
    // what is only prepared has no debugger
    let wish = args.gdb.filter(|_| order.is_none());
    let enclave = wish.map(|_| enclave::Order::inherited()).transpose()?.flatten();
    let from = Origin::of(args, &host_terminal, order.is_some(), &mut platform)?;
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
        None => Files::of(&plan, &mut platform, args.quiet)?,
    };
    let (start_from, from) = match from {
        Some(from) => (Some(Box::new(from.snapshot)), Some((from.path, from.owner.session))),
        None => (None, None),
    };
    if !args.quiet {
        tell_of_memory(&plan);
    }

    let (network, device) = network::prepare(&plan.network)?.unzip();
    let (events_in, events) = mpsc::channel();
    let raw = match &plan.access {
        Access::Agent { tty, .. } => *tty,
        Access::Serial => host_terminal.interactive,
    };
    let serial = matches!(plan.access, Access::Serial);
    let (tee, new_file) = Tee::of(args, serial)?;
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
    let sweeper = Sweeper::start(plan.vsock.listen.values())
        .map_err(|e| Error::failed(format!("cannot start a process beside the machine: {e}")))?;
    let running = prepared.machine().clone();
    let events_of_epc = events_in.clone();
    // nobody listens any more at the end of the session
    running.sgx().dram.on_loss(move |loss| drop(events_of_epc.send(Event::EpcLost(loss))));
    if !args.quiet {
        tell_of_secrets();
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
    let gdb = wish.map(|wish| gdb::bind(wish, enclave.is_some()).map(Arc::new)).transpose()?;

    // Everything is open: the walls go up, which threads inherit.
    confine::files(&plan, control.as_ref(), args.quiet)?;
    confine::calls(&plan, args.quiet)?;
    signals::watch(raw, events_in.clone())?;
    console.start_writing(serial)?;
    let network = network.map(|network| network.connect(args.quiet)).transpose()?;
    let standing = prepared.start().map_err(Error::failed)?;
    if let Some(control) = &control {
        let about =
            About::of(&plan, args.snapshot.as_deref(), gdb.as_ref().and_then(|server| server.address().ok()));
        let snapshots = save::on_request(&running, &platform_id, &events_in);
        control.serve(running.clone(), about, snapshots).unwrap_or_else(unseen);
    }
    match (gdb.as_ref().zip(wish), enclave) {
        (Some((server, _)), Some(order)) => order.serve(running.clone(), standing, server.clone())?,
        // it is dropped when the debugger lets the machine go on
        (Some((server, wish)), None) => {
            let standing = wish.waits.then_some(standing);
            server.serve(running.clone(), standing, wish.long).map_err(Error::no_thread)?;
        }
        (None, _) => drop(standing),
    }
    let save = order.map(|o| save::Request::prepared(running.clone(), o.file, &platform_id, &o.key));
    let mut run = Run {
        args,
        plan: &plan,
        running: running.clone(),
        _platform: platform,
        _control: control,
        _sweeper: sweeper,
        gdb,
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
    let end = run.attend(from.map(|(_, session)| session), save, ports, events_in);
    let reset = matches!(end, End::Machine(machine::Outcome::Reset)) && !console.panicked();
    let code = run.finish(end, json)?;
    if let Some(again) = again.filter(|_| reset) {
        again.tell();
    }
    Ok(code)
}

/// What may surprise about the machine's memory.
fn tell_of_memory(plan: &Plan) {
    if let Some((total, _)) = host::memory()
        && plan.memory > total
    {
        eprintln!(
            "kluis: the machine has {}, this host {}: memory is taken as the guest touches it",
            units::bytes(plan.memory),
            units::bytes(total)
        );
    }
}

/// What may surprise about the secrets on its processor.
fn tell_of_secrets() {
    if mem::secret::weakest() == mem::secret::Backend::Unlocked {
        eprintln!(
            "kluis: the limit of locked memory (ulimit -l) is small: part of what enclaves have on the processor \
             may reach swap, and debuggers of yours can read it; see `kluis sgx inspect`"
        );
    }
}
