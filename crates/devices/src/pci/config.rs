//! A function's configuration space: header type 0, BARs, capabilities.

use super::bus::BarRange;
use crate::bytes::read_image;
use crate::device::StateError;
use serde::{Deserialize, Serialize};

/// Register offsets (*PCI Local Bus 3.0 §6.1*).
pub mod reg {
    /// Command register, 2 bytes.
    pub const COMMAND: u16 = 0x04;
    /// Status register, 2 bytes.
    pub const STATUS: u16 = 0x06;
    /// First of six base address registers.
    pub const BAR0: u16 = 0x10;
    /// Capability list head.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line: scratch for firmware and system.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin: 1 is INTA#, 0 none.
    pub const INTERRUPT_PIN: u16 = 0x3d;
}

/// Command register bits (*PCI Local Bus 3.0 §6.2.2*).
pub mod command {
    /// Respond to I/O accesses.
    pub const IO: u16 = 1;
    /// Respond to memory accesses.
    pub const MEMORY: u16 = 2;
    /// May start DMA and send messages.
    pub const BUS_MASTER: u16 = 4;
    /// INTx is off.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the command register that can be set.
const COMMAND_WRITABLE: u16 =
    command::IO | command::MEMORY | command::BUS_MASTER | 1 << 6 | 1 << 8 | command::INTX_DISABLE;
const STATUS_INTX: u8 = 1 << 3;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const FIRST_CAPABILITY: usize = 0x40;

/// Class code (*PCI Local Bus 3.0, appendix D*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class {
    /// Base class.
    pub base: u8,
    /// Subclass.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

/// What a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class code.
    pub class: Class,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// What a BAR decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Mem32,
    /// Memory anywhere; takes two BARs.
    Mem64,
}

/// A function built wrongly, or given an address its BAR cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Six BARs, a 64-bit one taking two; each is used once.
    #[error("BAR {0} does not exist or is taken; choose a free one of 0-5")]
    Bar(usize),
    /// BAR sizes are powers of two, at least 16 bytes (4 for ports).
    #[error("BAR size {0:#x} is not a power of two in range; round it up")]
    Size(u64),
    /// The address is not a multiple of the size or too high for the kind.
    #[error("BAR address {0:#x} is not aligned to the BAR or too high; choose another")]
    Address(u64),
    /// The 256-byte space is full.
    #[error("no room for a capability of {0} bytes; leave one out")]
    Capability(usize),
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    kind: BarKind,
    size: u64,
}

/// What a snapshot keeps of a configuration space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState {
    bytes: Vec<u8>,
}

/// Configuration space of one function.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    power_on: Vec<u8>,
    bars: [Option<Bar>; 6],
    free: usize,
    last_capability: Option<usize>,
}

impl ConfigSpace {
    /// A space of 256 bytes without BARs or capabilities.
    pub fn new(id: &Identity) -> Self {
        Self::with_len(id, 256)
    }

    /// A space of 4096 bytes, for functions with a PCI Express capability.
    pub fn extended(id: &Identity) -> Self {
        Self::with_len(id, 4096)
    }

    fn with_len(id: &Identity, len: usize) -> Self {
        let mut bytes = vec![0; len];
        bytes[0..2].copy_from_slice(&id.vendor.to_le_bytes());
        bytes[2..4].copy_from_slice(&id.device.to_le_bytes());
        bytes[8] = id.revision;
        bytes[9] = id.class.interface;
        bytes[10] = id.class.sub;
        bytes[11] = id.class.base;
        bytes[0x2c..0x2e].copy_from_slice(&id.subsystem_vendor.to_le_bytes());
        bytes[0x2e..0x30].copy_from_slice(&id.subsystem.to_le_bytes());
        let mut writable = vec![0; len];
        writable[4..6].copy_from_slice(&COMMAND_WRITABLE.to_le_bytes());
        writable[0x0c] = 0xff; // cache line size, kept and ignored
        writable[0x3c] = 0xff;
        Self {
            power_on: bytes.clone(),
            bytes,
            writable,
            bars: [None; 6],
            free: FIRST_CAPABILITY,
            last_capability: None,
        }
    }

    fn poke(&mut self, at: usize, data: &[u8]) {
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.power_on[at..at + data.len()].copy_from_slice(data);
    }

    /// Declares BAR `index` of `size` bytes.
    ///
    /// # Errors
    /// [`ConfigError`] if the BAR is taken or the size is none a BAR can have.
    pub fn add_bar(&mut self, index: usize, kind: BarKind, size: u64) -> Result<(), ConfigError> {
        let wide = kind == BarKind::Mem64;
        let free = |i: usize| {
            self.bars.get(i).is_some_and(Option::is_none)
                && !(i > 0 && matches!(self.bars[i - 1], Some(b) if b.kind == BarKind::Mem64))
        };
        if !free(index) || wide && !free(index + 1) {
            return Err(ConfigError::Bar(index));
        }
        let (least, most) = match kind {
            BarKind::Io => (4, 256),
            BarKind::Mem32 => (16, 1 << 31),
            BarKind::Mem64 => (16, 1 << 48),
        };
        if !size.is_power_of_two() || size < least || size > most {
            return Err(ConfigError::Size(size));
        }
        self.bars[index] = Some(Bar { kind, size });
        let at = usize::from(reg::BAR0) + 4 * index;
        let (flags, len) = match kind {
            BarKind::Io => (1u64, 4),
            BarKind::Mem32 => (0, 4),
            BarKind::Mem64 => (4, 8),
        };
        // the address bits below the size are hard-wired to zero; that is how
        // its size is found
        self.writable[at..at + len].copy_from_slice(&(!(size - 1)).to_le_bytes()[..len]);
        self.poke(at, &flags.to_le_bytes()[..len]);
        Ok(())
    }

    /// Gives BAR `index` its address, as firmware does; survives
    /// [`ConfigSpace::reset`].
    ///
    /// # Errors
    /// [`ConfigError`] if there is no such BAR or it cannot hold the address.
    pub fn place_bar(&mut self, index: usize, address: u64) -> Result<(), ConfigError> {
        let bar = self.bars.get(index).copied().flatten().ok_or(ConfigError::Bar(index))?;
        let len = if bar.kind == BarKind::Mem64 { 8 } else { 4 };
        if !address.is_multiple_of(bar.size)
            || address.checked_add(bar.size - 1).is_none()
            || len == 4 && address > u64::from(u32::MAX)
        {
            return Err(ConfigError::Address(address));
        }
        let at = usize::from(reg::BAR0) + 4 * index;
        let flags = u64::from(self.bytes[at] & 0xf) & (bar.size - 1);
        self.poke(at, &(address | flags).to_le_bytes()[..len]);
        Ok(())
    }

    /// The BARs there are: index, kind and size in bytes.
    pub fn bar_sizes(&self) -> Vec<(usize, BarKind, u64)> {
        self.bars.iter().enumerate().filter_map(|(i, b)| b.map(|b| (i, b.kind, b.size))).collect()
    }

    /// Appends a capability; `body` follows the two header bytes, and ones in
    /// `writable` mark its writable bits. Returns where the header is.
    ///
    /// # Errors
    /// [`ConfigError::Capability`] if the space is full.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u8, ConfigError> {
        let at = self.free;
        let len = 2 + body.len();
        if at + len > 256 {
            return Err(ConfigError::Capability(len));
        }
        self.poke(at, &[id, 0]);
        self.poke(at + 2, body);
        for (w, &mask) in self.writable[at + 2..at + len].iter_mut().zip(writable) {
            *w = mask;
        }
        let link = self.last_capability.map_or(usize::from(reg::CAPABILITIES), |l| l + 1);
        self.poke(link, &[at as u8]);
        let status = self.bytes[6] | STATUS_CAPABILITIES;
        self.poke(6, &[status]);
        self.last_capability = Some(at);
        self.free = (at + len).next_multiple_of(4);
        Ok(at as u8)
    }

    /// Says which INTx pin the function uses (1 is INTA#) and what the
    /// interrupt line register holds at power-on.
    pub fn set_interrupt(&mut self, pin: u8, line: u8) {
        self.poke(usize::from(reg::INTERRUPT_LINE), &[line, pin]);
    }

    /// Sets command register bits as firmware does; survives
    /// [`ConfigSpace::reset`].
    pub fn enable(&mut self, bits: u16) {
        let v = self.command() | bits & COMMAND_WRITABLE;
        self.poke(usize::from(reg::COMMAND), &v.to_le_bytes());
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.word(reg::COMMAND)
    }

    /// The 16-bit register at `at`; zero outside.
    pub fn word(&self, at: u16) -> u16 {
        let mut b = [0; 2];
        read_image(&self.bytes, u64::from(at), &mut b, 0);
        u16::from_le_bytes(b)
    }

    /// The 32-bit register at `at`; zero outside.
    pub fn dword(&self, at: u16) -> u32 {
        let mut b = [0; 4];
        read_image(&self.bytes, u64::from(at), &mut b, 0);
        u32::from_le_bytes(b)
    }

    /// Shows whether INTx is asserted, in the status register.
    pub fn set_intx_status(&mut self, asserted: bool) {
        self.bytes[6] = self.bytes[6] & !STATUS_INTX | if asserted { STATUS_INTX } else { 0 };
    }

    /// Reads; outside the space all bits are one.
    pub fn read(&self, at: u16, data: &mut [u8]) {
        read_image(&self.bytes, u64::from(at), data, 0xff);
    }

    /// Writes what is writable.
    pub fn write(&mut self, at: u16, data: &[u8]) {
        for (i, &v) in data.iter().enumerate() {
            let i = usize::from(at) + i;
            if let (Some(b), Some(&w)) = (self.bytes.get_mut(i), self.writable.get(i)) {
                *b = *b & !w | v & w;
            }
        }
    }

    /// The address ranges decoded now, by the BARs and the command register.
    pub fn ranges(&self) -> Vec<BarRange> {
        let command = self.command();
        let mut out = Vec::new();
        for (index, kind, len) in self.bar_sizes() {
            let at = reg::BAR0 + 4 * index as u16;
            let low = u64::from(self.dword(at));
            let (io, base) = match kind {
                BarKind::Io => (true, low & !3),
                BarKind::Mem32 => (false, low & !0xf),
                BarKind::Mem64 => (false, low & !0xf | u64::from(self.dword(at + 4)) << 32),
            };
            let enabled = command & if io { command::IO } else { command::MEMORY } != 0;
            if enabled && base.checked_add(len).is_some() {
                out.push(BarRange { bar: index, io, base, len });
            }
        }
        out
    }

    /// Back to power-on: as built, with the addresses the board gave.
    pub fn reset(&mut self) {
        self.bytes.clone_from(&self.power_on);
    }

    /// For a snapshot.
    pub fn save(&self) -> ConfigState {
        ConfigState { bytes: self.bytes.clone() }
    }

    /// Takes over a saved space.
    ///
    /// # Errors
    /// [`StateError`] if what cannot change differs: another function.
    pub fn load(&mut self, state: ConfigState) -> Result<(), StateError> {
        let same = state.bytes.len() == self.bytes.len()
            && (0..self.bytes.len()).all(|i| {
                let volatile = if i == 6 { STATUS_INTX } else { 0 };
                (state.bytes[i] ^ self.power_on[i]) & !(self.writable[i] | volatile) == 0
            });
        if !same {
            return Err(StateError::new("pci", "configuration space", "is of another function"));
        }
        self.bytes = state.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Identity = Identity {
        vendor: 0x1234,
        device: 0x5678,
        revision: 1,
        class: Class { base: 2, sub: 3, interface: 4 },
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
    };

    fn size_probe(c: &mut ConfigSpace, at: u16) -> u32 {
        c.write(at, &[0xff; 4]);
        c.dword(at)
    }

    #[test]
    fn header_says_what_it_is() {
        let c = ConfigSpace::new(&ID);
        assert_eq!(c.dword(0), 0x5678_1234);
        assert_eq!(c.dword(8), 0x0203_0401);
        assert_eq!(c.dword(0x2c), 0x1100_1af4);
        let mut outside = [0; 4];
        c.read(0x100, &mut outside);
        assert_eq!(outside, [0xff; 4]);
        ConfigSpace::extended(&ID).read(0x100, &mut outside);
        assert_eq!(outside, [0; 4]);
    }

    #[test]
    fn size_probing_and_decoding() {
        let mut c = ConfigSpace::new(&ID);
        c.add_bar(0, BarKind::Mem64, 0x8000).unwrap();
        c.add_bar(2, BarKind::Mem32, 0x1000).unwrap();
        c.add_bar(3, BarKind::Io, 0x20).unwrap();
        assert_eq!(size_probe(&mut c, 0x10), 0xffff_8004);
        assert_eq!(size_probe(&mut c, 0x14), 0xffff_ffff);
        assert_eq!(size_probe(&mut c, 0x18), 0xffff_f000);
        assert_eq!(size_probe(&mut c, 0x1c), 0xffff_ffe1);
        assert_eq!(size_probe(&mut c, 0x20), 0, "no such BAR");
        c.place_bar(0, 0x12_3456_8000).unwrap();
        c.place_bar(2, 0xe000_0000).unwrap();
        c.place_bar(3, 0xc000).unwrap();
        assert!(c.ranges().is_empty(), "not enabled");
        c.write(4, &[3, 0]);
        let r: Vec<_> = c.ranges().iter().map(|r| (r.bar, r.io, r.base, r.len)).collect();
        assert_eq!(
            r,
            [(0, false, 0x12_3456_8000, 0x8000), (2, false, 0xe000_0000, 0x1000), (3, true, 0xc000, 0x20)]
        );
        // at the top of the address space nothing is decoded
        c.write(0x10, &[0xff; 8]);
        assert!(c.ranges().iter().all(|r| r.bar != 0));
        c.reset();
        assert_eq!(c.dword(0x18), 0xe000_0000, "the board's address stays");
        assert_eq!(c.command(), 0);
    }

    #[test]
    fn wrong_bars_are_refused() {
        let mut c = ConfigSpace::new(&ID);
        c.add_bar(0, BarKind::Mem64, 0x1000).unwrap();
        assert_eq!(c.add_bar(1, BarKind::Mem32, 16), Err(ConfigError::Bar(1)));
        assert_eq!(c.add_bar(5, BarKind::Mem64, 16), Err(ConfigError::Bar(5)));
        assert_eq!(c.add_bar(6, BarKind::Mem32, 16), Err(ConfigError::Bar(6)));
        assert_eq!(c.add_bar(2, BarKind::Mem32, 24), Err(ConfigError::Size(24)));
        assert_eq!(c.place_bar(0, 0x800), Err(ConfigError::Address(0x800)));
        assert_eq!(c.place_bar(3, 0), Err(ConfigError::Bar(3)));
    }

    #[test]
    fn capabilities_are_linked_and_masked() {
        let mut c = ConfigSpace::new(&ID);
        let a = c.add_capability(0x11, &[1, 2, 3], &[0, 0xf0]).unwrap();
        let b = c.add_capability(0x09, &[4; 14], &[]).unwrap();
        assert_eq!(c.word(0x34) as u8, a);
        assert_eq!(c.word(u16::from(a)), u16::from(b) << 8 | 0x11);
        assert_eq!(c.word(u16::from(b)), 0x09);
        assert_ne!(c.word(6) & 0x10, 0);
        c.write(u16::from(a), &[0xff; 5]);
        assert_eq!(c.dword(u16::from(a) + 2) & 0xff_ffff, 0x03_f2_01);
        assert!(c.add_capability(9, &[0; 200], &[]).is_err());
    }

    #[test]
    fn a_state_of_another_function_is_refused() {
        let mut c = ConfigSpace::new(&ID);
        let mut state = c.save();
        state.bytes[0] ^= 1;
        assert!(c.load(state).is_err());
        c.write(4, &[7, 0]);
        let state = c.save();
        c.reset();
        c.load(state).unwrap();
        assert_eq!(c.command(), 7);
    }
}
