//! The host bridge: a function that is only its header, in slot 0.

use super::{BarRange, Class, ConfigSpace, ConfigState, Identity, PciFunction};
use crate::device::{Device, StateError};

/// A host bridge without registers of its own.
pub struct HostBridge {
    config: ConfigSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// The bridge, under the identity of QEMU's PCI Express host bridge
    /// (1B36h:0008h), which drivers know to leave alone.
    pub fn new() -> Self {
        Self {
            config: ConfigSpace::new(&Identity {
                vendor: 0x1b36,
                device: 0x0008,
                revision: 0,
                class: Class { base: 6, sub: 0, interface: 0 },
                subsystem_vendor: 0x1af4,
                subsystem: 0x1100,
            }),
        }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, at: u16, data: &mut [u8]) {
        self.config.read(at, data);
    }

    fn config_write(&mut self, at: u16, data: &[u8]) {
        self.config.write(at, data);
    }

    fn bars(&self) -> Vec<BarRange> {
        Vec::new()
    }

    fn bar_read(&mut self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _bar: usize, _offset: u64, _data: &[u8]) {}
}

/// As a register file: its configuration space.
impl Device for HostBridge {
    type State = ConfigState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match u16::try_from(offset) {
            Ok(at) => self.config.read(at, data),
            Err(_) => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Ok(at) = u16::try_from(offset) {
            self.config.write(at, data);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
    }

    fn save(&self) -> ConfigState {
        self.config.save()
    }

    fn load(&mut self, state: ConfigState) -> Result<(), StateError> {
        self.config.load(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, read};

    device_tests!(every_device, || Fixture {
        device: HostBridge::new(),
        offsets: (0..256).collect(),
        outside: vec![0x100, 0xfff0, 0x1_0000, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn is_a_host_bridge() {
        let mut b = HostBridge::new();
        assert_eq!(read(&mut b, 10, 2), 0x0600);
        assert!(b.bars().is_empty());
    }
}
