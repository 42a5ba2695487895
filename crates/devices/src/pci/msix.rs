//! MSI-X: table, pending bits, masking (*PCI Local Bus 3.0 §6.8.2*).

use super::{ConfigError, ConfigSpace};
use crate::bytes::read_image;
use crate::device::{MsiSink, StateError};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const CAP_ID: u8 = 0x11;
const ENTRY: usize = 16;
const VECTOR_MASKED: u8 = 1;
const CTRL_ENABLE: u16 = 1 << 15;
const CTRL_FUNCTION_MASK: u16 = 1 << 14;

/// What a snapshot keeps of MSI-X; its control word is in the configuration
/// space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    table: Vec<u8>,
    pending: Vec<u8>,
}

/// The MSI-X part of a function.
pub struct Msix {
    sink: Arc<dyn MsiSink>,
    vectors: u16,
    capability: u16,
    table: Vec<u8>,
    pending: Vec<u8>,
    enabled: bool,
    function_masked: bool,
    bus_master: bool,
}

impl Msix {
    /// Adds an MSI-X capability for `vectors` (at most 2048) vectors to
    /// `config`, with the table at `table` and the pending bits at `pba` in
    /// BAR `bar`; both offsets are multiples of 8.
    ///
    /// # Errors
    /// [`ConfigError::Capability`] if the configuration space is full.
    pub fn new(
        config: &mut ConfigSpace,
        vectors: u16,
        bar: u8,
        table: u32,
        pba: u32,
        sink: Arc<dyn MsiSink>,
    ) -> Result<Self, ConfigError> {
        let vectors = vectors.clamp(1, 2048);
        let mut body = [0; 10];
        body[0..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table & !7 | u32::from(bar)).to_le_bytes());
        body[6..10].copy_from_slice(&(pba & !7 | u32::from(bar)).to_le_bytes());
        let capability = config.add_capability(CAP_ID, &body, &[0, 0xc0])?;
        let mut msix = Self {
            sink,
            vectors,
            capability: u16::from(capability),
            table: vec![0; usize::from(vectors) * ENTRY],
            pending: vec![0; usize::from(vectors).div_ceil(64) * 8],
            enabled: false,
            function_masked: false,
            bus_master: false,
        };
        msix.reset();
        Ok(msix)
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The driver switched MSI-X on; INTx is then off.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Bytes of the table.
    pub fn table_len(&self) -> u64 {
        self.table.len() as u64
    }

    /// Takes note of the control word and the bus-master bit after a write to
    /// configuration space, and sends what becomes unmasked by it.
    pub fn sync(&mut self, config: &ConfigSpace) {
        let control = config.word(self.capability + 2);
        self.enabled = control & CTRL_ENABLE != 0;
        self.function_masked = control & CTRL_FUNCTION_MASK != 0;
        self.bus_master = config.command() & super::command::BUS_MASTER != 0;
        for v in 0..self.vectors {
            self.flush(v);
        }
    }

    fn masked(&self, v: usize) -> bool {
        self.function_masked || self.table[v * ENTRY + 12] & VECTOR_MASKED != 0
    }

    /// Raises `vector`: sends its message, or marks it pending while masked.
    /// Unknown vectors and a function with MSI-X off do nothing.
    pub fn notify(&mut self, vector: u16) {
        if vector < self.vectors && self.enabled {
            let v = usize::from(vector);
            self.pending[v / 8] |= 1 << (v % 8);
            self.flush(vector);
        }
    }

    fn flush(&mut self, vector: u16) {
        let v = usize::from(vector);
        let bit = 1 << (v % 8);
        // a message is a memory write: without bus mastering it stays here
        if !self.enabled || !self.bus_master || self.pending[v / 8] & bit == 0 || self.masked(v) {
            return;
        }
        self.pending[v / 8] &= !bit;
        let at = |o: usize| {
            let e = v * ENTRY + o;
            u32::from_le_bytes([self.table[e], self.table[e + 1], self.table[e + 2], self.table[e + 3]])
        };
        let address = u64::from(at(0) & !3) | u64::from(at(4)) << 32;
        self.sink.send(address, at(8));
    }

    /// Reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        read_image(&self.table, offset, data, 0xff);
    }

    /// Writes the table; unmasking a pending vector sends it. Only aligned
    /// double and quad words are writes (*§6.8.2*), others are dropped.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let len = data.len();
        if !matches!(len, 4 | 8) || !offset.is_multiple_of(len as u64) {
            return;
        }
        let Ok(at) = usize::try_from(offset) else {
            return;
        };
        if at.saturating_add(len) > self.table.len() {
            return;
        }
        self.table[at..at + len].copy_from_slice(data);
        let v = at / ENTRY;
        // vector control: all but the mask bit is reserved
        let control = v * ENTRY + 12;
        self.table[control] &= VECTOR_MASKED;
        self.table[control + 1..control + 4].fill(0);
        self.flush(v as u16);
    }

    /// Reads the pending bits, which are read-only.
    pub fn read_pba(&self, offset: u64, data: &mut [u8]) {
        read_image(&self.pending, offset, data, 0xff);
    }

    /// Power-on: everything masked, nothing pending, off.
    pub fn reset(&mut self) {
        self.table.fill(0);
        for v in 0..usize::from(self.vectors) {
            self.table[v * ENTRY + 12] = VECTOR_MASKED;
        }
        self.pending.fill(0);
        self.enabled = false;
        self.function_masked = false;
        self.bus_master = false;
    }

    /// Forgets what is pending, as a reset of the device (not of the
    /// function) does.
    pub fn clear_pending(&mut self) {
        self.pending.fill(0);
    }

    /// For a snapshot.
    pub fn save(&self) -> MsixState {
        MsixState { table: self.table.clone(), pending: self.pending.clone() }
    }

    /// Whether [`Msix::load`] would take `state`.
    ///
    /// # Errors
    /// [`StateError`] if it is for another number of vectors.
    pub fn check(&self, state: &MsixState) -> Result<(), StateError> {
        if state.table.len() != self.table.len() || state.pending.len() != self.pending.len() {
            return Err(StateError::new("pci", "MSI-X table", "has another number of vectors"));
        }
        Ok(())
    }

    /// Takes over a saved table; `config` is the loaded configuration space.
    ///
    /// # Errors
    /// As [`Msix::check`].
    pub fn load(&mut self, state: MsixState, config: &ConfigSpace) -> Result<(), StateError> {
        self.check(&state)?;
        self.table = state.table;
        self.pending = state.pending;
        self.sync(config);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::{Class, Identity};
    use crate::testing::TestMsi;

    fn msix() -> (ConfigSpace, Msix, Arc<TestMsi>) {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 1,
            device: 1,
            revision: 0,
            class: Class { base: 0, sub: 0, interface: 0 },
            subsystem_vendor: 0,
            subsystem: 0,
        });
        let sink = Arc::new(TestMsi::default());
        let mut m = Msix::new(&mut config, 3, 1, 0x1000, 0x2000, sink.clone()).unwrap();
        for v in 0..3u64 {
            let word = |m: &mut Msix, o: u64, x: u32| m.write_table(v * 16 + o, &x.to_le_bytes());
            word(&mut m, 0, 0xfee0_1000);
            word(&mut m, 8, 0x40 + v as u32);
            word(&mut m, 12, 0);
        }
        config.enable(crate::pci::command::BUS_MASTER);
        (config, m, sink)
    }

    fn control(c: &mut ConfigSpace, m: &mut Msix, v: u16) {
        c.write(m.capability + 2, &v.to_le_bytes());
        m.sync(c);
    }

    #[test]
    fn capability_names_table_and_pba() {
        let (c, m, _) = msix();
        assert_eq!(c.word(m.capability + 2), 2);
        assert_eq!(c.dword(m.capability + 4), 0x1001);
        assert_eq!(c.dword(m.capability + 8), 0x2001);
    }

    #[test]
    fn sends_when_enabled_and_not_otherwise() {
        let (mut c, mut m, sink) = msix();
        m.notify(1);
        assert!(sink.take().is_empty());
        control(&mut c, &mut m, 0x8000);
        m.notify(1);
        m.notify(3);
        m.notify(0xffff);
        assert_eq!(sink.take(), [(0xfee0_1000, 0x41)]);
    }

    #[test]
    fn masked_vectors_pend_and_go_out_on_unmask() {
        let (mut c, mut m, sink) = msix();
        control(&mut c, &mut m, 0xc000);
        m.notify(2);
        m.write_table(12, &[1, 0, 0, 0]);
        m.notify(0);
        let mut pba = [0; 8];
        m.read_pba(0, &mut pba);
        assert_eq!(pba[0], 5);
        control(&mut c, &mut m, 0x8000);
        assert_eq!(sink.take(), [(0xfee0_1000, 0x42)]);
        m.write_table(12, &[0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(sink.take(), [(0xfee0_1000, 0x40)]);
        let mut e = [0; 4];
        m.read_table(12, &mut e);
        assert_eq!(e, [0; 4], "reserved bits do not stick");
    }

    #[test]
    fn no_message_without_bus_mastering() {
        let (mut c, mut m, sink) = msix();
        control(&mut c, &mut m, 0x8000);
        c.write(4, &[0, 0]);
        m.sync(&c);
        m.notify(0);
        assert!(sink.take().is_empty());
        c.write(4, &[4, 0]);
        m.sync(&c);
        assert_eq!(sink.take().len(), 1);
    }

    #[test]
    fn odd_table_accesses_are_harmless() {
        let (_, mut m, _) = msix();
        let before = m.save();
        for (o, len) in [(0, 1), (2, 4), (4, 8), (44, 8), (48, 4), (u64::MAX - 3, 4), (0, 16)] {
            m.write_table(o, &vec![0xff; len]);
        }
        assert_eq!(m.save(), before);
        let mut d = [0; 16];
        m.read_table(40, &mut d);
        assert_eq!(d[8..], [0xff; 8]);
    }
}
