//! A small virtio driver for tests: builds rings in guest memory and talks to
//! the device through its BAR.

use super::{F_VERSION_1, VirtioDevice, VirtioPci};
use crate::device::Device;
use crate::pci::command;
use crate::testing::{Rng, TestLine, TestMsi, read, write};
use std::sync::{Arc, Mutex, MutexGuard};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Memory with a bitmap, as the machine has it.
pub(crate) type Mem = GuestMemoryMmap<AtomicBitmap>;

const RINGS: u64 = 0x1000;
const RING_STRIDE: u64 = 0x4000;
const HEAP: u64 = 0x10_0000;
const MEM_LEN: usize = 0x80_0000;

/// A buffer of a chain: address and length.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buf {
    /// The device reads it.
    In(u64, u32),
    /// The device writes it.
    Out(u64, u32),
}

#[derive(Default, Clone)]
struct Ring {
    next_desc: u16,
    avail: u16,
    used: u16,
}

pub(crate) struct Guest<D: VirtioDevice> {
    pub(crate) f: Arc<Mutex<VirtioPci<D, Mem>>>,
    pub(crate) mem: Arc<Mem>,
    pub(crate) irq: Arc<TestLine>,
    pub(crate) msi: Arc<TestMsi>,
    rings: Vec<Ring>,
    heap: u64,
}

pub(crate) fn ring_base(q: usize) -> u64 {
    RINGS + q as u64 * RING_STRIDE
}

impl<D: VirtioDevice> Guest<D> {
    pub(crate) fn new(device: D) -> Self {
        let mem = Arc::new(Mem::from_ranges(&[(GuestAddress(0), MEM_LEN)]).unwrap());
        let (irq, msi) = (TestLine::new(), Arc::new(TestMsi::default()));
        let queues = device.queue_sizes().len();
        let mut f = VirtioPci::new(device, mem.clone(), irq.clone(), msi.clone()).unwrap();
        f.config_mut().enable(command::MEMORY | command::BUS_MASTER);
        Self { f: Arc::new(Mutex::new(f)), mem, irq, msi, rings: vec![Ring::default(); queues], heap: HEAP }
    }

    pub(crate) fn f(&self) -> MutexGuard<'_, VirtioPci<D, Mem>> {
        self.f.lock().unwrap()
    }

    pub(crate) fn device(&self) -> impl std::ops::Deref<Target = D> + '_ {
        struct Guard<'a, D: VirtioDevice>(MutexGuard<'a, VirtioPci<D, Mem>>);
        impl<D: VirtioDevice> std::ops::Deref for Guard<'_, D> {
            type Target = D;
            fn deref(&self) -> &D {
                self.0.device()
            }
        }
        Guard(self.f())
    }

    pub(crate) fn rd(&self, offset: u64, len: usize) -> u64 {
        read(&mut *self.f(), offset, len)
    }

    pub(crate) fn wr(&self, offset: u64, len: usize, v: u64) {
        write(&mut *self.f(), offset, len, v);
    }

    pub(crate) fn device_config(&self, offset: u64, len: usize) -> u64 {
        self.rd(0x2000 + offset, len)
    }

    pub(crate) fn offered(&self) -> u64 {
        self.wr(0, 4, 0);
        let low = self.rd(4, 4);
        self.wr(0, 4, 1);
        low | self.rd(4, 4) << 32
    }

    /// Initialises as *virtio 1.2 §3.1.1* says, accepting `features`.
    pub(crate) fn start(&mut self, features: u64) {
        let features = features | F_VERSION_1;
        self.wr(0x14, 1, 0);
        self.wr(0x14, 1, 1);
        self.wr(0x14, 1, 3);
        for half in 0..2u64 {
            self.wr(8, 4, half);
            self.wr(12, 4, features >> (32 * half) & 0xffff_ffff);
        }
        self.wr(0x14, 1, 0xb);
        assert_eq!(self.rd(0x14, 1), 0xb, "features refused");
        for q in 0..self.rings.len() {
            let base = ring_base(q);
            self.mem.write_slice(&[0; 0x4000], GuestAddress(base)).unwrap();
            self.rings[q] = Ring::default();
            self.wr(0x16, 2, q as u64);
            self.wr(0x20, 4, base);
            self.wr(0x24, 4, 0);
            self.wr(0x28, 8, base + 0x1000);
            self.wr(0x30, 8, base + 0x2000);
            self.wr(0x1c, 2, 1);
            assert_eq!(self.rd(0x1c, 2), 1);
        }
        self.wr(0x14, 1, 0xf);
        assert_eq!(self.rd(0x14, 1), 0xf);
    }

    pub(crate) fn needs_reset(&self) -> bool {
        self.f().needs_reset()
    }

    pub(crate) fn size(&self, q: usize) -> u16 {
        self.wr(0x16, 2, q as u64);
        self.rd(0x18, 2) as u16
    }

    pub(crate) fn alloc(&mut self, len: u64) -> u64 {
        let a = self.heap;
        self.heap = (a + len).next_multiple_of(16);
        assert!(self.heap <= MEM_LEN as u64);
        a
    }

    pub(crate) fn poke(&self, addr: u64, data: &[u8]) {
        self.mem.write_slice(data, GuestAddress(addr)).unwrap();
    }

    pub(crate) fn peek(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut v = vec![0; len];
        self.mem.read_slice(&mut v, GuestAddress(addr)).unwrap();
        v
    }

    fn peek16(&self, addr: u64) -> u16 {
        u16::from_le_bytes(self.peek(addr, 2).try_into().unwrap())
    }

    /// Writes one descriptor.
    pub(crate) fn desc(&self, q: usize, i: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut d = [0; 16];
        d[..8].copy_from_slice(&addr.to_le_bytes());
        d[8..12].copy_from_slice(&len.to_le_bytes());
        d[12..14].copy_from_slice(&flags.to_le_bytes());
        d[14..].copy_from_slice(&next.to_le_bytes());
        self.poke(ring_base(q) + u64::from(i) * 16, &d);
    }

    /// Makes chain `head` available.
    pub(crate) fn offer(&mut self, q: usize, head: u16) {
        let size = self.size(q);
        let avail = ring_base(q) + 0x1000;
        let r = &mut self.rings[q];
        let slot = avail + 4 + 2 * u64::from(r.avail % size);
        r.avail = r.avail.wrapping_add(1);
        let idx = r.avail;
        self.poke(slot, &head.to_le_bytes());
        self.poke(avail + 2, &idx.to_le_bytes());
    }

    /// Makes a chain of `bufs` available; returns its head.
    pub(crate) fn add(&mut self, q: usize, bufs: &[Buf]) -> u16 {
        let size = self.size(q);
        let first = self.rings[q].next_desc;
        for (i, b) in bufs.iter().enumerate() {
            let at = (first + i as u16) % size;
            let (addr, len, w) = match *b {
                Buf::In(a, l) => (a, l, 0),
                Buf::Out(a, l) => (a, l, 2),
            };
            let more = u16::from(i + 1 < bufs.len());
            self.desc(q, at, addr, len, w | more, (at + 1) % size);
        }
        self.rings[q].next_desc = (first + bufs.len() as u16) % size;
        self.offer(q, first);
        first
    }

    pub(crate) fn notify(&self, q: usize) {
        self.wr(0x3000 + 4 * q as u64, 2, q as u64);
    }

    /// What was completed since the last call: head and length.
    pub(crate) fn used(&mut self, q: usize) -> Vec<(u32, u32)> {
        let size = self.size(q);
        let base = ring_base(q) + 0x2000;
        let idx = self.peek16(base + 2);
        let mut out = Vec::new();
        while self.rings[q].used != idx {
            let at = base + 4 + 8 * u64::from(self.rings[q].used % size);
            let e = self.peek(at, 8);
            out.push((
                u32::from_le_bytes(e[..4].try_into().unwrap()),
                u32::from_le_bytes(e[4..].try_into().unwrap()),
            ));
            self.rings[q].used = self.rings[q].used.wrapping_add(1);
        }
        out
    }
}

/// Starts the function in whatever state it is, over rings of noise.
pub(crate) fn start_on_noise<D: VirtioDevice>(f: &mut VirtioPci<D, Mem>, mem: &Mem, seed: u64) {
    let mut rng = Rng::new(seed);
    write(f, 0x14, 1, 0);
    let features = f.device().features() & rng.next() | F_VERSION_1 | 1 << 28;
    for half in 0..2u64 {
        write(f, 8, 4, half);
        write(f, 12, 4, features >> (32 * half) & 0xffff_ffff);
    }
    write(f, 0x14, 1, 0xb);
    let queues = f.device().queue_sizes().len();
    for q in 0..queues {
        let base = ring_base(q);
        for at in (0..0x1000).step_by(16) {
            let (addr, len) = match rng.below(8) {
                0 => (rng.next(), rng.next() as u32),
                1 => (rng.below(0x90_0000), rng.next() as u32),
                _ => (rng.below(0x80_0000), rng.below(600) as u32),
            };
            let mut d = [0; 16];
            d[..8].copy_from_slice(&addr.to_le_bytes());
            d[8..12].copy_from_slice(&len.to_le_bytes());
            d[12] = (rng.next() & rng.next()) as u8 & if rng.below(8) == 0 { 7 } else { 3 };
            d[14] = rng.next() as u8;
            mem.write_slice(&d, GuestAddress(base + at)).unwrap();
        }
        for at in (0..0x400).step_by(2) {
            let head = if rng.below(200) == 0 { rng.next() } else { rng.below(64) };
            mem.write_obj(head as u16, GuestAddress(base + 0x1000 + at)).unwrap();
        }
        // a plausible or an implausible available index
        let idx = if rng.below(4) == 0 { rng.next() } else { rng.below(60) };
        mem.write_obj(0u16, GuestAddress(base + 0x1000)).unwrap();
        mem.write_obj(idx as u16, GuestAddress(base + 0x1002)).unwrap();
        write(f, 0x16, 2, q as u64);
        write(f, 0x20, 8, base);
        write(f, 0x28, 8, base + 0x1000);
        write(f, 0x30, 8, base + 0x2000);
        write(f, 0x1c, 2, 1);
    }
    write(f, 0x14, 1, 0xf);
    for q in 0..queues {
        write(f, 0x3000 + 4 * q as u64, 2, q as u64);
    }
    f.kick();
}

/// [`device_tests!`](crate::testing) for a device behind the transport, with
/// rings of noise. `$make` returns a [`Guest`].
macro_rules! virtio_device_tests {
    ($name:ident, $make:expr) => {
        device_tests!($name, || {
            let guest = $make();
            let mem = guest.mem.clone();
            let device = std::sync::Arc::into_inner(guest.f).unwrap().into_inner().unwrap();
            crate::testing::Fixture {
                device,
                offsets: crate::virtio::driver::offsets(),
                outside: vec![0x40, 0x5000, 0x7ff0, 0x8000, u64::MAX],
                disturb: Box::new(move |d, n| {
                    crate::virtio::driver::start_on_noise(d, &mem, n);
                }),
            }
        });
    };
}
pub(crate) use virtio_device_tests;

/// Where a virtio BAR listens.
pub(crate) fn offsets() -> Vec<u64> {
    let mut v: Vec<u64> = (0..0x38).collect();
    v.extend([0x1000, 0x2000, 0x2004, 0x2010, 0x2014]);
    v.extend((0..12).map(|q| 0x3000 + 4 * q));
    v.extend((0..0x40).step_by(4).map(|o| 0x4000 + o));
    v.push(0x6000);
    v
}

mod tests {
    use super::*;
    use crate::pci::PciFunction;
    use crate::virtio::Entropy;

    fn rng() -> Guest<Entropy> {
        Guest::new(Entropy)
    }

    #[test]
    fn identity_and_capabilities() {
        let g = rng();
        let mut f = g.f();
        let mut b = [0; 4];
        f.config_read(0, &mut b);
        assert_eq!(u32::from_le_bytes(b), 0x1044_1af4);
        let mut kinds = Vec::new();
        let mut at = [0; 1];
        f.config_read(0x34, &mut at);
        while at[0] != 0 {
            let mut cap = [0; 16];
            f.config_read(u16::from(at[0]), &mut cap);
            kinds.push(if cap[0] == 9 { cap[3] } else { cap[0] });
            at = [cap[1]];
        }
        assert_eq!(kinds, [1, 2, 3, 4, 5, 0x11]);
    }

    #[test]
    fn version_1_is_mandatory_and_unknown_features_are_refused() {
        let g = rng();
        assert_ne!(g.offered() & F_VERSION_1, 0);
        g.wr(0x14, 1, 3);
        g.wr(0x14, 1, 0xb);
        assert_eq!(g.rd(0x14, 1), 3, "no VERSION_1");
        g.wr(0x14, 1, 0xf);
        assert_eq!(g.rd(0x14, 1), 3, "nor DRIVER_OK");
        g.wr(8, 4, 1);
        g.wr(12, 4, 0x8000_0001);
        g.wr(0x14, 1, 0xb);
        assert_eq!(g.rd(0x14, 1), 3);
        g.wr(12, 4, 1);
        g.wr(0x14, 1, 0xb);
        assert_eq!(g.rd(0x14, 1), 0xb);
        g.wr(12, 4, 0);
        assert_eq!(g.rd(12, 4), 1, "frozen by FEATURES_OK");
        g.wr(0x14, 1, 0);
        assert_eq!((g.rd(0x14, 1), g.rd(12, 4)), (0, 0));
    }

    #[test]
    fn intx_is_raised_and_cleared_by_isr() {
        let mut g = rng();
        g.start(0);
        let a = g.alloc(16);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert!(g.irq.level());
        assert_eq!(g.rd(0x1000, 1), 1);
        assert!(!g.irq.level());
        assert_eq!(g.rd(0x1000, 1), 0);
        // the driver may not want to hear of it
        g.poke(ring_base(0) + 0x1000, &[1, 0]);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert_eq!(g.used(0).len(), 2);
        assert!(!g.irq.level());
        // INTx disable
        g.poke(ring_base(0) + 0x1000, &[0, 0]);
        g.f().config_write(4, &[6, 4]);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert!(!g.irq.level());
        g.f().config_write(4, &[6, 0]);
        assert!(g.irq.level());
    }

    fn enable_msix(g: &Guest<Entropy>) {
        for v in 0..2u64 {
            g.wr(0x4000 + 16 * v, 4, 0xfee0_0000);
            g.wr(0x4008 + 16 * v, 4, 0x50 + v);
            g.wr(0x400c + 16 * v, 4, 0);
        }
        let mut f = g.f();
        let mut at = [0x34];
        f.config_read(0x34, &mut at);
        loop {
            let mut cap = [0; 2];
            f.config_read(u16::from(at[0]), &mut cap);
            if cap[0] == 0x11 {
                break;
            }
            at[0] = cap[1];
        }
        f.config_write(u16::from(at[0]) + 2, &[0, 0x80]);
    }

    #[test]
    fn msix_replaces_intx() {
        let mut g = rng();
        g.start(0);
        enable_msix(&g);
        g.wr(0x16, 2, 0);
        g.wr(0x1a, 2, 7);
        assert_eq!(g.rd(0x1a, 2), 0xffff, "no such vector");
        g.wr(0x1a, 2, 1);
        assert_eq!(g.rd(0x1a, 2), 1);
        let a = g.alloc(16);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert_eq!(g.msi.take(), [(0xfee0_0000, 0x51)]);
        assert!(!g.irq.level());
        assert_eq!(g.rd(0x1000, 1), 0);
    }

    #[test]
    fn broken_rings_need_a_reset() {
        let mut g = rng();
        // an index that runs away
        g.start(0);
        g.poke(ring_base(0) + 0x1002, &[0xff, 0xff]);
        g.notify(0);
        assert!(g.needs_reset());
        assert_eq!(g.rd(0x14, 1), 0x4f);
        assert_eq!(g.rd(0x1000, 1) & 2, 2, "configuration interrupt");
        g.notify(0); // stays quiet
        // a head past the table
        g.start(0);
        assert!(!g.needs_reset());
        g.offer(0, 64);
        g.notify(0);
        assert!(g.needs_reset());
        // rings outside memory
        g.wr(0x14, 1, 0);
        g.wr(0x20, 8, 1 << 40);
        g.wr(0x28, 8, 0x2000);
        g.wr(0x30, 8, 0x3000);
        g.wr(0x1c, 2, 1);
        assert_eq!(g.rd(0x1c, 2), 0);
        assert!(g.needs_reset());
    }

    #[test]
    fn descriptor_loops_end() {
        let mut g = rng();
        g.start(0);
        let a = g.alloc(16);
        g.desc(0, 0, a, 16, 3, 1);
        g.desc(0, 1, a, 16, 3, 0);
        g.offer(0, 0);
        // an indirect table that refers to itself
        let t = ring_base(0) + 5 * 16;
        g.desc(0, 5, t, 16, 4, 0);
        g.offer(0, 5);
        g.notify(0);
        assert_eq!(g.used(0), [(0, 64 * 16), (5, 0)]);
    }

    #[test]
    fn nothing_moves_without_bus_mastering_and_is_made_up_for() {
        let mut g = rng();
        g.start(0);
        g.f().config_write(4, &[2, 0]);
        let a = g.alloc(16);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert!(g.used(0).is_empty());
        g.f().config_write(4, &[6, 0]);
        assert_eq!(g.used(0).len(), 1);
    }

    #[test]
    fn dma_is_seen_by_the_bitmap() {
        use vm_memory::bitmap::Bitmap;
        use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
        let mut g = rng();
        g.start(0);
        let a = g.alloc(16);
        let dirty =
            |g: &Guest<Entropy>| g.mem.find_region(GuestAddress(a)).unwrap().bitmap().dirty_at(a as usize);
        assert!(!dirty(&g));
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert!(dirty(&g));
    }

    #[test]
    fn configuration_access_capability_reaches_the_bar() {
        let g = rng();
        let mut f = g.f();
        let cap = 0x40 + 16 + 20 + 16 + 16;
        let mut head = [0; 4];
        f.config_read(cap, &mut head);
        assert_eq!((head[0], head[3]), (9, 5));
        f.config_write(cap + 4, &[0]);
        f.config_write(cap + 8, &0x12u32.to_le_bytes());
        f.config_write(cap + 12, &2u32.to_le_bytes());
        let mut data = [0; 4];
        f.config_read(cap + 16, &mut data);
        assert_eq!(data[..2], [1, 0], "one queue");
        f.config_write(cap + 8, &0x14u32.to_le_bytes());
        f.config_write(cap + 12, &1u32.to_le_bytes());
        f.config_write(cap + 16, &[3]);
        assert_eq!(read(&mut *f, 0x14, 1), 3);
        // an offset outside the BAR is no access
        f.config_write(cap + 8, &u32::MAX.to_le_bytes());
        f.config_read(cap + 16, &mut data);
    }

    #[test]
    fn a_running_device_moves_to_another() {
        let mut g = rng();
        g.start(0);
        let a = g.alloc(16);
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        let state = g.f().save();
        let mut other = VirtioPci::new(Entropy, g.mem.clone(), g.irq.clone(), g.msi.clone()).unwrap();
        other.load(state).unwrap();
        *g.f() = other;
        g.add(0, &[Buf::Out(a, 16)]);
        g.notify(0);
        assert_eq!(g.used(0).len(), 2);
    }
}
