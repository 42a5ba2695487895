//! A machine that runs, as its owner sees it.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cpu::shared::request;
use cpu::{Activity, Cpu, Engine};
use devices::qemu::FwCfg;
use devices::virtio::console::HostPort;
use mem::secret::{SecretBox, SecretError, spawn_on_secret_stack};
use mem::{DmaBus, Ram};
use sgx::Package;

use crate::board::{Board, LOW_RAM_END, Parts, Power, PowerSwitch, describe, lock};
use crate::clock::GuestClock;
use crate::config::{Config, MAX_CPUS, MIN_MEMORY, MachineError};
use crate::entry::Entry;
use crate::epc;
use crate::gate::{Gate, PauseError, Paused};
use crate::qemu;
use crate::snapshot::{Shape, SnapshotError, State};
use crate::timers::{self, Alarm};
use crate::vcpu;

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched it off.
    PowerOff,
    /// The guest reset it.
    Reset,
    /// The guest ended it by the debug-exit port, with this status.
    DebugExit(u32),
    /// [`Running::stop`] stopped it.
    Stopped,
    /// A processor shut down; with the guest's state in words.
    TripleFault(String),
    /// Something Kluis could not go on from.
    Failed(String),
}

/// Why processors stopped of their own accord.
pub(crate) enum End {
    TripleFault(String),
    Unimplemented(Vec<String>),
    Panicked(usize),
}

/// What the processors' threads share with the owner.
pub(crate) struct Shared {
    power: Arc<PowerSwitch>,
    end: Mutex<Option<End>>,
    unimplemented: Mutex<Vec<String>>,
    pub(crate) strict: bool,
}

impl Shared {
    /// Whether the guest has left the power on.
    pub(crate) fn is_on(&self) -> bool {
        self.power.get() == Power::On
    }

    pub(crate) fn end(&self, end: End) {
        lock(&self.end).get_or_insert(end);
        self.power.ring();
    }

    pub(crate) fn note_unimplemented(&self, cpu: &Cpu) {
        lock(&self.unimplemented).extend(crate::report::unimplemented(cpu));
    }
}

/// A machine that runs. Dropping it stops it.
pub struct Running {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    shape: Shape,
    board: Arc<Board>,
    cpus: Arc<[Arc<cpu::Shared>]>,
    package: Arc<Package>,
    memory: Arc<DmaBus>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A machine that is made and does not run yet: it has all its memory and files.
/// Dropped, nothing is left of it.
pub struct Prepared {
    running: Arc<Running>,
    engines: Vec<SecretBox<Engine>>,
    clock: Arc<GuestClock>,
    alarm: Arc<Alarm>,
    paused: Paused,
}

/// Makes a machine; gives the host's ends of the console ports, in order.
///
/// # Errors
/// [`MachineError`], of one line with cause and remedy; nothing is left behind.
pub fn prepare(mut config: Config) -> Result<(Prepared, Vec<HostPort>), MachineError> {
    check(&config)?;
    let spans = spans(config.memory);
    let epc_range = epc::place(&spans, config.epc.bytes);
    let about = describe(config.cpus, spans.clone(), epc_range.clone());
    let shape = Shape::of(&config);
    let held = config.snapshot.as_ref().map(|snapshot| snapshot.held()).unwrap_or_default();
    let (ram, begin, fw_cfg) = fill_memory(&mut config, &about, spans, epc_range.clone(), &shape)?;
    let package = epc::package(config.epc, &config.model, config.cpus)?;

    let clock = Arc::new(GuestClock::new(config.model.tsc_hz));
    let alarm = Arc::new(Alarm::default());
    let cpus = cpu::shared::processors(config.cpus);
    let power = Arc::new(PowerSwitch::new(cpus.clone()));
    ram.code().set_listeners(cpus.iter().map(|c| c.clone() as Arc<dyn mem::CodeListener>).collect());
    let (gate, paused) = Gate::new(clock.clone(), cpus.clone());
    if let Begin::Snapshot(state) = &begin {
        paused.set_guest_ns(state.guest_ns);
    }
    let memory = Arc::new(DmaBus::new(ram.guest().clone(), epc_range.clone())?);
    let (board, ports) = Board::new(Parts {
        description: &about,
        memory: memory.clone(),
        cpus: cpus.clone(),
        clock: clock.clone(),
        alarm: alarm.clone(),
        gate: gate.clone(),
        power: power.clone(),
        serial: config.serial,
        disks: &config.disks,
        held: &held,
        shares: &config.shares,
        vsock: &config.vsock,
        ports: config.ports,
        qemu: qemu::Wanted { fw_cfg, debug_exit: config.debug_exit, test_device: config.test_device },
        network: config.network,
    })?;
    let mut engines = Vec::new();
    for id in 0..config.cpus {
        let mut cpu = Cpu::new(id, config.model.clone(), ram.clone(), board.clone(), cpus[id].clone());
        match &begin {
            Begin::Kernel(entry) if id == 0 => entry.enter(&mut cpu),
            Begin::Kernel(_) => cpu.activity = Activity::WaitForSipi,
            Begin::Snapshot(state) => load_cpu(&mut cpu, state)?,
        }
        cpu.set_sgx(package.clone(), epc_range.start);
        // enclaves run on its registers
        engines.push(SecretBox::new(Engine::new(cpu)).map_err(no_secret_memory)?);
    }
    let shared = Arc::new(Shared {
        power,
        end: Mutex::default(),
        unimplemented: Mutex::default(),
        strict: config.strict,
    });
    let running = Arc::new(Running {
        shared,
        gate,
        shape,
        board,
        cpus,
        package,
        memory,
        stop: Arc::default(),
        threads: Mutex::default(),
    });
    // after the local APICs: devices drive their wires as they are loaded
    if let Begin::Snapshot(state) = begin {
        for (index, value) in state.launch_hash.into_iter().enumerate() {
            running.package.set_launch_hash_msr(index, value);
        }
        running.board.load(state.devices)?;
    }
    Ok((Prepared { running, engines, clock, alarm, paused }, ports))
}

impl Prepared {
    /// The machine as its owner will see it; it does not run yet.
    pub fn machine(&self) -> &Arc<Running> {
        &self.running
    }

    /// Starts the processors, which stand before their first instruction until the
    /// pause is dropped. Their threads inherit what confines the calling one.
    ///
    /// # Errors
    /// The host has no threads or stacks for them; nothing runs then.
    pub fn start(self) -> Result<Paused, MachineError> {
        let Self { running, engines, clock, alarm, paused } = self;
        let (board, gate) = (Arc::downgrade(&running.board), running.gate.clone());
        let timer_clock = clock.clone();
        // Not joined: it ends when the board is gone.
        std::thread::Builder::new()
            .name("timers".into())
            .spawn(move || timers::run(board, gate, alarm, timer_clock))
            .map_err(MachineError::Thread)?;
        running.board.start_threads()?;
        for (id, mut engine) in engines.into_iter().enumerate() {
            let (shared, gate) = (running.shared.clone(), running.gate.clone());
            let (clock, stop) = (clock.clone(), running.stop.clone());
            let work = move || {
                let work = || vcpu::run(&mut engine, &shared, &gate, &clock, &stop);
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                    shared.end(End::Panicked(id));
                }
                gate.gone(id);
            };
            // they still stand, and end there
            let thread = spawn_on_secret_stack(&format!("vcpu{id}"), epc::STACK, work)
                .inspect_err(|_| running.stop())
                .map_err(no_secret_memory)?;
            lock(&running.threads).push(thread);
        }
        Ok(paused)
    }
}

fn no_secret_memory(e: SecretError) -> MachineError {
    MachineError::Epc(e.to_string())
}

/// Where processors begin.
enum Begin {
    Kernel(Entry),
    Snapshot(Box<State>),
}

/// RAM with what the machine starts from in it, and what the firmware configuration
/// device tells of that.
fn fill_memory(
    config: &mut Config,
    about: &boot::acpi::Board,
    spans: Vec<Range<u64>>,
    epc: Range<u64>,
    shape: &Shape,
) -> Result<(Ram, Begin, Option<FwCfg>), MachineError> {
    let ranges: Vec<_> = spans.iter().map(|span| (span.start, span.end - span.start)).collect();
    if let Some(snapshot) = config.snapshot.take() {
        snapshot.check(shape)?;
        let ram = snapshot.ram(&ranges, epc.end)?;
        let state = snapshot.into_state();
        // what it told of its image is part of its state
        let fw_cfg = state.devices.iter().any(|part| part.is(qemu::FW_CFG_NAME)).then(|| FwCfg::new([], []));
        return Ok((ram, Begin::Snapshot(Box::new(state)), fw_cfg));
    }
    let ram = Ram::with_top(&ranges, epc.end)?;
    let layout = boot::Layout::new(spans, vec![about.pci.ecam(), epc]);
    let guest = &**ram.guest();
    let entry = Entry::load(config, guest, &layout)?;
    boot::acpi::write(guest, about, &layout)?;
    let fw_cfg = match &entry {
        Entry::Linux(_) => None,
        Entry::Image(image) => Some(qemu::fw_cfg(config, image, &layout)),
    };
    Ok((ram, Begin::Kernel(entry), fw_cfg))
}

fn load_cpu(cpu: &mut Cpu, state: &State) -> Result<(), SnapshotError> {
    let saved = state.cpus.get(cpu.id).ok_or(SnapshotError::Damaged("a processor is missing"))?;
    Ok(cpu.load_state(saved)?)
}

/// Where `memory` bytes of RAM lie, in whole pages.
pub(crate) fn spans(memory: u64) -> Vec<Range<u64>> {
    const HIGH: u64 = 1 << 32;
    let memory = memory & !0xfff;
    let low = memory.min(LOW_RAM_END);
    let high = (memory > low).then(|| HIGH..HIGH + (memory - low));
    std::iter::once(0..low).chain(high).collect()
}

fn check(config: &Config) -> Result<(), MachineError> {
    if !(1..=MAX_CPUS).contains(&config.cpus) {
        return Err(MachineError::Cpus(config.cpus));
    }
    if config.memory < MIN_MEMORY {
        return Err(MachineError::TooLittleMemory { given: config.memory >> 20, least: MIN_MEMORY >> 20 });
    }
    // The hole below 4 GiB moves the end up by one GiB.
    let most = (1u64 << config.model.phys_bits) - (1 << 30);
    if config.memory > most {
        return Err(MachineError::TooMuchMemory {
            given: config.memory >> 30,
            most: most >> 30,
            model: config.model.name,
        });
    }
    let epc = epc::place(&spans(config.memory), config.epc.bytes);
    if epc.is_empty() || epc.end > 1 << config.model.phys_bits {
        let (bits, model) = (config.model.phys_bits, config.model.name);
        let why = format!(
            "beside {} GiB of memory it does not fit {model}'s {bits} address bits; choose a smaller --epc",
            config.memory >> 30
        );
        return Err(MachineError::Epc(why));
    }
    Ok(())
}

impl Running {
    /// Waits until the machine ends, at most `timeout`; `None` if it still runs.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Outcome> {
        let deadline = timeout.map(|t| Instant::now() + t);
        let over = || {
            self.shared.power.get() != Power::On
                || self.stop.load(Ordering::SeqCst)
                || lock(&self.shared.end).is_some()
        };
        if !self.shared.power.wait(deadline, over) {
            return None;
        }
        let outcome = self.outcome();
        self.halt();
        Some(outcome)
    }

    fn outcome(&self) -> Outcome {
        match (self.shared.power.get(), &*lock(&self.shared.end)) {
            (Power::Off, _) => Outcome::PowerOff,
            (Power::Reset, _) => Outcome::Reset,
            (Power::Exit(status), _) => Outcome::DebugExit(status),
            (Power::On, Some(End::TripleFault(report))) => Outcome::TripleFault(report.clone()),
            (Power::On, Some(End::Unimplemented(list))) => {
                Outcome::Failed(format!("an instruction that Kluis does not know: {}", list.join("; ")))
            }
            (Power::On, Some(End::Panicked(id))) => Outcome::Failed(format!(
                "processor {id} hit a defect of Kluis itself; please report it with the lines above"
            )),
            (Power::On, None) => Outcome::Stopped,
        }
    }

    /// Stops the machine at once, as if the power was cut.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.shared.power.ring();
        self.halt();
    }

    fn halt(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.gate.end();
        self.request_all(request::EXIT);
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
    }

    /// Pauses the machine: returns once all processors stand at instruction
    /// boundaries and nothing but the owner changes its state. See [`Paused`].
    ///
    /// # Errors
    /// [`PauseError`]; the machine is as before then.
    pub fn pause(&self) -> Result<Paused, PauseError> {
        self.gate.close()
    }

    /// Instructions each processor has retired.
    pub fn retired(&self) -> Vec<u64> {
        self.cpus.iter().map(|cpu| cpu.retired.load(Ordering::Relaxed)).collect()
    }

    /// Sends bytes to COM1; how many it took.
    pub fn serial_input(&self, data: &[u8]) -> usize {
        self.board.serial_input(data)
    }

    /// Memory as bus masters see it.
    pub(crate) fn memory(&self) -> &DmaBus {
        &self.memory
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Asks all processors for attention.
    pub(crate) fn request_all(&self, bits: u32) {
        self.cpus.iter().for_each(|cpu| cpu.request(bits));
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// The SGX part of the machine's processors.
    pub fn sgx(&self) -> &Package {
        &self.package
    }

    /// Presses the power button: the guest is asked to shut down.
    pub fn power_button(&self) {
        self.board.power_button();
    }

    /// Instructions met that Kluis does not know; complete once the machine has ended.
    pub fn unimplemented(&self) -> Vec<String> {
        lock(&self.shared.unimplemented).clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.halt();
    }
}
