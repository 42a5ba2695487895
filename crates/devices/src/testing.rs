//! What every device's tests need: fakes for the board, and
//! [`device_tests!`], the tests every device must pass.

use crate::device::{Clock, Device, MsiSink, PowerSink};
use crate::irq::IrqLine;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// A wire that remembers its level and counts rising edges.
#[derive(Default)]
pub(crate) struct TestLine {
    level: AtomicBool,
    edges: AtomicU64,
}

impl TestLine {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }
    pub(crate) fn level(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }
    pub(crate) fn edges(&self) -> u64 {
        self.edges.load(Ordering::SeqCst)
    }
}

impl IrqLine for TestLine {
    fn set(&self, level: bool) {
        if !self.level.swap(level, Ordering::SeqCst) && level {
            self.edges.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A clock that goes only when told.
pub(crate) struct TestClock {
    pub(crate) ns: AtomicU64,
    pub(crate) wall: AtomicU64,
}

impl TestClock {
    /// Starts at 5 s of guest time, 2024-02-29 23:59:50 UTC.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { ns: AtomicU64::new(5_000_000_000), wall: AtomicU64::new(1_709_251_190) })
    }
    pub(crate) fn advance(&self, ns: u64) {
        self.ns.fetch_add(ns, Ordering::SeqCst);
    }
    pub(crate) fn set(&self, ns: u64) {
        self.ns.store(ns, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ns(&self) -> u64 {
        self.ns.load(Ordering::SeqCst)
    }
    fn wall(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }
}

/// Records messages.
#[derive(Default)]
pub(crate) struct TestMsi(pub(crate) Mutex<Vec<(u64, u32)>>);

impl TestMsi {
    pub(crate) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl MsiSink for TestMsi {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().unwrap().push((address, data));
    }
}

/// Counts power-offs and resets.
#[derive(Default)]
pub(crate) struct TestPower {
    pub(crate) offs: AtomicU64,
    pub(crate) resets: AtomicU64,
}

impl PowerSink for TestPower {
    fn power_off(&self) {
        self.offs.fetch_add(1, Ordering::SeqCst);
    }
    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

impl TestPower {
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.offs.load(Ordering::SeqCst), self.resets.load(Ordering::SeqCst))
    }
}

/// xorshift64*: the same numbers everywhere for one seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(crate) fn fill(&mut self, data: &mut [u8]) {
        for b in data {
            *b = self.next() as u8;
        }
    }
}

pub(crate) fn read<D: Device>(d: &mut D, offset: u64, len: usize) -> u64 {
    let mut data = vec![0; len];
    d.read(offset, &mut data);
    crate::bytes::value(&data)
}

pub(crate) fn write<D: Device>(d: &mut D, offset: u64, len: usize, value: u64) {
    d.write(offset, &value.to_le_bytes()[..len]);
}

pub(crate) fn inb<D: Device>(d: &mut D, offset: u64) -> u8 {
    read(d, offset, 1) as u8
}

pub(crate) fn outb<D: Device>(d: &mut D, offset: u64, value: u8) {
    d.write(offset, &[value]);
}

/// Random accesses to `device`, mostly at `offsets`.
pub(crate) fn poke<D: Device>(device: &mut D, offsets: &[u64], seed: u64, rounds: u64) {
    let mut rng = Rng::new(seed);
    let mut data = [0u8; 16];
    for _ in 0..rounds {
        let offset = match rng.below(20) {
            0 => rng.next(),
            1 => rng.below(0x2_0000),
            _ => offsets[rng.below(offsets.len() as u64) as usize],
        };
        let len = match rng.below(30) {
            0 => rng.below(17) as usize,
            n => 1 << (n % 4),
        };
        if rng.below(3) == 0 {
            device.read(offset, &mut data[..len]);
        } else {
            rng.fill(&mut data[..len]);
            match rng.below(4) {
                0 => data[..len].fill(0),
                1 => data[..len].fill(0xff),
                2 => data[1..].fill(0),
                _ => {}
            }
            device.write(offset, &data[..len]);
        }
    }
}

/// Called with a number that differs each time.
pub(crate) type Disturb<D> = Box<dyn FnMut(&mut D, u64)>;

/// A fresh device and what to do now and then while it is being poked.
pub(crate) struct Fixture<D> {
    pub(crate) device: D,
    /// Offsets at which it listens.
    pub(crate) offsets: Vec<u64>,
    /// Offsets at which nothing listens.
    pub(crate) outside: Vec<u64>,
    /// Lets time pass, feeds input and so on.
    pub(crate) disturb: Disturb<D>,
}

/// The tests every device must pass. `$make` returns a [`Fixture`] and must
/// return an equal one each time.
macro_rules! device_tests {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::device::Device;
            use crate::testing::poke;

            #[test]
            fn reset_is_fresh() {
                let fresh = $make().device.save();
                for seed in 1..=8 {
                    let mut f = $make();
                    for round in 0..20 {
                        poke(&mut f.device, &f.offsets, seed * 100 + round, 100);
                        (f.disturb)(&mut f.device, seed * 7 + round);
                    }
                    f.device.reset();
                    assert_eq!(f.device.save(), fresh, "seed {seed}");
                }
            }

            #[test]
            fn save_load_save_is_equal() {
                for seed in 1..=8 {
                    let mut f = $make();
                    for round in 0..20 {
                        poke(&mut f.device, &f.offsets, seed * 1000 + round, 100);
                        (f.disturb)(&mut f.device, seed * 13 + round);
                    }
                    let text = serde_json::to_string(&f.device.save()).unwrap();
                    let mut other = $make().device;
                    other
                        .load(serde_json::from_str(&text).unwrap())
                        .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    assert_eq!(serde_json::to_string(&other.save()).unwrap(), text, "seed {seed}");
                }
            }

            #[test]
            fn out_of_range_access_is_harmless() {
                let mut f = $make();
                let before = f.device.save();
                for &offset in &f.outside {
                    for len in 0..=16usize {
                        f.device.write(offset, &vec![0x5a; len]);
                        let mut data = vec![0; len];
                        f.device.read(offset, &mut data);
                        assert_eq!(data, vec![0xff; len], "offset {offset:#x}");
                    }
                }
                assert_eq!(f.device.save(), before);
            }

            #[test]
            fn random_access_is_harmless() {
                for seed in 1..=16 {
                    let mut f = $make();
                    for round in 0..50 {
                        poke(&mut f.device, &f.offsets, seed * 10_000 + round, 200);
                        (f.disturb)(&mut f.device, seed ^ round);
                    }
                    // still a state that can be taken over
                    let state = f.device.save();
                    f.device.load(state).unwrap();
                }
            }
        }
    };
}
