//! The modern virtio PCI transport (*virtio 1.2 §4.1*).
//!
//! One 64-bit memory BAR holds everything:
//!
//! | offset | what |
//! |---|---|
//! | 0000h | common configuration (*§4.1.4.3*) |
//! | 1000h | ISR status (*§4.1.4.5*) |
//! | 2000h | device configuration (*§4.1.4.6*) |
//! | 3000h | notifications, 4 bytes a queue (*§4.1.4.4*) |
//! | 4000h | MSI-X table, one vector a queue and one for configuration |
//! | 6000h | MSI-X pending bits |

use super::queue::{NO_VECTOR, QueueState, Queues, VirtQueue};
use super::{F_INDIRECT_DESC, F_VERSION_1, VirtioDevice};
use crate::bytes::{read_image, value};
use crate::device::{Device, MsiSink, StateError};
use crate::irq::IrqLine;
use crate::pci::{
    BarKind, BarRange, ConfigError, ConfigSpace, ConfigState, Identity, Msix, MsixState, PciFunction, command,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vm_memory::GuestMemory;

/// The BAR in use.
pub const BAR: usize = 0;
/// Its length in bytes.
pub const BAR_LEN: u64 = 0x8000;

const COMMON: u64 = 0x0000;
const COMMON_LEN: u64 = 0x38;
const ISR: u64 = 0x1000;
const DEVICE: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const NOTIFY_MULTIPLIER: u32 = 4;
const TABLE: u64 = 0x4000;
const PBA: u64 = 0x6000;
/// What the table's room of 2000h bytes holds.
const MAX_VECTORS: usize = 512;

const VENDOR_CAP: u8 = 0x09;
/// Offset of pci_cfg_data in the configuration access capability.
const CFG_DATA: u16 = 16;

const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;
const FAILED: u8 = 0x80;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// What a snapshot keeps of a virtio function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPciState<S> {
    config: ConfigState,
    msix: MsixState,
    registers: Registers,
    queues: Vec<QueueState>,
    device: S,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    config_vector: u16,
    queue_select: u16,
    status: u8,
    generation: u8,
    isr: u8,
}

impl Default for Registers {
    fn default() -> Self {
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            queue_select: 0,
            status: 0,
            generation: 0,
            isr: 0,
        }
    }
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D: VirtioDevice, M: GuestMemory> {
    device: D,
    mem: Arc<M>,
    irq: Arc<dyn IrqLine>,
    config: ConfigSpace,
    msix: Msix,
    cfg_access: u16,
    r: Registers,
    queues: Vec<VirtQueue>,
}

impl<D: VirtioDevice, M: GuestMemory + Send + Sync> VirtioPci<D, M> {
    /// `device` on the bus, with DMA into `mem`, INTA# on `irq` and messages
    /// to `msi`. Place its BAR with [`VirtioPci::config_mut`].
    ///
    /// # Errors
    /// [`ConfigError`] does not happen for the devices of this crate: the
    /// capabilities and the BAR fit.
    pub fn new(
        device: D,
        mem: Arc<M>,
        irq: Arc<dyn IrqLine>,
        msi: Arc<dyn MsiSink>,
    ) -> Result<Self, ConfigError> {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x1af4,
            // §4.1.2.1: non-transitional, revision 1
            device: 0x1040 + device.device_type(),
            revision: 1,
            class: device.class(),
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        });
        config.add_bar(BAR, BarKind::Mem64, BAR_LEN)?;
        config.set_interrupt(1, 0xff);
        let queues: Vec<_> = device.queue_sizes().into_iter().map(VirtQueue::new).collect();
        let vectors = (queues.len() + 1).min(MAX_VECTORS) as u16;
        let notify_len = queues.len() as u32 * NOTIFY_MULTIPLIER;
        let mut cap = |kind: u8, offset: u64, len: u32, more: &[u8], writable: &[u8]| {
            // struct virtio_pci_cap after its two header bytes
            let mut body = vec![(16 + more.len()) as u8, kind, BAR as u8, 0, 0, 0];
            body.extend((offset as u32).to_le_bytes());
            body.extend(len.to_le_bytes());
            body.extend(more);
            config.add_capability(VENDOR_CAP, &body, writable)
        };
        cap(1, COMMON, COMMON_LEN as u32, &[], &[])?;
        cap(2, NOTIFY, notify_len, &NOTIFY_MULTIPLIER.to_le_bytes(), &[])?;
        cap(3, ISR, 1, &[], &[])?;
        cap(4, DEVICE, 0x1000, &[], &[])?;
        let mut writable = [0xff; 18];
        writable[..2].fill(0); // length, type
        writable[3..6].fill(0); // id, padding
        let cfg_access = cap(5, 0, 0, &[0; 4], &writable)?;
        let msix = Msix::new(&mut config, vectors, BAR as u8, TABLE as u32, PBA as u32, msi)?;
        Ok(Self {
            device,
            mem,
            irq,
            config,
            msix,
            cfg_access: u16::from(cfg_access),
            r: Registers::default(),
            queues,
        })
    }

    /// The device behind the transport.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the transport. Call [`VirtioPci::kick`] after giving
    /// it something to do.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Configuration space, for the board to place the BAR and set the
    /// interrupt line before the function is plugged in.
    pub fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    /// Handles all queues and the device's host side: for a host thread that
    /// has input for the guest or room for its output.
    pub fn kick(&mut self) {
        if self.running() {
            self.run(None);
        }
    }

    /// Whether the driver or the device found something broken and the device
    /// waits for a reset.
    pub fn needs_reset(&self) -> bool {
        self.r.status & NEEDS_RESET != 0
    }

    fn offered(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_INDIRECT_DESC
    }

    fn running(&self) -> bool {
        self.r.status & (DRIVER_OK | NEEDS_RESET | FAILED) == DRIVER_OK
            && self.config.command() & command::BUS_MASTER != 0
    }

    fn run(&mut self, queue: Option<usize>) {
        let mem = Arc::clone(&self.mem);
        let mut queues = Queues { mem: &*mem, list: &mut self.queues, config_changed: false };
        let result = match queue {
            Some(q) => self.device.process(q, &mut queues),
            None => self.device.poll(&mut queues),
        };
        let config_changed = queues.config_changed;
        for q in 0..self.queues.len() {
            if self.queues[q].take_interrupt(&*mem) {
                let vector = self.queues[q].vector;
                self.interrupt(vector, ISR_QUEUE);
            }
        }
        if config_changed {
            self.config_interrupt();
        }
        if result.is_err() {
            self.fail();
        }
    }

    /// Something is broken beyond repair (*§2.1.2*).
    fn fail(&mut self) {
        self.r.status |= NEEDS_RESET;
        if self.r.status & DRIVER_OK != 0 {
            self.config_interrupt();
        }
    }

    fn config_interrupt(&mut self) {
        self.r.generation = self.r.generation.wrapping_add(1);
        self.interrupt(self.r.config_vector, ISR_CONFIG);
    }

    fn interrupt(&mut self, vector: u16, isr: u8) {
        if self.msix.enabled() {
            self.msix.notify(vector);
        } else {
            self.r.isr |= isr;
            self.update_intx();
        }
    }

    fn update_intx(&mut self) {
        let asserted = self.r.isr != 0 && !self.msix.enabled();
        self.config.set_intx_status(asserted);
        self.irq.set(asserted && self.config.command() & command::INTX_DISABLE == 0);
    }

    /// Status zero was written (*§2.4*).
    fn reset_device(&mut self) {
        self.device.reset();
        self.r = Registers::default();
        for q in &mut self.queues {
            q.reset();
        }
        self.msix.clear_pending();
        self.update_intx();
    }

    fn write_status(&mut self, v: u8) {
        if v == 0 {
            self.reset_device();
            return;
        }
        let mut new = v & !NEEDS_RESET & !self.r.status;
        if new & FEATURES_OK != 0 {
            let f = self.r.driver_features;
            if f & F_VERSION_1 == 0 || f & !self.offered() != 0 {
                new &= !FEATURES_OK;
            }
        }
        if (self.r.status | new) & FEATURES_OK == 0 {
            new &= !DRIVER_OK;
        }
        self.r.status |= new;
        if new & DRIVER_OK != 0 {
            self.device.activate(self.r.driver_features);
            self.kick();
        }
    }

    fn selected(&self) -> Option<&VirtQueue> {
        self.queues.get(usize::from(self.r.queue_select))
    }

    /// struct virtio_pci_common_cfg (*§4.1.4.3*).
    fn common(&self) -> [u8; COMMON_LEN as usize] {
        let mut image = [0; COMMON_LEN as usize];
        let mut put = |at: usize, v: u64, len: usize| {
            image[at..at + len].copy_from_slice(&v.to_le_bytes()[..len]);
        };
        let half = |features: u64, select: u32| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        let r = &self.r;
        put(0x00, r.device_feature_select.into(), 4);
        put(0x04, half(self.offered(), r.device_feature_select), 4);
        put(0x08, r.driver_feature_select.into(), 4);
        put(0x0c, half(r.driver_features, r.driver_feature_select), 4);
        put(0x10, r.config_vector.into(), 2);
        put(0x12, self.queues.len() as u64, 2);
        put(0x14, r.status.into(), 1);
        put(0x15, r.generation.into(), 1);
        put(0x16, r.queue_select.into(), 2);
        // a queue that is not there has size 0
        if let Some(q) = self.selected() {
            put(0x18, q.size.into(), 2);
            put(0x1a, q.vector.into(), 2);
            put(0x1c, q.enabled().into(), 2);
            put(0x1e, r.queue_select.into(), 2);
            put(0x20, q.desc, 8);
            put(0x28, q.avail, 8);
            put(0x30, q.used, 8);
        }
        image
    }

    fn write_common(&mut self, offset: u64, data: &[u8]) {
        let v = value(data);
        let vectors = self.msix.vectors();
        let vector = |v: u64| if v < u64::from(vectors) { v as u16 } else { NO_VECTOR };
        match (offset, data.len()) {
            (0x00, 4) => self.r.device_feature_select = v as u32,
            (0x08, 4) => self.r.driver_feature_select = v as u32,
            (0x0c, 4) if self.r.status & FEATURES_OK == 0 => {
                let f = &mut self.r.driver_features;
                match self.r.driver_feature_select {
                    0 => *f = *f & !0xffff_ffff | v,
                    1 => *f = *f & 0xffff_ffff | v << 32,
                    _ => {}
                }
            }
            (0x10, 2) => self.r.config_vector = vector(v),
            (0x14, 1) => self.write_status(v as u8),
            (0x16, 2) => self.r.queue_select = v as u16,
            (0x1c, 2) => self.enable_queue(v),
            (0x18..0x38, len) => {
                let select = usize::from(self.r.queue_select);
                let Some(q) = self.queues.get_mut(select) else {
                    return;
                };
                if offset == 0x1a && len == 2 {
                    q.vector = vector(v);
                    return;
                }
                // rings do not move under an enabled queue
                if q.enabled() {
                    return;
                }
                let set = |a: &mut u64| match (offset & 4, len) {
                    (0, 8) => *a = v,
                    (0, 4) => *a = *a & !0xffff_ffff | v,
                    (4, 4) => *a = *a & 0xffff_ffff | v << 32,
                    _ => {}
                };
                match offset {
                    0x18 if len == 2 => q.size = v as u16,
                    0x20 | 0x24 => set(&mut q.desc),
                    0x28 | 0x2c => set(&mut q.avail),
                    0x30 | 0x34 => set(&mut q.used),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn enable_queue(&mut self, v: u64) {
        // writing 0 is forbidden (§4.1.4.3.2); a queue is left by a reset
        if v != 1 {
            return;
        }
        let select = usize::from(self.r.queue_select);
        if let Some(q) = self.queues.get_mut(select)
            && !q.enabled()
            && !q.enable(&*self.mem)
        {
            self.fail();
        }
    }

    fn notify(&mut self, queue: u64) {
        if let Ok(q) = usize::try_from(queue)
            && q < self.queues.len()
            && self.running()
        {
            self.run(Some(q));
        }
    }

    /// An access through the configuration access capability (*§4.1.4.9*):
    /// BAR offset and length, if the driver programmed a valid one.
    fn cfg_window(&self) -> Option<(u64, usize)> {
        let bar = self.config.word(self.cfg_access + 4) as u8;
        let offset = u64::from(self.config.dword(self.cfg_access + 8));
        let len = self.config.dword(self.cfg_access + 12);
        (usize::from(bar) == BAR
            && matches!(len, 1 | 2 | 4)
            && offset.is_multiple_of(u64::from(len))
            && offset < BAR_LEN)
            .then_some((offset, len as usize))
    }

    fn touches_cfg_data(&self, at: u16, len: usize) -> bool {
        let data = u32::from(self.cfg_access + CFG_DATA);
        u32::from(at) < data + 4 && u32::from(at) + len as u32 > data
    }
}

impl<D: VirtioDevice, M: GuestMemory + Send + Sync> PciFunction for VirtioPci<D, M> {
    fn config_read(&mut self, at: u16, data: &mut [u8]) {
        if self.touches_cfg_data(at, data.len())
            && let Some((offset, len)) = self.cfg_window()
        {
            let mut window = [0; 4];
            self.read(offset, &mut window[..len]);
            self.config.write(self.cfg_access + CFG_DATA, &window[..len]);
        }
        self.config.read(at, data);
    }

    fn config_write(&mut self, at: u16, data: &[u8]) {
        let could_dma = self.config.command() & command::BUS_MASTER != 0;
        self.config.write(at, data);
        self.msix.sync(&self.config);
        self.update_intx();
        if self.touches_cfg_data(at, data.len())
            && let Some((offset, len)) = self.cfg_window()
        {
            let mut window = [0; 4];
            self.config.read(self.cfg_access + CFG_DATA, &mut window[..len]);
            self.write(offset, &window[..len]);
        }
        // notifications that came without bus mastering are made up for
        if !could_dma {
            self.kick();
        }
    }

    fn bars(&self) -> Vec<BarRange> {
        self.config.ranges()
    }

    fn bar_read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        if bar == BAR {
            self.read(offset, data);
        } else {
            data.fill(0xff);
        }
    }

    fn bar_write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar == BAR {
            self.write(offset, data);
        }
    }
}

/// As a register file: the BAR.
impl<D: VirtioDevice, M: GuestMemory + Send + Sync> Device for VirtioPci<D, M> {
    type State = VirtioPciState<D::State>;

    fn read(&mut self, offset: u64, data: &mut [u8]) {
        match offset {
            ISR if !data.is_empty() => {
                data.fill(0);
                data[0] = std::mem::take(&mut self.r.isr);
                self.update_intx();
            }
            COMMON..ISR => read_image(&self.common(), offset, data, 0xff),
            DEVICE..NOTIFY => self.device.read_config(offset - DEVICE, data),
            TABLE..PBA => self.msix.read_table(offset - TABLE, data),
            PBA..BAR_LEN => self.msix.read_pba(offset - PBA, data),
            _ => data.fill(0xff),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match offset {
            _ if data.is_empty() => {}
            COMMON..ISR => self.write_common(offset, data),
            DEVICE..NOTIFY => self.device.write_config(offset - DEVICE, data),
            NOTIFY..TABLE => self.notify((offset - NOTIFY) / u64::from(NOTIFY_MULTIPLIER)),
            TABLE..PBA => self.msix.write_table(offset - TABLE, data),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.msix.reset();
        self.msix.sync(&self.config);
        self.reset_device();
        self.device.power_cycle();
    }

    fn save(&self) -> Self::State {
        VirtioPciState {
            config: self.config.save(),
            msix: self.msix.save(),
            registers: self.r.clone(),
            queues: self.queues.iter().map(VirtQueue::save).collect(),
            device: self.device.save(),
        }
    }

    fn load(&mut self, state: Self::State) -> Result<(), StateError> {
        let sizes = self.device.queue_sizes();
        if state.queues.len() != sizes.len() {
            return Err(StateError::new("virtio", "queues", "are of another number"));
        }
        self.msix.check(&state.msix)?;
        let mut config = self.config.clone();
        config.load(state.config)?;
        let queues = sizes
            .into_iter()
            .zip(&state.queues)
            .map(|(max, q)| VirtQueue::restore(max, q, &*self.mem))
            .collect::<Result<_, _>>()?;
        // the device comes last of what can fail
        self.device.load(state.device)?;
        self.config = config;
        self.queues = queues;
        self.r = state.registers;
        if self.r.status & DRIVER_OK != 0 {
            self.device.activate(self.r.driver_features);
        }
        self.msix.load(state.msix, &self.config)?;
        self.update_intx();
        Ok(())
    }
}
