//! Executing a leaf: its context, its result, and what the two instructions
//! do with either.

use arch::Exception;
use arch::regs::{gpr, rflags};
use sgx_abi::Status;

use crate::epcm::{Entry, EpcPage};
use crate::package::Package;
use crate::port::{Access, Port};
use crate::rule::{Outcome, Rule, Stop};

/// How a leaf completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Without a report; RAX and the flags stay.
    Quiet,
    /// RAX = 0; ZF, CF, PF, AF, OF and SF clear.
    Success,
    /// RAX = a code that is no error of the leaf's rules, ZF as given (EWB, EBLOCK
    /// report some states with CF or ZF): `(code, flags to set)`.
    Code(Status, u64),
    /// Execution goes on elsewhere; the leaf has set everything.
    Jump,
}

/// The context in which a leaf runs.
pub struct Leaf<'a> {
    /// The logical processor.
    pub port: &'a mut dyn Port,
    /// What all processors share.
    pub package: &'a Package,
}

/// Result of a leaf.
pub type Ran = Result<Done, Stop>;

/// Flags that a reporting leaf clears.
const REPORTED: u64 = rflags::ZF | rflags::CF | rflags::PF | rflags::AF | rflags::OF | rflags::SF;

impl Leaf<'_> {
    /// RAX.
    pub fn rax(&self) -> u64 {
        self.port.gpr(gpr::RAX)
    }
    /// RBX.
    pub fn rbx(&self) -> u64 {
        self.port.gpr(gpr::RBX)
    }
    /// RCX.
    pub fn rcx(&self) -> u64 {
        self.port.gpr(gpr::RCX)
    }
    /// RDX.
    pub fn rdx(&self) -> u64 {
        self.port.gpr(gpr::RDX)
    }

    /// Reads a structure from memory at linear address `la`.
    pub fn load<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&mut self, la: u64) -> Result<T, Stop> {
        let mut value = T::new_zeroed();
        self.port.read(la, value.as_mut_bytes())?;
        Ok(value)
    }

    /// The EPC page a linear address leads to, `None` if it is not in the EPC.
    /// Paging faults as usual.
    pub fn resolve(&mut self, la: u64, access: Access) -> Result<Option<EpcPage>, Stop> {
        Ok(self.port.resolve(la, access)?)
    }

    /// Entry of an EPC page.
    pub fn entry(&self, page: EpcPage) -> Entry {
        self.package.epcm.get(page)
    }

    /// Carries a leaf's result out, and records it: flags and RAX, or the exception.
    pub fn finish(&mut self, user: bool, ran: Ran) -> Result<Done, Exception> {
        let done = match ran {
            Ok(done) => done,
            Err(Stop::Fault(exception)) => return Err(exception),
            // Memory of the EPC that does not verify: nothing of it is there.
            Err(Stop::Lost) => {
                self.package.lose();
                return Err(Exception::GP0);
            }
            Err(Stop::Refused(rule, la)) => match rule.outcome {
                Outcome::Gp => return Err(Exception::GP0),
                Outcome::Ud => return Err(Exception::UD),
                Outcome::Pf => return Err(self.rule_page_fault(user, la)),
                Outcome::Status(status) => Done::Code(status, rflags::ZF),
                Outcome::Carry(status) => Done::Code(status, rflags::CF),
            },
        };
        match done {
            Done::Success => self.report(0, 0),
            Done::Code(status, flags) => self.report(status.rax(), flags),
            Done::Quiet | Done::Jump => {}
        }
        Ok(done)
    }

    fn report(&mut self, rax: u64, flags: u64) {
        self.port.set_gpr(gpr::RAX, rax);
        let rflags = self.port.rflags() & !REPORTED | flags & REPORTED;
        self.port.set_rflags(rflags);
    }

    /// A rule about an operand's page: `#PF` at the operand, with the SGX bit
    /// (*SDM vol. 3D, "Page Fault Error Code"*) if paging led to the EPC.
    fn rule_page_fault(&mut self, user: bool, la: u64) -> Exception {
        let _ = user;
        let epc = matches!(self.port.resolve(la, Access::Read), Ok(Some(_)));
        self.port.page_fault(la, Access::Read, epc)
    }
}

/// The rule that stopped a leaf, if one did.
pub fn refused(ran: &Ran) -> Option<&'static Rule> {
    match ran {
        Err(Stop::Refused(rule, _)) => Some(rule),
        _ => None,
    }
}
