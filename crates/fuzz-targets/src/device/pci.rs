//! The PCI bus: configuration ports, ECAM, and what the BARs decode, with
//! virtio functions in its slots.

use super::fakes::Board;
use super::registers::{registers, snapshot};
use crate::input::Input;
use devices::pci::{ConfigPorts, Ecam, HostBridge, PciBus};
use devices::virtio::{BAR, Block, Entropy, VirtioPci};
use std::sync::{Arc, Mutex};

const WINDOW: u64 = 0xd000_0000;

pub(super) fn pci(data: &[u8]) {
    let mut input = Input::new(data);
    let ram = mem::Ram::new(&[(0, 1 << 20)]).expect("host memory");
    let bus = Arc::new(PciBus::new());
    let bridge = Arc::new(Mutex::new(HostBridge::new()));
    bus.plug(0, bridge).expect("free");
    let board = || Arc::new(Board);
    let mut rng = VirtioPci::new(Entropy, ram.guest().clone(), board(), board()).expect("fits");
    let _ = rng.config_mut().place_bar(BAR, WINDOW);
    rng.config_mut().enable(6);
    let rng = Arc::new(Mutex::new(rng));
    bus.plug(1, rng.clone()).expect("free");
    let disk = VirtioPci::new(Block::new(vec![0; 4096], "disk"), ram.guest().clone(), board(), board());
    bus.plug(31, Arc::new(Mutex::new(disk.expect("fits")))).expect("free");

    let mut ecam = Ecam::new(bus.clone());
    let mut ports = ConfigPorts::new(bus.clone(), board());
    // CONFIG_ADDRESS, the reset register, CONFIG_DATA.
    registers(&mut ports, &mut input, &[0, 0, 4, 4, 5, 6, 7, 1], |_, input| {
        let mut data = [0; 8];
        let n = input.pick(&[1usize, 2, 4, 8]);
        match input.u8() {
            0..0x40 => {
                let at = WINDOW + u64::from(input.u16());
                bus.mmio_write(at, &input.u64().to_le_bytes()[..n]);
            }
            0x40..0x60 => {
                bus.mmio_read(WINDOW + u64::from(input.u16()), &mut data[..n]);
            }
            0x60..0x70 => {
                bus.mmio_write(input.number(), &data[..n]);
            }
            0x70..0x80 => {
                bus.mmio_read(input.number(), &mut data[..n]);
            }
            0x80..0x88 => {
                bus.port_read(input.u16(), &mut data[..n]);
            }
            0x88..0x90 => {
                bus.port_write(input.u16(), &data[..n]);
            }
            0x90 => {
                snapshot(&mut *rng.lock().expect("one thread"), input);
                bus.refresh();
            }
            _ => {
                // A function that is there, a register of its header or its capabilities.
                let at = u64::from(input.pick(&[0u8, 1, 31])) << 15 | u64::from(input.u8());
                registers(
                    &mut ecam,
                    &mut Input::new(input.bytes(12)),
                    &[at, at & !3, 0xffff_ffff],
                    |_, _| {},
                );
            }
        }
    });
}
