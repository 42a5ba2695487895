//! What a processor asks of the board.

/// The board, as processors see it. Called from every processor's thread.
pub trait Bus: Send + Sync {
    /// Reads device memory at a physical address; 1, 2, 4 or 8 aligned bytes.
    /// Addresses without a device read as ones.
    fn mmio_read(&self, cpu: usize, gpa: u64, data: &mut [u8]);
    /// Writes device memory; ignored where no device is.
    fn mmio_write(&self, cpu: usize, gpa: u64, data: &[u8]);
    /// Reads an I/O port; 1, 2 or 4 bytes. Ports without a device read as ones.
    fn port_read(&self, cpu: usize, port: u16, data: &mut [u8]);
    /// Writes an I/O port.
    fn port_write(&self, cpu: usize, port: u16, data: &[u8]);
    /// The local APIC of `cpu` ended service of `vector`, which was level-triggered.
    fn eoi(&self, cpu: usize, vector: u8);
    /// Acknowledges the external interrupt controller (ExtINT): the vector.
    fn ext_int_ack(&self) -> u8;
    /// Guest time-stamp counter of the machine, before per-processor offsets.
    fn tsc(&self) -> u64;
}

/// A bus without devices, for tests: reads give ones.
#[derive(Debug, Default)]
pub struct NoBus {
    ticks: std::sync::atomic::AtomicU64,
}

impl Bus for NoBus {
    fn mmio_read(&self, _cpu: usize, _gpa: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _cpu: usize, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _cpu: usize, _port: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, _cpu: usize, _port: u16, _data: &[u8]) {}
    fn eoi(&self, _cpu: usize, _vector: u8) {}
    fn ext_int_ack(&self) -> u8 {
        0xff
    }
    fn tsc(&self) -> u64 {
        self.ticks.fetch_add(100, std::sync::atomic::Ordering::Relaxed)
    }
}
