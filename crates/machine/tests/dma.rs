//! A device's accesses to the EPC: it reads ones, its writes are dropped, and it
//! works on (*SDM vol. 3D, Abort Page Semantics*).

use std::sync::{Arc, Mutex, PoisonError};

use devices::irq::NoLine;
use devices::pci::command;
use devices::virtio::{Block, VirtioPci};
use devices::{Device, MsiSink};
use mem::{DmaBus, Ram};

const EPC: std::ops::Range<u64> = 0x10_0000..0x10_4000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const STATUS: u64 = 0x5000;
/// virtio-blk: read from and write to the disk.
const IN: u32 = 0;
const OUT: u32 = 1;

struct NoMsi;

impl MsiSink for NoMsi {
    fn send(&self, _address: u64, _data: u32) {}
}

/// A disk of two pages, driven as a kernel drives it.
struct Disk {
    function: Mutex<VirtioPci<Block<Vec<u8>>, DmaBus>>,
    ram: Ram,
    requests: u16,
}

impl Disk {
    fn new(content: Vec<u8>) -> Self {
        let ram = Ram::new(&[(0, 0x10_0000)]).unwrap();
        let bus = Arc::new(DmaBus::new(ram.guest().clone(), EPC).unwrap());
        let disk = Block::new(content, "disk");
        let mut function = VirtioPci::new(disk, bus, Arc::new(NoLine), Arc::new(NoMsi)).unwrap();
        function.config_mut().enable(command::MEMORY | command::BUS_MASTER);
        let disk = Self { function: Mutex::new(function), ram, requests: 0 };
        disk.start(DESCRIPTORS, AVAILABLE, USED);
        disk
    }

    fn with<T>(&self, f: impl FnOnce(&mut VirtioPci<Block<Vec<u8>>, DmaBus>) -> T) -> T {
        f(&mut self.function.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn register(&self, offset: u64, len: usize, value: u64) {
        self.with(|f| Device::write(f, offset, &value.to_le_bytes()[..len]));
    }

    /// *virtio 1.2 §3.1.1*, with the queue's parts at these addresses.
    fn start(&self, descriptors: u64, available: u64, used: u64) {
        for status in [0, 1, 3] {
            self.register(0x14, 1, status);
        }
        self.register(0x08, 4, 1);
        self.register(0x0c, 4, 1); // VIRTIO_F_VERSION_1
        self.register(0x14, 1, 0xb);
        self.register(0x16, 2, 0);
        for (register, address) in [(0x20, descriptors), (0x28, available), (0x30, used)] {
            self.register(register, 8, address);
        }
        self.register(0x1c, 2, 1);
        self.register(0x14, 1, 0xf);
    }

    fn status(&self) -> u8 {
        let mut status = [0];
        self.with(|f| Device::read(f, 0x14, &mut status));
        status[0]
    }

    /// Moves `len` bytes between `address` and sector 0; the request's status.
    fn request(&mut self, kind: u32, address: u64, len: u32) -> u8 {
        let write = |at: u64, bytes: &[u8]| assert!(self.ram.write(at, bytes));
        write(HEADER, &u128::from(kind).to_le_bytes());
        write(STATUS, &[0xee]);
        let data = if kind == IN { 2 } else { 0 };
        for (n, (at, len, flags)) in
            [(HEADER, 16, 1u16), (address, len, data | 1), (STATUS, 1, 2)].into_iter().enumerate()
        {
            let next = n as u16 + 1;
            let mut descriptor = at.to_le_bytes().to_vec();
            descriptor.extend(len.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend(next.to_le_bytes());
            write(DESCRIPTORS + 16 * n as u64, &descriptor);
        }
        write(AVAILABLE + 4 + 2 * u64::from(self.requests % 256), &[0, 0]);
        self.requests += 1;
        write(AVAILABLE + 2, &self.requests.to_le_bytes());
        self.register(0x3000, 2, 0);
        let mut status = [0; 1];
        assert!(self.ram.read(STATUS, &mut status));
        status[0]
    }

    fn content(&self) -> Vec<u8> {
        self.with(|f| f.device().backend().clone())
    }
}

#[test]
fn a_disk_gets_ones_from_the_epc_and_leaves_nothing_there() {
    let mut disk = Disk::new(vec![0x5a; 0x2000]);
    // the disk's content goes "into" the EPC: done, and dropped
    assert_eq!(disk.request(IN, EPC.start, 0x1000), 0);
    assert_eq!(disk.content(), vec![0x5a; 0x2000]);
    // and what comes out of it are ones
    assert_eq!(disk.request(OUT, EPC.start, 0x1000), 0);
    assert_eq!(disk.content(), [vec![0xff; 0x1000], vec![0x5a; 0x1000]].concat());
    assert_eq!(disk.status(), 0xf, "the driver need not reset it");
}

#[test]
fn a_buffer_may_lie_in_ram_and_epc() {
    let mut disk = Disk::new(vec![0x5a; 0x2000]);
    assert!(disk.ram.write(EPC.start - 0x200, &[7; 0x200]));
    assert_eq!(disk.request(OUT, EPC.start - 0x200, 0x400), 0);
    assert_eq!(disk.content()[..0x600], [vec![7; 0x200], vec![0xff; 0x200], vec![0x5a; 0x200]].concat());
}

#[test]
fn past_the_epc_there_is_no_memory() {
    let mut disk = Disk::new(vec![0x5a; 0x2000]);
    assert_eq!(disk.request(OUT, EPC.end - 0x200, 0x400), 0xee, "not done");
    assert_eq!(disk.content(), vec![0x5a; 0x2000]);
}

#[test]
fn rings_in_the_epc_are_broken_rings() {
    const NEEDS_RESET: u8 = 0x40;
    let disk = Disk::new(vec![0x5a; 0x2000]);
    disk.start(EPC.start, EPC.start + 0x1000, EPC.start + 0x2000);
    disk.register(0x3000, 2, 0);
    assert_eq!(disk.status() & NEEDS_RESET, NEEDS_RESET, "an index of ones runs away");
    assert_eq!(disk.content(), vec![0x5a; 0x2000]);
}
