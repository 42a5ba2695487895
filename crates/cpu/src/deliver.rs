//! Delivery of exceptions and interrupts.
use crate::Cpu;
use arch::Exception;
impl Cpu {
    pub(crate) fn raise(&mut self, exception: Exception) {
        panic!("{exception:?} at {:x}", self.s.rip)
    }
    pub(crate) fn deliver_nmi(&mut self) {}
    pub(crate) fn deliver_interrupt(&mut self, _vector: u8) {}
    pub(crate) fn acknowledge_interrupt(&mut self) -> Option<u8> {
        None
    }
    pub(crate) fn init(&mut self) {}
    pub(crate) fn start_up(&mut self, _vector: u8) {}
    pub(crate) fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.bus.mmio_read(self.id, gpa, data)
    }
    pub(crate) fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        self.bus.mmio_write(self.id, gpa, data)
    }
}
