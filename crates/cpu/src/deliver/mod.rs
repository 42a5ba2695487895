//! Delivery of exceptions and interrupts (*SDM vol. 3A chapter 6*).
//!
//! * [`gate`]: IA-32e mode; [`legacy`]: protected and real mode
//! * [`reset`]: RESET, INIT and start-up
//! * [`exit`]: what an enclave does before either
//! * [`interrupt`]: the local APIC and the processor that belongs to it
//!
//! Delivery either happens whole or gives a second exception and has changed
//! nothing; [`Cpu::raise`] then makes of both what table 6-5 says.

mod exit;
mod gate;
mod interrupt;
mod legacy;
pub(crate) mod machine_check;
mod reset;
#[cfg(test)]
mod tests;

use arch::regs::{dr6, dr7, rflags};
use arch::{Exception, Vector};

use crate::{Activity, Cpu};

/// Where an event comes from: whether the gate's DPL is looked at, and the
/// EXT bit of error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// An exception, an interrupt or INT1: EXT = 1, no look at DPL.
    Hardware,
    /// INT n, INT3 or INTO: EXT = 0, DPL ≥ CPL.
    Software,
}

/// Something to deliver through the IDT.
#[derive(Clone, Copy, Debug)]
struct Event {
    vector: u8,
    error: Option<u32>,
    source: Source,
    /// RIP to be pushed.
    rip: u64,
    /// RFLAGS to be pushed.
    rflags: u64,
}

/// Classes of *SDM vol. 3A table 6-4*.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

fn class(vector: Vector) -> Class {
    match vector {
        Vector::PageFault => Class::PageFault,
        Vector::DoubleFault => Class::DoubleFault,
        vector if vector.is_contributory() => Class::Contributory,
        _ => Class::Benign,
    }
}

/// What to do when delivering one exception raises another (*table 6-5*).
fn combine(first: Class, second: Exception) -> Option<Exception> {
    match (first, class(second.vector)) {
        (Class::DoubleFault, _) => None,
        (Class::Contributory, Class::Contributory)
        | (Class::PageFault, Class::Contributory | Class::PageFault) => {
            Some(Exception::new(Vector::DoubleFault, 0))
        }
        _ => Some(second),
    }
}

/// True for exceptions that push RF = 1 (*SDM vol. 3B §17.3.1.1*): faults,
/// other than an instruction breakpoint.
fn pushes_resume_flag(vector: Vector, pending_db: u64) -> bool {
    match vector {
        Vector::Debug => pending_db & dr6::BD != 0,
        Vector::Nmi | Vector::Breakpoint | Vector::Overflow | Vector::DoubleFault | Vector::MachineCheck => {
            false
        }
        _ => true,
    }
}

impl Cpu {
    /// Raises an exception at [`crate::State::rip`]; a triple fault ends in
    /// [`Activity::Shutdown`].
    pub(crate) fn raise(&mut self, exception: Exception) {
        if exception.vector != Vector::Debug {
            // Breakpoints of an instruction that did not complete are not reported.
            self.pending_db = 0;
        }
        let mut now = exception;
        loop {
            if let Some(count) = self.exceptions.get_mut(now.vector as usize) {
                *count += 1;
            }
            let before = class(now.vector);
            let Err(next) = self.deliver_exception(now) else { return };
            if next.vector == Vector::PageFault {
                // CR2 is of the last page fault, also if it becomes a double
                // fault: handlers of stack overflows go by it.
                self.s.cr2 = self.fault_addr;
            }
            match combine(before, next) {
                Some(exception) => now = exception,
                None => {
                    self.activity = Activity::Shutdown;
                    return;
                }
            }
        }
    }

    fn deliver_exception(&mut self, exception: Exception) -> Result<(), Exception> {
        let vector = exception.vector;
        let mut image = self.s.rflags();
        if pushes_resume_flag(vector, self.pending_db) {
            image |= rflags::RF;
        }
        if self.s.enclave.is_some() {
            // The SSA frame gets the image; the handler's frame what the exit leaves.
            self.exit_for_exception(exception, image);
            image = self.s.rflags();
        }
        match vector {
            Vector::PageFault => self.s.cr2 = self.fault_addr,
            Vector::Debug => {
                // DR6.B0–B3 are replaced, the rest accumulates (SDM vol. 3B §17.2.3).
                self.s.dr6 = self.s.dr6 & !0xf | self.pending_db;
                self.pending_db = 0;
                self.s.dr7 &= !dr7::GD;
            }
            _ => {}
        }
        let error = vector.has_error_code().then_some(exception.error);
        self.deliver(Event {
            vector: vector as u8,
            error,
            source: Source::Hardware,
            rip: self.s.rip,
            rflags: image,
        })
    }

    /// Delivers an event or gives the exception that delivering it raised.
    fn deliver(&mut self, event: Event) -> Result<(), Exception> {
        let result = if !self.protected() {
            self.deliver_real(event)
        } else if self.ia32e() {
            self.deliver_long(event)
        } else {
            self.deliver_protected(event)
        };
        match result {
            Ok(()) => {
                self.shadow = false;
                Ok(())
            }
            Err(mut fault) => {
                let selector_code = matches!(
                    fault.vector,
                    Vector::InvalidTss
                        | Vector::SegmentNotPresent
                        | Vector::StackFault
                        | Vector::GeneralProtection
                );
                if event.source == Source::Hardware && selector_code {
                    fault.error |= 1; // EXT
                }
                Err(fault)
            }
        }
    }

    fn deliver_external(&mut self, vector: u8) {
        self.exit_for_interrupt(vector);
        let event =
            Event { vector, error: None, source: Source::Hardware, rip: self.s.rip, rflags: self.s.rflags() };
        if let Err(fault) = self.deliver(event) {
            self.raise(fault);
        }
    }

    /// Delivers a non-maskable interrupt; NMIs are then blocked until IRET.
    pub(crate) fn deliver_nmi(&mut self) {
        self.nmi_blocked = true;
        self.deliver_external(Vector::Nmi as u8);
    }

    /// Delivers an external interrupt.
    pub(crate) fn deliver_interrupt(&mut self, vector: u8) {
        self.deliver_external(vector);
    }

    /// INT n, INT3 and INTO: delivers `vector`, returning to `next`. On `Err`
    /// nothing has changed, and the instruction faults.
    pub(crate) fn software_interrupt(&mut self, vector: u8, next: u64) -> Result<(), Exception> {
        let (error, rflags) = (None, self.s.rflags());
        self.deliver(Event { vector, error, source: Source::Software, rip: next, rflags })?;
        if vector == Vector::Breakpoint as u8 || vector == Vector::Overflow as u8 {
            self.exceptions[usize::from(vector)] += 1;
        }
        Ok(())
    }

    /// INT1: a `#DB` that leaves DR6 as it is, returning to `next`.
    pub(crate) fn debug_interrupt(&mut self, next: u64) -> Result<(), Exception> {
        let (error, rflags) = (None, self.s.rflags());
        self.deliver(Event { vector: 1, error, source: Source::Hardware, rip: next, rflags })?;
        self.s.dr7 &= !dr7::GD;
        self.exceptions[1] += 1;
        Ok(())
    }

    /// RFLAGS on entry of a handler: TF, NT, RF and VM clear, IF if the gate says so.
    fn enter_handler_flags(&mut self, clear_if: bool) {
        self.s.rflags &= !(rflags::TF | rflags::NT | rflags::RF | rflags::VM);
        if clear_if {
            self.s.rflags &= !rflags::IF;
        }
    }
}
