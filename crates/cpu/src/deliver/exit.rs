//! Asynchronous enclave exit: what an event does first if it finds the
//! processor in enclave mode (*SDM vol. 3D, "Enclave Exiting Events"*). The
//! event is then delivered as if it had happened at the AEP, outside the enclave.

use arch::{Exception, Vector};
use sgx::aex::{self, Event, Kind};

use crate::Cpu;
use crate::sgx_port::CpuPort;

impl Cpu {
    /// Leaves the enclave, if the processor is in one, for an exception;
    /// `image` is the RFLAGS image that its handler would find outside one.
    /// Of a page fault's address only the page is left.
    pub(super) fn exit_for_exception(&mut self, exception: Exception, image: u64) {
        // INT3 inside an enclave is a fault that the instruction asked for.
        let kind = if exception.vector == Vector::Breakpoint { Kind::Software } else { Kind::Hardware };
        let event = Event {
            vector: exception.vector as u8,
            kind,
            error: exception.error,
            address: self.fault_addr,
            rip: self.s.rip,
            rflags: image,
        };
        self.leave_enclave(&event);
    }

    /// The same for an interrupt, an NMI (their vector) or INIT.
    pub(crate) fn exit_for_interrupt(&mut self, vector: u8) {
        if self.s.enclave.is_some() {
            let (rip, rflags) = (self.s.rip, self.s.rflags());
            self.leave_enclave(&Event { vector, kind: Kind::Interrupt, error: 0, address: 0, rip, rflags });
        }
    }

    fn leave_enclave(&mut self, event: &Event) {
        let Some(thread) = &self.s.enclave else { return };
        let pages: Vec<_> = thread.ssa.iter().flatten().copied().collect();
        if let Some(package) = self.sgx.as_ref().map(|sgx| sgx.package.clone()) {
            let rip = event.rip;
            let outcome = aex::exit(&mut CpuPort::new(self, rip, rip), &package, event);
            self.fault_addr = outcome.address;
        }
        // Whatever became of the frame, nothing goes on in the enclave.
        if self.s.enclave.take().is_some() {
            self.select_mode();
        }
        pages.into_iter().for_each(|page| self.epc_written(page));
        self.scrub();
    }
}
