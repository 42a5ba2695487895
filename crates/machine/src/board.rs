//! Devices at their ports and addresses: a PC of the Q35 kind, without
//! firmware, VGA and legacy storage. What the guest is told of it is in the
//! ACPI tables (`boot::acpi`); the two are made from one description.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cpu::Shared;
use cpu::shared::request;
use devices::i8042::I8042;
use devices::ioapic::{IOAPIC_BASE, IoApic};
use devices::irq::FanOut;
use devices::pci::{ConfigPorts, Ecam, HostBridge, PciBus};
use devices::pic::Pic;
use devices::pit::{PORT_61, Pit};
use devices::pm::{AcpiPm, PM1_CONTROL};
use devices::port92::Port92;
use devices::qemu::ExitSink;
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::virtio::blk::BlockBackend;
use devices::virtio::console::{self, Console, HostPort, PortConfig, ResizeOrder};
use devices::virtio::{BAR, BAR_LEN, Block, Entropy, Net, VirtioDevice, VirtioPci, net};
use devices::{Clock, Device, IrqLine, PowerSink};
use mem::DmaBus;

use crate::clock::GuestClock;
use crate::config::{Disk, MachineError};
use crate::disks;
use crate::gate::Gate;
use crate::interrupts::{ExtInt, ToApics};
use crate::parts::{self, Part, PartState};
use crate::qemu::{OLD_PM1_CONTROL, QemuDevices, Wanted};
use crate::shares::{self, Share};
use crate::snapshot::{Held, SnapshotError};
use crate::timers::Alarm;
use crate::vsock::{self, VsockPorts};

/// First byte above RAM below 4 GiB, at most.
pub(crate) const LOW_RAM_END: u64 = 0xc000_0000;
/// Bytes of input a console port holds for the guest.
const PORT_CAPACITY: usize = 256 << 10;
/// Buses described: one.
const LAST_BUS: u8 = 0;

/// What the guest did with the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    On,
    Off,
    Reset,
    /// By the debug-exit port.
    Exit(u32),
}

/// Where devices report power-off and reset; the machine's owner waits here. The
/// processors stop at once.
pub(crate) struct PowerSwitch {
    cpus: Arc<[Arc<Shared>]>,
    /// What happened first, as [`PowerSwitch::get`] decodes it.
    state: AtomicU64,
    changed: (Mutex<()>, Condvar),
}

impl PowerSwitch {
    pub(crate) fn new(cpus: Arc<[Arc<Shared>]>) -> Self {
        Self { cpus, state: AtomicU64::new(0), changed: Default::default() }
    }

    pub(crate) fn get(&self) -> Power {
        match self.state.load(Ordering::SeqCst) {
            0 => Power::On,
            1 => Power::Off,
            2 => Power::Reset,
            exit => Power::Exit((exit >> 32) as u32),
        }
    }

    fn set(&self, state: u64) {
        let _ = self.state.compare_exchange(0, state, Ordering::SeqCst, Ordering::SeqCst);
        self.cpus.iter().for_each(|cpu| cpu.request(request::EXIT));
        self.ring();
    }

    /// Wakes whoever waits, so that it looks around.
    pub(crate) fn ring(&self) {
        let _guard = lock(&self.changed.0);
        self.changed.1.notify_all();
    }

    /// Waits until `done`, or until `deadline`; whether `done`.
    pub(crate) fn wait(&self, deadline: Option<Instant>, done: impl Fn() -> bool) -> bool {
        let mut guard = lock(&self.changed.0);
        while !done() {
            let left = match deadline {
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return false,
                },
                None => Duration::from_secs(3600),
            };
            guard = self.changed.1.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl PowerSink for PowerSwitch {
    fn power_off(&self) {
        self.set(1);
    }
    fn reset(&self) {
        self.set(2);
    }
}

impl ExitSink for PowerSwitch {
    fn exit(&self, status: u32) {
        self.set(3 | u64::from(status) << 32);
    }
}

/// The description that devices and ACPI tables are made from.
pub(crate) fn describe(cpus: usize, ram: Vec<Range<u64>>, epc: Range<u64>) -> boot::acpi::Board {
    let mut board = boot::acpi::Board::new(cpus as u32, ram);
    board.epc = vec![epc];
    board.pic = true;
    board.pm.power_button = true;
    board.pci.last_bus = LAST_BUS;
    board
}

type Com1 = Serial<Box<dyn Write + Send>>;
type VirtioDisk = Arc<Mutex<VirtioPci<Block<Box<dyn BlockBackend>>, DmaBus>>>;
type VirtioConsole = Arc<Mutex<VirtioPci<Console, DmaBus>>>;

/// Starts a thread that serves a device.
type HostThread = Box<dyn FnOnce() -> Result<(), MachineError> + Send>;
type Kick = Box<dyn Fn() + Send + Sync>;

/// Kicks a device as long as it is there.
fn kick<D: VirtioDevice + 'static>(device: &Arc<Mutex<VirtioPci<D, DmaBus>>>) -> Kick {
    let device = Arc::downgrade(device);
    Box::new(move || {
        if let Some(device) = device.upgrade() {
            lock(&device).kick();
        }
    })
}
/// What sits in the PCI slots, by name.
type Functions = Vec<(String, Arc<dyn Part>)>;

/// The board.
pub(crate) struct Board {
    clock: Arc<GuestClock>,
    alarm: Arc<Alarm>,
    ioapic: Mutex<IoApic>,
    ioapic_eoi: IoApic,
    pic: Mutex<Pic>,
    pic_ack: Pic,
    pit: Mutex<Pit>,
    rtc: Mutex<Rtc>,
    pm: Mutex<AcpiPm>,
    i8042: Mutex<I8042>,
    port92: Mutex<Port92>,
    serial: Mutex<Com1>,
    config_ports: Mutex<ConfigPorts>,
    ecam: Mutex<Ecam>,
    pci: Arc<PciBus>,
    functions: Functions,
    disks: Vec<VirtioDisk>,
    pci_window: Range<u64>,
    ecam_base: u64,
    pm_base: u16,
    gate: Arc<Gate>,
    /// A port of the console, if there is one.
    console: Option<HostPort>,
    /// The power button was pressed while the machine was paused.
    button: AtomicBool,
    qemu: QemuDevices,
    /// Threads that serve devices, until they are started.
    threads: Mutex<Vec<HostThread>>,
    /// Makes each of these devices look around.
    kicks: Vec<Kick>,
}

/// What a board is made from.
pub(crate) struct Parts<'a> {
    pub(crate) description: &'a boot::acpi::Board,
    pub(crate) memory: Arc<DmaBus>,
    pub(crate) cpus: Arc<[Arc<Shared>]>,
    pub(crate) clock: Arc<GuestClock>,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) power: Arc<PowerSwitch>,
    pub(crate) serial: Box<dyn Write + Send>,
    pub(crate) disks: &'a [Disk],
    /// What snapshots hold of their overlays, in the same order, if anything.
    pub(crate) held: &'a [Option<Held>],
    pub(crate) shares: &'a [Share],
    pub(crate) vsock: &'a VsockPorts,
    pub(crate) ports: Vec<PortConfig>,
    pub(crate) qemu: Wanted,
    pub(crate) network: Option<Net>,
}

impl Board {
    /// Makes the devices and connects them; gives the host's ends of the
    /// console ports too.
    pub(crate) fn new(parts: Parts<'_>) -> Result<(Arc<Board>, Vec<HostPort>), MachineError> {
        let about = parts.description;
        let apics = Arc::new(ToApics(parts.cpus.clone()));
        let ioapic = IoApic::new(about.ioapic.id, apics.clone());
        let pic = Pic::new(Arc::new(ExtInt(parts.cpus[0].clone())));
        // Every ISA wire goes to the 8259s and to the I/O APIC; the timer to pin 2.
        let isa = |irq: u8| -> Arc<dyn IrqLine> {
            let pin = ioapic.pin(if irq == 0 { 2 } else { irq });
            Arc::new(FanOut(pin.into_iter().chain([pic.line(irq)]).collect()))
        };
        let gsi = |n: u8| -> Arc<dyn IrqLine> {
            if n < 16 { isa(n) } else { ioapic.pin(n).unwrap_or_else(|| Arc::new(devices::irq::NoLine)) }
        };
        let clock: Arc<dyn Clock> = parts.clock.clone();
        let power: Arc<dyn PowerSink> = parts.power.clone();
        // The SCI is wired to the I/O APIC alone: level-triggered there.
        let sci = ioapic.pin(about.sci_irq).unwrap_or_else(|| Arc::new(devices::irq::NoLine));

        let pci = Arc::new(PciBus::new());
        let mut slots = Slots {
            bus: pci.clone(),
            memory: parts.memory,
            ioapic: &ioapic,
            apics: apics.clone(),
            about: &about.pci,
            next: 1,
            parts: Vec::new(),
        };
        let bridge = Arc::new(Mutex::new(HostBridge::new()));
        slots.parts.push(("host-bridge".into(), bridge.clone()));
        let _ = pci.plug(0, bridge);
        slots.plug(Entropy)?;
        let mut host_ports = Vec::new();
        if !parts.ports.is_empty() {
            // Linux before 2025 reads the rows first (fixed by 5326ab737a47).
            let (device, ports) = Console::new(parts.ports, PORT_CAPACITY, ResizeOrder::RowsFirst);
            let plugged: VirtioConsole = slots.plug(device)?;
            let gate = parts.gate.clone();
            console::connect(&plugged, &ports, move |kick| {
                let _ = gate.work_now(kick);
            });
            host_ports = ports;
        }
        if let Some(device) = parts.network {
            net::connect(&slots.plug(device)?);
        }
        let mut plugged = Vec::new();
        for (i, disk) in parts.disks.iter().enumerate() {
            let backend = disks::open(disk, parts.held.get(i).and_then(Option::as_ref))?;
            plugged.push(slots.plug(Block::new(backend, &format!("kluis-{i}")))?);
        }
        let (mut threads, mut kicks): (Vec<HostThread>, Vec<Kick>) = Default::default();
        for (device, server) in shares::open(parts.shares)? {
            let device = slots.plug(device)?;
            kicks.push(kick(&device));
            let (device, gate) = (Arc::downgrade(&device), parts.gate.clone());
            threads.push(Box::new(move || server.start(device, gate)));
        }
        if !parts.vsock.is_empty() {
            let (device, host) = vsock::open(parts.vsock)?;
            let device = slots.plug(device)?;
            kicks.push(kick(&device));
            let (device, gate) = (Arc::downgrade(&device), parts.gate.clone());
            threads.push(Box::new(move || host.start(device, gate)));
        }

        let board = Board {
            functions: slots.parts,
            pit: Mutex::new(Pit::new(clock.clone(), isa(0))),
            rtc: Mutex::new(Rtc::new(clock.clone(), isa(8))),
            serial: Mutex::new(Serial::new(isa(4), parts.serial)),
            pm: Mutex::new(AcpiPm::new(clock, sci, power.clone(), about.pm.s5, about.pm.timer_32bit)),
            i8042: Mutex::new(I8042::new(power.clone())),
            port92: Mutex::new(Port92::new(power.clone())),
            qemu: QemuDevices::new(parts.qemu, parts.power, gsi),
            disks: plugged,
            config_ports: Mutex::new(ConfigPorts::new(pci.clone(), power)),
            ecam: Mutex::new(Ecam::new(pci.clone())),
            pci,
            pci_window: about.pci.mem32.clone(),
            ecam_base: about.pci.ecam_base,
            pm_base: about.pm.event,
            ioapic_eoi: ioapic.clone(),
            ioapic: Mutex::new(ioapic),
            pic_ack: pic.clone(),
            pic: Mutex::new(pic),
            clock: parts.clock,
            alarm: parts.alarm,
            gate: parts.gate,
            console: host_ports.first().cloned(),
            button: AtomicBool::new(false),
            threads: Mutex::new(threads),
            kicks,
        };
        let board = Arc::new(board);
        let weak = Arc::downgrade(&board);
        board.gate.on_open(move || {
            if let Some(board) = weak.upgrade() {
                board.goes_on();
            }
        });
        Ok((board, host_ports))
    }

    /// Starts the threads that serve devices, once.
    pub(crate) fn start_threads(&self) -> Result<(), MachineError> {
        std::mem::take(&mut *lock(&self.threads)).into_iter().try_for_each(|start| start())
    }

    /// After a pause: what was not done meanwhile.
    fn goes_on(&self) {
        let catch_up = || {
            // true time has gone on
            lock(&self.rtc).resync();
            self.alarm.ring();
            self.kicks.iter().for_each(|kick| kick());
            if self.button.swap(false, Ordering::SeqCst) {
                lock(&self.pm).press_power_button();
            }
        };
        self.gate.work_now(catch_up);
        if let Some(port) = &self.console {
            port.kick();
        }
    }

    /// What a snapshot keeps, in the order in which it is loaded: interrupt
    /// controllers before the devices that drive their pins.
    fn parts(&self) -> Vec<(&str, &dyn Part)> {
        let Board {
            ioapic,
            pic,
            pit,
            rtc,
            pm,
            i8042,
            serial,
            config_ports,
            ecam,
            functions,
            disks: _,
            // the same devices once more, wires, addresses, and the host's side
            ioapic_eoi: _,
            pic_ack: _,
            pci: _,
            pci_window: _,
            ecam_base: _,
            pm_base: _,
            clock: _,
            alarm: _,
            gate: _,
            console: _,
            button: _,
            threads: _,
            kicks: _,
            qemu,
            port92,
        } = self;
        let mut parts: Vec<(&str, &dyn Part)> = vec![
            ("ioapic", ioapic),
            ("pic", pic),
            ("pit", pit),
            ("rtc", rtc),
            ("pm", pm),
            ("i8042", i8042),
            ("com1", serial),
            ("port92", port92),
            ("pci-ports", config_ports),
            ("ecam", ecam),
        ];
        parts.extend(qemu.parts());
        parts.extend(functions.iter().map(|(name, function)| (name.as_str(), &**function)));
        parts
    }

    /// The devices' state; the machine is paused.
    pub(crate) fn save(&self) -> Result<Vec<PartState>, SnapshotError> {
        parts::save(&self.parts())
    }

    /// Takes over the devices' state; before the machine runs.
    pub(crate) fn load(&self, states: Vec<PartState>) -> Result<(), SnapshotError> {
        parts::load(&self.parts(), states)?;
        self.pci.refresh();
        Ok(())
    }

    /// Makes durable what the guest has written to its disks; the machine is paused.
    pub(crate) fn flush_disks(&self) -> io::Result<()> {
        self.disks.iter().try_for_each(|disk| lock(disk).device_mut().backend_mut().flush())
    }

    /// Gives what the overlay of a disk holds.
    pub(crate) fn save_overlay(
        &self,
        number: usize,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(disk) = self.disks.get(number) else { return Ok(()) };
        lock(disk).device_mut().backend_mut().save(each)
    }

    /// When the next device timer is due, in guest nanoseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let all = [lock(&self.pit).deadline(), lock(&self.rtc).deadline(), lock(&self.pm).deadline()];
        all.into_iter().flatten().min()
    }

    /// Ticks every device timer.
    pub(crate) fn tick(&self) {
        lock(&self.pit).tick();
        lock(&self.rtc).tick();
        lock(&self.pm).tick();
    }

    /// Puts input on COM1's wire; how many bytes fit: none while paused.
    pub(crate) fn serial_input(&self, data: &[u8]) -> usize {
        self.gate.work_now(|| lock(&self.serial).push(data)).unwrap_or(0)
    }

    /// The power button is pressed; a paused machine sees it when it goes on.
    pub(crate) fn power_button(&self) {
        if self.gate.work_now(|| lock(&self.pm).press_power_button()).is_none() {
            self.button.store(true, Ordering::SeqCst);
        }
    }

    /// Calls `f` with the device at an I/O port and the port's offset there.
    fn with_port(&self, port: u16, f: impl FnOnce(&mut dyn Access, u64)) -> bool {
        let p = u64::from(port);
        match port {
            0x20 | 0x21 | 0xa0 | 0xa1 | 0x4d0 | 0x4d1 => f(&mut *lock(&self.pic), p - 0x20),
            0x40..=0x43 => f(&mut *lock(&self.pit), p - 0x40),
            0x61 => f(&mut *lock(&self.pit), PORT_61),
            0x60 | 0x64 => f(&mut *lock(&self.i8042), p - 0x60),
            0x92 => f(&mut *lock(&self.port92), 0),
            0x70 | 0x71 => f(&mut *lock(&self.rtc), p - 0x70),
            0x3f8..=0x3ff => f(&mut *lock(&self.serial), p - 0x3f8),
            0xcf8..=0xcff => f(&mut *lock(&self.config_ports), p - 0xcf8),
            _ if u64::from(port.wrapping_sub(self.pm_base)) < AcpiPm::PORTS => {
                f(&mut *lock(&self.pm), u64::from(port - self.pm_base));
            }
            _ if port & !1 == OLD_PM1_CONTROL && self.qemu.for_image() => {
                f(&mut *lock(&self.pm), u64::from(PM1_CONTROL) + (p & 1));
            }
            _ => return self.qemu.with_port(port, f),
        }
        true
    }

    /// True if a write to the port may move a deadline.
    fn moves_deadline(&self, port: u16) -> bool {
        matches!(port, 0x40..=0x43 | 0x61 | 0x70 | 0x71)
            || u64::from(port.wrapping_sub(self.pm_base)) < AcpiPm::PORTS
    }
}

/// A device, without its state's type.
pub(crate) trait Access {
    fn read(&mut self, offset: u64, data: &mut [u8]);
    fn write(&mut self, offset: u64, data: &[u8]);
}

impl<D: Device> Access for D {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        Device::read(self, offset, data);
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        Device::write(self, offset, data);
    }
}

impl cpu::Bus for Board {
    fn mmio_read(&self, _cpu: usize, gpa: u64, data: &mut [u8]) {
        if gpa.wrapping_sub(IOAPIC_BASE) < 0x1000 {
            Device::read(&mut *lock(&self.ioapic), gpa - IOAPIC_BASE, data);
        } else if gpa.wrapping_sub(self.ecam_base) < Ecam::LEN {
            Device::read(&mut *lock(&self.ecam), gpa - self.ecam_base, data);
        } else {
            let answered = self.pci_window.contains(&gpa) && self.pci.mmio_read(gpa, data)
                || self.qemu.with_memory(gpa, |device, offset| device.read(offset, data));
            if !answered {
                data.fill(0xff);
            }
        }
    }

    fn mmio_write(&self, _cpu: usize, gpa: u64, data: &[u8]) {
        if gpa.wrapping_sub(IOAPIC_BASE) < 0x1000 {
            Device::write(&mut *lock(&self.ioapic), gpa - IOAPIC_BASE, data);
        } else if gpa.wrapping_sub(self.ecam_base) < Ecam::LEN {
            Device::write(&mut *lock(&self.ecam), gpa - self.ecam_base, data);
        } else if self.pci_window.contains(&gpa) {
            self.pci.mmio_write(gpa, data);
        } else {
            self.qemu.with_memory(gpa, |device, offset| device.write(offset, data));
        }
    }

    fn port_read(&self, _cpu: usize, port: u16, data: &mut [u8]) {
        if !self.with_port(port, |device, offset| device.read(offset, data))
            && !self.pci.port_read(port, data)
        {
            data.fill(0xff);
        }
    }

    fn port_write(&self, _cpu: usize, port: u16, data: &[u8]) {
        if !self.with_port(port, |device, offset| device.write(offset, data)) {
            self.pci.port_write(port, data);
        }
        if self.moves_deadline(port) {
            self.alarm.ring();
        }
    }

    fn eoi(&self, _cpu: usize, vector: u8) {
        self.ioapic_eoi.eoi(vector);
    }

    fn ext_int_ack(&self) -> u8 {
        self.pic_ack.ack()
    }

    fn tsc(&self) -> u64 {
        self.clock.tsc()
    }
}

/// Puts virtio functions into slots, with addresses and interrupt wires.
struct Slots<'a> {
    bus: Arc<PciBus>,
    memory: Arc<DmaBus>,
    ioapic: &'a IoApic,
    apics: Arc<ToApics>,
    about: &'a boot::acpi::Pci,
    next: u8,
    parts: Functions,
}

impl Slots<'_> {
    fn plug<D: VirtioDevice + 'static>(
        &mut self,
        device: D,
    ) -> Result<Arc<Mutex<VirtioPci<D, DmaBus>>>, MachineError> {
        let slot = self.next;
        self.next += 1;
        let gsi = self.about.gsi(slot, 0) as u8;
        let irq = self.ioapic.pin(gsi).unwrap_or_else(|| Arc::new(devices::irq::NoLine));
        let full = |_| MachineError::TooManyDevices(usize::from(slot));
        let mut function =
            VirtioPci::new(device, self.memory.clone(), irq, self.apics.clone()).map_err(|_| full(()))?;
        let config = function.config_mut();
        config.set_interrupt(1, gsi);
        let address = self.about.mem32.start + u64::from(slot) * BAR_LEN;
        config.place_bar(BAR, address).map_err(|_| full(()))?;
        // Decoding memory and mastering the bus, as firmware leaves it.
        config.enable(0b110);
        let function = Arc::new(Mutex::new(function));
        self.bus.plug(slot, function.clone()).map_err(|_| full(()))?;
        let kind = lock(&function).device().device_type();
        self.parts.push((format!("virtio-{kind}-slot-{slot}"), function.clone()));
        Ok(function)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A device that panicked keeps a state that is still memory-safe; the
    // guest may see it misbehave.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
