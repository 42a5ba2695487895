//! Slots and address routing.

use crate::device::Device;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Slots of the bus.
pub const SLOTS: u8 = 32;

/// An address range a function decodes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarRange {
    /// Which BAR.
    pub bar: usize,
    /// Ports, not memory.
    pub io: bool,
    /// First address.
    pub base: u64,
    /// Length in bytes; `base + len` does not overflow.
    pub len: u64,
}

/// What sits in a slot.
pub trait PciFunction: Send {
    /// Reads configuration space; `at` is below 4096.
    fn config_read(&mut self, at: u16, data: &mut [u8]);
    /// Writes configuration space.
    fn config_write(&mut self, at: u16, data: &[u8]);
    /// The ranges decoded now.
    fn bars(&self) -> Vec<BarRange>;
    /// Reads at `offset` in `bar`; the access lies within the BAR.
    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]);
    /// Writes at `offset` in `bar`; the access lies within the BAR.
    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]);
}

/// A function that cannot be put where it was asked to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PCI slot {0} does not exist or is taken; choose a free one of 0-31")]
pub struct SlotError(pub u8);

type Slot = Arc<Mutex<dyn PciFunction>>;

/// Bus 0. All methods take `&self`: the bus is shared by the processors, and
/// only the function addressed is locked.
pub struct PciBus {
    slots: RwLock<[Option<Slot>; SLOTS as usize]>,
    /// The decoded ranges of all slots, lowest slot first.
    ranges: RwLock<Vec<(u8, BarRange)>>,
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, dyn PciFunction + 'static> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PciBus {
    /// An empty bus.
    pub fn new() -> Self {
        Self { slots: RwLock::new(std::array::from_fn(|_| None)), ranges: RwLock::new(Vec::new()) }
    }

    /// Puts `function` into `slot`. It must be a [`Device`] too: what cannot
    /// be saved cannot be plugged in. Its state is saved by whoever made it,
    /// with its type; call [`PciBus::refresh`] after resetting or loading it.
    ///
    /// # Errors
    /// [`SlotError`] if the slot is taken or beyond [`SLOTS`].
    pub fn plug<F>(&self, slot: u8, function: Arc<Mutex<F>>) -> Result<(), SlotError>
    where
        F: PciFunction + Device + 'static,
    {
        {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            match slots.get_mut(usize::from(slot)) {
                Some(free @ None) => *free = Some(function),
                _ => return Err(SlotError(slot)),
            }
        }
        self.refresh();
        Ok(())
    }

    fn slot(&self, slot: u8) -> Option<Slot> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(usize::from(slot)).cloned().flatten()
    }

    /// Asks every function anew what it decodes.
    pub fn refresh(&self) {
        let mut all = Vec::new();
        // the write lock is taken first, so that of two refreshes at once the
        // later one sees the later registers
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        for n in 0..SLOTS {
            if let Some(slot) = self.slot(n) {
                all.extend(lock(&slot).bars().into_iter().map(|r| (n, r)));
            }
        }
        *ranges = all;
    }

    /// Slot, function and register of an ECAM-style offset, if it is on bus 0,
    /// a function 0, and does not cross the function's 4 KiB.
    fn target(&self, offset: u64, len: usize) -> Option<(Slot, u16)> {
        let at = (offset & 0xfff) as u16;
        if offset >> 20 != 0 || offset >> 12 & 7 != 0 || usize::from(at) + len > 0x1000 {
            return None;
        }
        Some((self.slot((offset >> 15) as u8)?, at))
    }

    /// Reads configuration space at `bus << 20 | slot << 15 | function << 12 |
    /// register`; where nothing is, all bits are one.
    pub fn config_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((slot, at)) = self.target(offset, data.len()) {
            lock(&slot).config_read(at, data);
        }
    }

    /// Writes configuration space, addressed as in [`PciBus::config_read`].
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        if let Some((slot, at)) = self.target(offset, data.len()) {
            let moved = {
                let mut f = lock(&slot);
                let before = f.bars();
                f.config_write(at, data);
                f.bars() != before
            };
            if moved {
                self.refresh();
            }
        }
    }

    fn route(&self, io: bool, addr: u64, len: usize) -> Option<(Slot, usize, u64)> {
        let (n, bar, offset) = {
            let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
            let (n, r) =
                ranges.iter().find(|(_, r)| r.io == io && addr >= r.base && addr - r.base < r.len)?;
            let offset = addr - r.base;
            if len as u64 > r.len - offset {
                return None;
            }
            (*n, r.bar, offset)
        };
        Some((self.slot(n)?, bar, offset))
    }

    /// Reads physical memory address `addr` through the BAR that decodes it;
    /// false, with `data` all ones, if none does.
    pub fn mmio_read(&self, addr: u64, data: &mut [u8]) -> bool {
        self.read(false, addr, data)
    }

    /// Writes physical memory address `addr` through the BAR that decodes it;
    /// false if none does.
    pub fn mmio_write(&self, addr: u64, data: &[u8]) -> bool {
        self.write(false, addr, data)
    }

    /// Reads port `port` through the I/O BAR that decodes it; false, with
    /// `data` all ones, if none does.
    pub fn port_read(&self, port: u16, data: &mut [u8]) -> bool {
        self.read(true, u64::from(port), data)
    }

    /// Writes port `port` through the I/O BAR that decodes it; false if none
    /// does.
    pub fn port_write(&self, port: u16, data: &[u8]) -> bool {
        self.write(true, u64::from(port), data)
    }

    fn read(&self, io: bool, addr: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        match self.route(io, addr, data.len()) {
            Some((slot, bar, offset)) => {
                lock(&slot).bar_read(bar, offset, data);
                true
            }
            None => false,
        }
    }

    fn write(&self, io: bool, addr: u64, data: &[u8]) -> bool {
        match self.route(io, addr, data.len()) {
            Some((slot, bar, offset)) => {
                lock(&slot).bar_write(bar, offset, data);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{BarKind, Class, ConfigSpace, ConfigState, Identity};

    /// A function whose BARs are plain memory.
    struct Ram {
        config: ConfigSpace,
        ram: Vec<u8>,
    }

    impl PciFunction for Ram {
        fn config_read(&mut self, at: u16, data: &mut [u8]) {
            self.config.read(at, data);
        }
        fn config_write(&mut self, at: u16, data: &[u8]) {
            self.config.write(at, data);
        }
        fn bars(&self) -> Vec<BarRange> {
            self.config.ranges()
        }
        fn bar_read(&mut self, _: usize, offset: u64, data: &mut [u8]) {
            let o = offset as usize;
            data.copy_from_slice(&self.ram[o..o + data.len()]);
        }
        fn bar_write(&mut self, _: usize, offset: u64, data: &[u8]) {
            let o = offset as usize;
            self.ram[o..o + data.len()].copy_from_slice(data);
        }
    }

    impl Device for Ram {
        type State = ConfigState;
        fn read(&mut self, _: u64, _: &mut [u8]) {}
        fn write(&mut self, _: u64, _: &[u8]) {}
        fn reset(&mut self) {
            self.config.reset();
        }
        fn save(&self) -> ConfigState {
            self.config.save()
        }
        fn load(&mut self, s: ConfigState) -> Result<(), crate::StateError> {
            self.config.load(s)
        }
    }

    fn ram(base: u64) -> Arc<Mutex<Ram>> {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 1,
            device: 2,
            revision: 0,
            class: Class { base: 5, sub: 0, interface: 0 },
            subsystem_vendor: 0,
            subsystem: 0,
        });
        config.add_bar(0, BarKind::Mem64, 0x1000).unwrap();
        config.place_bar(0, base).unwrap();
        Arc::new(Mutex::new(Ram { config, ram: vec![0; 0x1000] }))
    }

    #[test]
    fn mmio_follows_the_bar() {
        let bus = PciBus::new();
        bus.plug(3, ram(0x8000_0000)).unwrap();
        assert!(!bus.mmio_write(0x8000_0010, &[1]), "decoding is off");
        let cfg = 3u64 << 15;
        bus.config_write(cfg + 4, &[2, 0]);
        assert!(bus.mmio_write(0x8000_0010, &[7]));
        bus.config_write(cfg + 0x10, &0x9000_0000u32.to_le_bytes());
        let mut b = [0];
        assert!(!bus.mmio_read(0x8000_0010, &mut b));
        assert_eq!(b, [0xff]);
        assert!(bus.mmio_read(0x9000_0010, &mut b));
        assert_eq!(b, [7]);
        let mut wide = [0; 8];
        assert!(!bus.mmio_read(0x9000_0ffc, &mut wide), "crosses the end");
        assert!(!bus.port_read(0, &mut b));
    }

    #[test]
    fn lowest_slot_wins_an_overlap() {
        let bus = PciBus::new();
        let (a, b) = (ram(0x8000_0000), ram(0x8000_0000));
        bus.plug(5, b.clone()).unwrap();
        bus.plug(4, a.clone()).unwrap();
        for slot in [4u64, 5] {
            bus.config_write(slot << 15 | 4, &[2, 0]);
        }
        assert!(bus.mmio_write(0x8000_0000, &[9]));
        assert_eq!((a.lock().unwrap().ram[0], b.lock().unwrap().ram[0]), (9, 0));
    }

    #[test]
    fn absent_functions_read_ones() {
        let bus = PciBus::new();
        bus.plug(0, ram(0)).unwrap();
        assert_eq!(bus.plug(0, ram(0)), Err(SlotError(0)));
        assert_eq!(bus.plug(32, ram(0)), Err(SlotError(32)));
        let mut d = [0; 4];
        for absent in [1 << 15, 1 << 12, 1 << 20, u64::MAX] {
            bus.config_read(absent, &mut d);
            assert_eq!(d, [0xff; 4], "{absent:#x}");
        }
        bus.config_read(0, &mut d);
        assert_eq!(d, [1, 0, 2, 0]);
    }
}
