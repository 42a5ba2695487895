//! `pc-testdev` (QEMU, `hw/misc/pc-testdev.c`), the device that test suites for
//! hypervisors use: [`TestPorts`] and [`TestMemory`].
//!
//! | port | what |
//! |---|---|
//! | E0h–E3h | a register of 32 bits |
//! | E4h | a page that the hypervisor should forget and find again |
//! | E8h–EBh | the register at E0h once more |
//! | 2000h + n | byte: asserts (non-zero) or releases GSI n, 0 to 23 |
//!
//! and 64 KiB of memory that is a device's, at FF000000h. Nothing is kept of a
//! page that the page tables do not say, so a write to E4h has nothing to do.
//!
//! | threat | guard |
//! |---|---|
//! | interrupt storms | wires, not messages: the same as with any device's |
//! | memory | 64 KiB, from the start |

use crate::bytes::read_image;
use crate::device::{Device, StateError};
use crate::irq::IrqLine;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// First port; offsets of [`TestPorts`] count from here.
pub const FIRST_PORT: u16 = 0xe0;
/// Physical address of [`TestMemory`].
pub const MEMORY: u64 = 0xff00_0000;

/// GSIs that can be driven.
const LINES: usize = 24;
const REGISTER: u64 = 0;
const FORGET: u64 = 0x4;
const REGISTER_AGAIN: u64 = 0x8;
const WIRES: u64 = 0x2000 - FIRST_PORT as u64;
const WIRES_END: u64 = WIRES + LINES as u64;

/// What a snapshot keeps of the ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestPortsState {
    register: u32,
    /// Wires asserted, by GSI.
    asserted: u32,
}

/// The device's ports.
pub struct TestPorts {
    lines: Vec<Arc<dyn IrqLine>>,
    s: TestPortsState,
}

impl TestPorts {
    /// Ports that drive `lines`, by GSI; of more than 24, the first.
    pub fn new(lines: impl IntoIterator<Item = Arc<dyn IrqLine>>) -> Self {
        Self { lines: lines.into_iter().take(LINES).collect(), s: TestPortsState::default() }
    }

    /// Whether a port is one of these.
    pub fn has(port: u16) -> bool {
        let offset = u64::from(port).wrapping_sub(u64::from(FIRST_PORT));
        matches!(offset, REGISTER..12 | WIRES..WIRES_END)
    }

    fn drive(&mut self, asserted: u32) {
        let changed = self.s.asserted ^ asserted;
        self.s.asserted = asserted;
        for (n, line) in self.lines.iter().enumerate() {
            if changed & 1 << n != 0 {
                line.set(asserted & 1 << n != 0);
            }
        }
    }
}

impl Device for TestPorts {
    type State = TestPortsState;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let register = self.s.register.to_le_bytes();
        match offset {
            REGISTER..FORGET => read_image(&register, offset - REGISTER, data, 0xff),
            REGISTER_AGAIN..12 => read_image(&register, offset - REGISTER_AGAIN, data, 0xff),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            REGISTER..FORGET | REGISTER_AGAIN..12 => {
                let mut register = self.s.register.to_le_bytes();
                let at = (offset % 4) as usize;
                for (byte, new) in register[at..].iter_mut().zip(data) {
                    *byte = *new;
                }
                self.s.register = u32::from_le_bytes(register);
            }
            WIRES..WIRES_END => {
                if let &[level] = data {
                    let bit = 1 << (offset - WIRES);
                    let rest = self.s.asserted & !bit;
                    self.drive(if level == 0 { rest } else { rest | bit });
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.drive(0);
        self.s = TestPortsState::default();
    }

    fn save(&self) -> TestPortsState {
        self.s
    }

    fn load(&mut self, state: TestPortsState) -> Result<(), StateError> {
        if state.asserted >> LINES != 0 {
            return Err(StateError::new("test device", "wires", "are more than 24"));
        }
        self.s.register = state.register;
        self.drive(state.asserted);
        Ok(())
    }
}

/// The device's memory.
pub struct TestMemory {
    bytes: Vec<u8>,
}

impl Default for TestMemory {
    fn default() -> Self {
        Self { bytes: vec![0; Self::LEN as usize] }
    }
}

impl TestMemory {
    /// Length in bytes.
    pub const LEN: u64 = 0x1_0000;
}

impl Device for TestMemory {
    type State = Vec<u8>;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        read_image(&self.bytes, offset, data, 0xff);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let tail = usize::try_from(offset).ok().and_then(|offset| self.bytes.get_mut(offset..));
        for (byte, new) in tail.unwrap_or_default().iter_mut().zip(data) {
            *byte = *new;
        }
    }

    fn reset(&mut self) {
        self.bytes.fill(0);
    }

    fn save(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    fn load(&mut self, state: Vec<u8>) -> Result<(), StateError> {
        if state.len() != self.bytes.len() {
            return Err(StateError::new("test device", "memory", "is not of 64 KiB"));
        }
        self.bytes = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, TestLine, outb, read, write};

    fn ports() -> (TestPorts, Vec<Arc<TestLine>>) {
        let lines: Vec<_> = (0..LINES).map(|_| TestLine::new()).collect();
        (TestPorts::new(lines.iter().map(|l| l.clone() as Arc<dyn IrqLine>)), lines)
    }

    device_tests!(every_port, || Fixture {
        device: ports().0,
        offsets: vec![0, 1, 3, 4, 8, 11, WIRES, WIRES + 14, WIRES_END - 1],
        outside: vec![12, WIRES - 1, WIRES_END, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    device_tests!(memory, || Fixture {
        device: TestMemory::default(),
        offsets: vec![0, 1, 0x1000, 0xfffc, 0xffff],
        outside: vec![TestMemory::LEN, MEMORY, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn a_byte_drives_a_wire() {
        let (mut d, lines) = ports();
        outb(&mut d, WIRES + 14, 1);
        outb(&mut d, WIRES + 14, 0xff);
        assert!(lines[14].level() && lines[14].edges() == 1);
        write(&mut d, WIRES + 14, 2, 0); // a word is none of QEMU's either
        assert!(lines[14].level());
        outb(&mut d, WIRES + 14, 0);
        assert!(lines.iter().all(|l| !l.level()));
        outb(&mut d, WIRES_END - 1, 1);
        d.reset();
        assert!(!lines[23].level() && lines[23].edges() == 1);
    }

    #[test]
    fn register_is_there_twice_and_has_bytes() {
        let (mut d, _) = ports();
        write(&mut d, 0, 4, 0x1234_5678);
        assert_eq!(read(&mut d, 8, 4), 0x1234_5678);
        write(&mut d, 9, 2, 0xabcd);
        assert_eq!(read(&mut d, 0, 4), 0x12ab_cd78);
        assert_eq!(read(&mut d, 2, 2), 0x12ab);
        write(&mut d, 3, 4, 0x11);
        assert_eq!(read(&mut d, 0, 4), 0x11ab_cd78, "what does not fit is dropped");
    }

    #[test]
    fn ports_are_those() {
        let all: Vec<u16> = (0..=u16::MAX).filter(|p| TestPorts::has(*p)).collect();
        assert!(all == (0xe0..0xec).chain(0x2000..0x2018).collect::<Vec<_>>(), "{all:x?}");
    }

    #[test]
    fn memory_is_memory() {
        let mut m = TestMemory::default();
        write(&mut m, 0xfffe, 4, 0x4433_2211);
        assert_eq!(read(&mut m, 0xfffc, 4), 0x2211_0000);
        assert_eq!(read(&mut m, 0xfffe, 4), 0xffff_2211);
    }
}
