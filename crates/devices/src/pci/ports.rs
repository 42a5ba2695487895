//! The two ways into configuration space.

use super::PciBus;
use crate::bytes::{fill, value};
use crate::device::{Device, PowerSink, StateError};
use crate::pm::ResetControl;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const ADDRESS: u64 = 0;
const RESET: u64 = 1;
const DATA: u64 = 4;

const ENABLE: u32 = 1 << 31;

/// What a snapshot keeps of the ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigPortsState {
    address: u32,
    reset_control: u8,
}

/// Ports CF8h–CFFh: configuration mechanism #1 (*PCI Local Bus 3.0
/// §3.2.2.3.2*), and among them, for accesses of one byte, the reset control
/// register CF9h.
pub struct ConfigPorts {
    bus: Arc<PciBus>,
    address: u32,
    reset_control: ResetControl,
}

impl ConfigPorts {
    /// Number of ports.
    pub const PORTS: u64 = 8;

    /// The ports of `bus`, reporting resets to `power`.
    pub fn new(bus: Arc<PciBus>, power: Arc<dyn PowerSink>) -> Self {
        Self { bus, address: 0, reset_control: ResetControl::new(power) }
    }

    /// Where in [`PciBus::config_read`]'s terms an access to the data port
    /// goes.
    fn target(&self, offset: u64, len: usize) -> Option<u64> {
        let a = u64::from(self.address);
        let within = offset - DATA;
        (self.address & ENABLE != 0 && within + len as u64 <= 4)
            .then_some((a & 0x00ff_ff00) << 4 | a & 0xfc | within)
    }
}

impl Device for ConfigPorts {
    type State = ConfigPortsState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            // only double words reach the address register
            ADDRESS if data.len() == 4 => fill(data, u64::from(self.address)),
            RESET if data.len() == 1 => self.reset_control.read(0, data),
            DATA..8 => match self.target(offset, data.len()) {
                Some(at) => self.bus.config_read(at, data),
                None => data.fill(0xff),
            },
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            ADDRESS if data.len() == 4 => self.address = value(data) as u32 & 0x80ff_fffc,
            RESET if data.len() == 1 => self.reset_control.write(0, data),
            DATA..8 => {
                if let Some(at) = self.target(offset, data.len()) {
                    self.bus.config_write(at, data);
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.address = 0;
        self.reset_control.reset();
    }

    fn save(&self) -> ConfigPortsState {
        ConfigPortsState { address: self.address, reset_control: self.reset_control.save() }
    }

    fn load(&mut self, state: ConfigPortsState) -> Result<(), StateError> {
        self.address = state.address & 0x80ff_fffc;
        self.reset_control.load(state.reset_control)
    }
}

/// The memory-mapped configuration window the MCFG table names, 1 MiB for the
/// one bus (*PCI Express Base 4.0 §7.2.2*). Stateless.
pub struct Ecam {
    bus: Arc<PciBus>,
}

impl Ecam {
    /// Length of the window in bytes.
    pub const LEN: u64 = 1 << 20;

    /// The window of `bus`.
    pub fn new(bus: Arc<PciBus>) -> Self {
        Self { bus }
    }
}

impl Device for Ecam {
    type State = ();

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.bus.config_read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.bus.config_write(offset, data);
    }

    fn reset(&mut self) {}

    fn save(&self) {}

    fn load(&mut self, _state: ()) -> Result<(), StateError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::HostBridge;
    use crate::testing::{Fixture, TestPower, outb, read, write};
    use std::sync::Mutex;

    fn bus() -> Arc<PciBus> {
        let bus = Arc::new(PciBus::new());
        bus.plug(0, Arc::new(Mutex::new(HostBridge::new()))).unwrap();
        bus
    }

    device_tests!(config_ports, || Fixture {
        device: ConfigPorts::new(bus(), Arc::new(TestPower::default())),
        offsets: vec![0, 0, 1, 4, 5, 6, 7],
        outside: vec![8, 0xcf8, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    device_tests!(ecam, || Fixture {
        device: Ecam::new(bus()),
        offsets: (0..256).collect(),
        outside: vec![0x100, 0x1000, 1 << 20, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn mechanism_1_finds_the_bridge() {
        let power = Arc::new(TestPower::default());
        let mut p = ConfigPorts::new(bus(), power.clone());
        // Linux' pci_check_type1
        outb(&mut p, 3, 1);
        write(&mut p, 0, 4, 0x8000_0000);
        assert_eq!(read(&mut p, 0, 4), 0x8000_0000);
        assert_eq!(read(&mut p, 4, 4), 0x0008_1b36);
        assert_eq!(read(&mut p, 6, 2), 0x0008);
        write(&mut p, 0, 4, 0x8000_0800);
        assert_eq!(read(&mut p, 4, 4), 0xffff_ffff, "slot 1 is empty");
        write(&mut p, 0, 4, 0);
        assert_eq!(read(&mut p, 4, 4), 0xffff_ffff, "not enabled");
        assert_eq!(power.counts(), (0, 0));
        outb(&mut p, 1, 6);
        assert_eq!(power.counts(), (0, 1));
    }

    #[test]
    fn ecam_finds_the_bridge() {
        let mut e = Ecam::new(bus());
        assert_eq!(read(&mut e, 0, 4), 0x0008_1b36);
        assert_eq!(read(&mut e, 0x8000, 4), 0xffff_ffff);
        write(&mut e, 4, 2, 0x0406);
        assert_eq!(read(&mut e, 4, 2), 0x0406);
    }
}
