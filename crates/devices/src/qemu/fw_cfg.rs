//! The firmware configuration device (QEMU, *QEMU Firmware Configuration
//! (fw_cfg) Device*, `docs/specs/fw_cfg.rst`): numbered items, read byte by byte
//! at two ports.
//!
//! | offset | register |
//! |---|---|
//! | 0 | selector, 2 bytes, written: the item to read, from its start |
//! | 1 | data, 1 byte, read: the item's next byte; zero past its end |
//!
//! Items are fixed when the device is made, or taken from a snapshot; writes to them were dropped from QEMU,
//! too. There is no DMA interface, and the interface's item says so.
//!
//! | threat | guard |
//! |---|---|
//! | items that do not exist, reading on for ever | zeros; the position stops at the item's end |

use crate::device::{Device, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Numbers of items.
#[allow(missing_docs)]
pub mod key {
    pub const SIGNATURE: u16 = 0x00;
    pub const ID: u16 = 0x01;
    pub const UUID: u16 = 0x02;
    pub const RAM_SIZE: u16 = 0x03;
    pub const NOGRAPHIC: u16 = 0x04;
    pub const NB_CPUS: u16 = 0x05;
    pub const KERNEL_ADDR: u16 = 0x07;
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const BOOT_DEVICE: u16 = 0x0c;
    pub const NUMA: u16 = 0x0d;
    pub const BOOT_MENU: u16 = 0x0e;
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_ENTRY: u16 = 0x10;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const FILE_DIR: u16 = 0x19;
    pub const FILE_FIRST: u16 = 0x20;
}

/// The item that the interface is known by.
const SIGNATURE: &[u8] = b"QEMU";
/// The ports, without DMA.
const ID: u32 = 1;
/// The selector's bit that once asked for writing.
const WRITE: u16 = 0x4000;
/// A name in the directory, its terminating zero included.
const NAME: usize = 56;

/// What a snapshot keeps of the device: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    items: BTreeMap<u16, Vec<u8>>,
    selected: u16,
    position: u32,
}

/// The device.
pub struct FwCfg {
    s: FwCfgState,
}

impl FwCfg {
    /// Number of ports.
    pub const PORTS: u64 = 2;

    /// A device of these items and files (named by at most 55 bytes; the rest of a
    /// longer name is cut off). The signature, the interface's number and the
    /// directory come by themselves.
    pub fn new(
        items: impl IntoIterator<Item = (u16, Vec<u8>)>,
        files: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
    ) -> Self {
        let mut items: BTreeMap<u16, Vec<u8>> = items.into_iter().collect();
        items.insert(key::SIGNATURE, SIGNATURE.to_vec());
        items.insert(key::ID, ID.to_le_bytes().to_vec());
        let mut entries = Vec::new();
        let mut count = 0u32;
        for (key, (name, content)) in (key::FILE_FIRST..).zip(files) {
            // the directory is big-endian
            entries.extend((content.len() as u32).to_be_bytes());
            entries.extend(key.to_be_bytes());
            entries.extend([0; 2]);
            let mut field = [0; NAME];
            let cut = name.len().min(NAME - 1);
            field[..cut].copy_from_slice(&name.as_bytes()[..cut]);
            entries.extend(field);
            items.insert(key, content);
            count += 1;
        }
        items.insert(key::FILE_DIR, [count.to_be_bytes().to_vec(), entries].concat());
        Self { s: FwCfgState { items, selected: 0, position: 0 } }
    }

    fn next(&mut self) -> u8 {
        let item = self.s.items.get(&self.s.selected);
        let byte = item.and_then(|item| item.get(self.s.position as usize)).copied();
        self.s.position += u32::from(byte.is_some());
        byte.unwrap_or(0)
    }
}

impl Device for FwCfg {
    type State = FwCfgState;
    const STATE_VERSION: u16 = 2;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let (1, [byte]) = (offset, data) {
            *byte = self.next();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (0, &[low, high]) = (offset, data) {
            self.s.selected = u16::from_le_bytes([low, high]) & !WRITE;
            self.s.position = 0;
        }
    }

    fn reset(&mut self) {
        (self.s.selected, self.s.position) = (0, 0);
    }

    fn save(&self) -> FwCfgState {
        self.s.clone()
    }

    fn load(&mut self, state: FwCfgState) -> Result<(), StateError> {
        let end = state.items.get(&state.selected).map_or(0, Vec::len);
        if state.position as usize > end || state.selected & WRITE != 0 {
            return Err(StateError::new("fw_cfg", "position", "lies in no item"));
        }
        self.s = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixture, inb, write};

    fn device() -> FwCfg {
        let files = [("etc/one", vec![1, 2, 3]), ("opt/two", vec![9])];
        FwCfg::new([(key::NB_CPUS, vec![4, 0])], files)
    }

    fn item(d: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
        write(d, 0, 2, u64::from(key));
        (0..len).map(|_| inb(d, 1)).collect()
    }

    device_tests!(every_device, || Fixture {
        device: device(),
        offsets: vec![0, 1],
        outside: vec![2, 3, 4, 0x510, u64::MAX],
        disturb: Box::new(|_, _| {}),
    });

    #[test]
    fn items_are_read_from_their_start_and_end_in_zeros() {
        let mut d = device();
        assert_eq!(item(&mut d, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(item(&mut d, key::ID, 4), [1, 0, 0, 0]);
        assert_eq!(item(&mut d, key::NB_CPUS, 1), [4]);
        assert_eq!(item(&mut d, key::NB_CPUS | WRITE, 3), [4, 0, 0]);
        assert_eq!(item(&mut d, 0x7777, 2), [0, 0], "there is none");
    }

    #[test]
    fn files_are_found_by_name() {
        let mut d = device();
        let dir = item(&mut d, key::FILE_DIR, 4 + 2 * 64 + 1);
        assert_eq!(dir[..4], [0, 0, 0, 2]);
        assert_eq!(dir[4..12], [0, 0, 0, 3, 0, 0x20, 0, 0]);
        assert_eq!(&dir[12..20], b"etc/one\0");
        assert_eq!(dir[68..76], [0, 0, 0, 1, 0, 0x21, 0, 0]);
        assert_eq!(&dir[76..84], b"opt/two\0");
        assert_eq!(item(&mut d, 0x20, 4), [1, 2, 3, 0]);
    }

    #[test]
    fn only_a_word_selects_and_only_a_byte_is_read() {
        let mut d = device();
        write(&mut d, 0, 1, 5);
        write(&mut d, 1, 2, 5);
        assert_eq!(inb(&mut d, 1), b'Q');
        assert_eq!(crate::testing::read(&mut d, 1, 2), 0xffff);
        assert_eq!(inb(&mut d, 1), b'E');
    }
}
