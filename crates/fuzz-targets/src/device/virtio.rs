//! virtio devices: registers, rings and descriptors in guest memory.

use super::fakes::Board;
use super::registers::{registers, snapshot};
use crate::input::Input;
use devices::Device;
use devices::pci::{PciFunction, command};
use devices::virtio::console::{self, Console, HostPort, PortConfig, ResizeOrder};
use devices::virtio::fs::{Answer, FileServer, Fs, MAX_PENDING, Request};
use devices::virtio::net::{self, MAX_FRAME, Net, QUEUE_FRAMES};
use devices::virtio::{Block, Entropy, VirtioDevice, VirtioPci};
use mem::{DmaBus, Ram};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the rings of queue 0 are when [`Guest::start`] has made them; each
/// queue takes [`STRIDE`]: descriptors, then the two rings.
const RINGS: u64 = 0x1000;
const STRIDE: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Where buffers usually are.
const BUFFERS: u64 = 0x4_0000;
/// RAM: one MiB, then the EPC and a hole, 64 KiB more.
const MEMORY: [(u64, u64); 2] = [(0, 0x10_0000), (0x20_0000, 0x1_0000)];
/// The EPC, right above RAM.
const EPC: std::ops::Range<u64> = 0x10_0000..0x14_0000;

/// What the input's bytes mean; the seeds are written with these.
pub(super) mod step {
    pub(in crate::device) const START: u8 = 0;
    pub(in crate::device) const DESCRIPTOR: u8 = 1;
    pub(in crate::device) const OFFER: u8 = 2;
    pub(in crate::device) const NOTIFY: u8 = 3;
    pub(in crate::device) const POKE: u8 = 4;
    pub(in crate::device) const REGISTERS: u8 = 5;
    pub(in crate::device) const CONFIG: u8 = 6;
    pub(in crate::device) const KICK: u8 = 7;
    pub(in crate::device) const HOST: u8 = 8;
    pub(in crate::device) const SNAPSHOT: u8 = 9;
    pub(in crate::device) const RESET: u8 = 10;
    pub(in crate::device) const COUNT: u8 = 11;
}

pub(super) struct Guest<D: VirtioDevice> {
    function: Arc<Mutex<VirtioPci<D, DmaBus>>>,
    ram: Ram,
    available: Vec<u16>,
}

impl<D: VirtioDevice> Guest<D> {
    pub(super) fn new(device: D) -> Self {
        let ram = Ram::new(&MEMORY).expect("host memory");
        let queues = device.queue_sizes().len();
        let bus = Arc::new(DmaBus::new(ram.guest().clone(), EPC).expect("host memory"));
        let mut function = VirtioPci::new(device, bus, Arc::new(Board), Arc::new(Board)).expect("fits");
        function.config_mut().enable(command::MEMORY | command::BUS_MASTER);
        Self { function: Arc::new(Mutex::new(function)), ram, available: vec![0; queues] }
    }

    /// The function, for a host's side that talks to its device.
    pub(super) fn function(&self) -> Arc<Mutex<VirtioPci<D, DmaBus>>> {
        self.function.clone()
    }

    fn with<T>(&self, f: impl FnOnce(&mut VirtioPci<D, DmaBus>) -> T) -> T {
        f(&mut self.function.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, offset: u64, len: usize, value: u64) {
        self.with(|f| Device::write(f, offset, &value.to_le_bytes()[..len]));
    }

    /// Initialises the device as *virtio 1.2 §3.1.1* says, accepting of
    /// `features` what it offers, or, with bit 31, any.
    fn start(&mut self, mut features: u64) {
        if features >> 31 == 0 {
            features &= self.with(|f| f.device().features());
        }
        for status in [0, 1, 3] {
            self.write(0x14, 1, status);
        }
        for half in 0..2 {
            self.write(0x08, 4, half);
            self.write(0x0c, 4, (features | 1 << 32) >> (32 * half) & 0xffff_ffff);
        }
        self.write(0x14, 1, 0xb);
        for q in 0..self.available.len() {
            let base = RINGS + q as u64 * STRIDE;
            self.ram.write(base, &[0; STRIDE as usize]);
            self.available[q] = 0;
            self.write(0x16, 2, q as u64);
            for (register, address) in [(0x20, base), (0x28, base + AVAILABLE), (0x30, base + USED)] {
                self.write(register, 8, address);
            }
            self.write(0x1c, 2, 1);
        }
        self.write(0x14, 1, 0xf);
    }

    /// Does what the input says; how many chains came back at most.
    pub(super) fn run(&mut self, input: &mut Input<'_>, mut host: impl FnMut(&mut Input<'_>)) -> u16 {
        let mut completed = 0;
        for _ in 0..1000 {
            if input.is_empty() {
                break;
            }
            match input.u8() % step::COUNT {
                step::START => {
                    let features = input.u32();
                    self.start(features.into());
                }
                step::DESCRIPTOR => self.descriptor(input),
                step::OFFER => self.offer(input),
                step::NOTIFY => {
                    let q = u64::from(input.u8()) % (self.available.len() as u64 + 1);
                    self.write(0x3000 + 4 * q, 2, q);
                }
                step::POKE => {
                    let (at, n) = (input.number(), usize::from(input.u8() & 63));
                    self.ram.write(at, input.bytes(n));
                }
                step::REGISTERS => {
                    let offsets = [0, 8, 12, 0x10, 0x14, 0x16, 0x18, 0x1a, 0x1c, 0x20, 0x28, 0x30, 0x34];
                    let more = [0x1000, 0x2000, 0x2004, 0x3000, 0x3004, 0x4000, 0x400c, 0x401c, 0x6000];
                    let offsets = [&offsets[..], &more[..]].concat();
                    let n = usize::from(input.u8() & 31);
                    let mut part = Input::new(input.bytes(n));
                    self.with(|f| registers(f, &mut part, &offsets, |f, _| f.kick()));
                }
                step::CONFIG => {
                    let (how, at) = (input.u8(), input.u16() & 0xfff);
                    let n = [1, 2, 4, 4][usize::from(how & 3)];
                    let mut data = input.u32().to_le_bytes();
                    self.with(|f| match how & 4 {
                        0 => f.config_write(at, &data[..n]),
                        _ => f.config_read(at, &mut data[..n]),
                    });
                }
                step::KICK => self.with(VirtioPci::kick),
                step::HOST => host(input),
                step::SNAPSHOT => self.with(|f| snapshot(f, input)),
                _ => self.with(Device::reset),
            }
            for q in 0..self.available.len() as u64 {
                let mut index = [0; 2];
                self.ram.read(RINGS + q * STRIDE + USED + 2, &mut index);
                completed = completed.max(u16::from_le_bytes(index));
            }
        }
        self.with(|f| {
            let state = f.save();
            f.load(state).expect("a state of its own");
        });
        completed
    }

    /// Writes a descriptor; its address is near the buffers, or any.
    fn descriptor(&mut self, input: &mut Input<'_>) {
        let q = u64::from(input.u8()) % self.available.len() as u64;
        let (index, how) = (u64::from(input.u8()), input.u8());
        let address = match how >> 6 {
            0..3 => BUFFERS + u64::from(input.u16()),
            _ => input.number(),
        };
        let len = input.number() as u32;
        let next = u16::from(input.u8());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&u16::from(how & 7).to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.ram.write(RINGS + q * STRIDE + index * 16, &bytes);
    }

    /// Makes a chain available.
    fn offer(&mut self, input: &mut Input<'_>) {
        let q = usize::from(input.u8()) % self.available.len();
        let (size, head) = (self.with(|f| f.device().queue_sizes()[q]), u16::from(input.u8()));
        let ring = RINGS + q as u64 * STRIDE + AVAILABLE;
        let index = &mut self.available[q];
        self.ram.write(ring + 4 + 2 * u64::from(*index % size), &head.to_le_bytes());
        *index = index.wrapping_add(1);
        self.ram.write(ring + 2, &index.to_le_bytes());
    }
}

fn run_block(data: &[u8]) -> u16 {
    let mut input = Input::new(data);
    Guest::new(Block::new(vec![0x5a; 0x1_0000], "fuzz")).run(&mut input, |_| {})
}

fn run_console(data: &[u8]) -> u16 {
    let mut input = Input::new(data);
    // How much output the host takes before it is full.
    let room = Arc::new(AtomicUsize::new(1 << 20));
    let ports = (0..3u8)
        .map(|n| {
            let room = room.clone();
            let sink = move |data: &[u8]| {
                let take = room.load(Ordering::Relaxed).min(data.len());
                room.fetch_sub(take, Ordering::Relaxed);
                take
            };
            let name = if n == 0 { String::new() } else { format!("port{n}") };
            PortConfig { name, console: n == 0, sink: Box::new(sink), on_event: Some(Box::new(|_| {})) }
        })
        .collect();
    let (device, host): (Console, Vec<HostPort>) = Console::new(ports, 256, ResizeOrder::RowsFirst);
    let mut guest = Guest::new(device);
    console::connect(&guest.function.clone(), &host, |kick| kick());
    guest.run(&mut input, |input| {
        let port = &host[usize::from(input.u8()) % host.len()];
        match input.u8() % 6 {
            0 => port.close(),
            1 => port.open(),
            2 => port.resize(input.u16(), input.u16()),
            3 => room.store(usize::from(input.u16()), Ordering::Relaxed),
            _ => {
                let n = usize::from(input.u8());
                let data = input.bytes(n);
                assert!(port.write(data) <= data.len());
                assert!(port.undelivered() <= 256);
            }
        }
    })
}

fn run_net(data: &[u8]) -> u16 {
    let (device, link) = Net::new([2, 0, 0, 0, 0, 1]);
    let mut guest = Guest::new(device);
    net::connect(&guest.function.clone());
    guest.run(&mut Input::new(data), |input| {
        match input.u8() % 3 {
            0 => assert!(link.receive().is_none_or(|frame| frame.len() <= MAX_FRAME)),
            // a full wire takes no more
            1 => _ = link.send(vec![0x5a; usize::from(input.u16())]),
            _ => while link.send(vec![0; 60]) {},
        }
        assert!(link.room() <= QUEUE_FRAMES);
        link.flush();
    })
}

/// The network device.
pub(crate) fn net(data: &[u8]) {
    run_net(data);
}

/// The block device over 64 KiB.
pub(crate) fn blk(data: &[u8]) {
    run_block(data);
}

/// The entropy device.
pub(crate) fn rng(data: &[u8]) {
    Guest::new(Entropy).run(&mut Input::new(data), |_| {});
}

/// The console with three ports.
pub(crate) fn console(data: &[u8]) {
    run_console(data);
}

/// Gives each request back, after the next one has come or the device asked
/// twice.
#[derive(Default)]
struct EchoFiles(VecDeque<Request>, u8);

impl FileServer for EchoFiles {
    fn submit(&mut self, request: Request) {
        self.0.push_back(request);
        assert!(self.0.len() <= MAX_PENDING);
    }
    fn answer(&mut self) -> Option<Answer> {
        self.1 = self.1.wrapping_add(1);
        let request = if self.1.is_multiple_of(2) { self.0.pop_front()? } else { return None };
        let mut reply = request.message;
        reply.truncate(request.room);
        Some(Answer { ticket: request.ticket, reply })
    }
    fn forget(&mut self) {
        self.0.clear();
    }
}

fn run_fs(data: &[u8]) -> u16 {
    Guest::new(Fs::new("fuzz", Box::new(EchoFiles::default()))).run(&mut Input::new(data), |_| {})
}

/// The file system device before a server that echoes.
pub(crate) fn fs(data: &[u8]) {
    run_fs(data);
}

/// How many chains of a queue came back, at most: of block device, console,
/// entropy device, file system and network device.
pub fn completed(data: &[u8]) -> [u16; 5] {
    let entropy = Guest::new(Entropy).run(&mut Input::new(data), |_| {});
    [run_block(data), run_console(data), entropy, run_fs(data), run_net(data)]
}

/// Inputs that start a device and use its queues.
pub fn seeds() -> Vec<Vec<u8>> {
    use step::{CONFIG, DESCRIPTOR, HOST, KICK, NOTIFY, OFFER, POKE, REGISTERS, RESET, SNAPSHOT, START};
    let start = [START, 0xff, 0xff, 0, 0];
    let small = [START, 3, 0, 0, 0];
    // Queue, index, flags (NEXT 1, WRITE 2), address, length, next.
    let header = [DESCRIPTOR, 0, 0, 1, 0, 0, 16, 1];
    let data = [DESCRIPTOR, 0, 1, 3, 0, 1, 0xc0, 0, 2, 2];
    let status = [DESCRIPTOR, 0, 2, 2, 0, 4, 1, 0];
    let writable = [DESCRIPTOR, 0, 3, 2, 0, 8, 64, 0];
    // On the queues that guests send by: output and control messages.
    let ready = [DESCRIPTOR, 3, 0, 0, 0, 0, 8, 0];
    let message = [POKE, 0xe0, 0, 0, 4, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0];
    let mut all = Vec::new();
    for features in [start, small] {
        let mut seed = features.to_vec();
        seed.extend([header, [DESCRIPTOR, 1, 0, 0, 0, 0, 16, 0]].concat());
        seed.extend(data);
        seed.extend([status, writable, ready].concat());
        seed.extend(message);
        seed.extend([OFFER, 0, 0, OFFER, 0, 3, NOTIFY, 0, OFFER, 3, 0, NOTIFY, 3, OFFER, 1, 0, NOTIFY, 1]);
        seed.extend([HOST, 0, 4, 3, 1, 2, 3, HOST, 0, 2, 80, 0, 25, 0, KICK]);
        all.push(seed.clone());
        seed.extend([SNAPSHOT, 7, 0, 5, CONFIG, 4, 0, 0, CONFIG, 0, 4, 0, 6, 0, 0, 0]);
        seed.extend([REGISTERS, 4, 0x41, 4, 0, 0]);
        all.push(seed.clone());
        seed.push(RESET);
        seed.extend(all[0].clone());
        all.push(seed);
    }
    all
}
