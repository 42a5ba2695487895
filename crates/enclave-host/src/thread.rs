//! One thread of an enclave: a TCS, and the memory for its messages.

use enclave_abi::call::{Command, EXCHANGE_SIZE, Exchange, FAILED, Outcome};
use sgx_abi::PAGE_SIZE;
use zerocopy::{FromBytes, IntoBytes};

use crate::vdso::{self, EENTER, EEXIT, ERESUME, Run};
use crate::{Error, Fault};

const HEAD: usize = EXCHANGE_SIZE as usize;

/// What the enclave wants after it has left.
pub(crate) enum Left {
    /// Nothing: this is the call's result.
    Done(Vec<u8>),
    /// A call of this function.
    Ocall(u32, Vec<u8>),
}

/// A TCS with what belongs to it.
pub(crate) struct Thread {
    run: Box<Run>,
    function: u64,
    /// For calls and returns.
    exchange: Memory,
    /// For exceptions: the other may be in use when one is raised.
    exception: Memory,
}

impl Thread {
    /// The thread of the TCS at this address.
    pub(crate) fn new(tcs: u64, function: u64, message_limit: usize) -> Self {
        let (exchange, exception) = (Memory::new(message_limit), Memory::new(PAGE_SIZE));
        Self { run: Box::new(Run::new(tcs)), function, exchange, exception }
    }

    /// Calls a function of the enclave.
    ///
    /// # Safety
    /// As of [`vdso::enter`], with the run of this thread.
    pub(crate) unsafe fn call(&mut self, function: u32, arguments: &[u8]) -> Result<Left, Error> {
        self.exchange.put(0, function, arguments)?;
        // SAFETY: the caller's contract.
        unsafe { self.proceed(Command::Call) }
    }

    /// Returns from the call that the enclave has made; `None` if it failed.
    ///
    /// # Safety
    /// As of [`vdso::enter`], with the run of this thread.
    pub(crate) unsafe fn give_back(&mut self, result: Option<&[u8]>) -> Result<Left, Error> {
        let put = result.map(|result| self.exchange.put(0, 0, result));
        if !matches!(put, Some(Ok(()))) {
            self.exchange.put(FAILED, 0, &[])?;
        }
        // SAFETY: the caller's contract.
        unsafe { self.proceed(Command::Return) }
    }

    /// Enters, and has exceptions handled until the enclave leaves for another reason.
    unsafe fn proceed(&mut self, command: Command) -> Result<Left, Error> {
        // SAFETY: the caller's contract, here and below.
        unsafe { self.enter(EENTER, command) };
        while self.run.function != EEXIT {
            let fault = self.fault();
            if fault.function == EENTER {
                return Err(not_entered(fault));
            }
            self.exception.put(0, 0, &[])?;
            // SAFETY: as above.
            unsafe { self.enter(EENTER, Command::Exception) };
            if self.run.function != EEXIT {
                let second = self.fault();
                return Err(match second.function {
                    EENTER => not_entered(second),
                    _ => Error::Fault { fault: second, reason: None },
                });
            }
            match self.exception.take()? {
                // SAFETY: as above.
                (Some(Outcome::Resume), ..) => unsafe { self.enter(ERESUME, command) },
                (Some(Outcome::Aborted), _, message) => return Err(Error::Aborted(text(&message))),
                (_, _, message) => return Err(Error::Fault { fault, reason: text(&message) }),
            }
        }
        let (outcome, function, message) = self.exchange.take()?;
        Err(match outcome {
            Some(Outcome::Done) => return Ok(Left::Done(message)),
            Some(Outcome::Ocall) => return Ok(Left::Ocall(function, message)),
            Some(Outcome::Aborted) => Error::Aborted(text(&message)),
            Some(Outcome::NoFunction) => Error::NoFunction,
            Some(Outcome::BadArguments) => Error::BadArguments,
            Some(Outcome::TooLarge) => Error::TooLarge,
            Some(Outcome::NoMemory) => Error::NoMemory,
            Some(Outcome::Locked) => Error::Locked,
            Some(Outcome::WrongKey) => Error::WrongKey,
            Some(Outcome::Damaged) => Error::Damaged,
            Some(Outcome::NotRestricted) => Error::NotRestricted,
            Some(Outcome::AlreadyUnlocked) => Error::AlreadyUnlocked,
            Some(Outcome::Resume | Outcome::Unhandled) | None => Error::Protocol,
        })
    }

    unsafe fn enter(&mut self, leaf: u32, command: Command) {
        let memory = if command == Command::Exception { &mut self.exception } else { &mut self.exchange };
        let (exchange, capacity) = (memory.0.as_mut_ptr() as u64, memory.capacity() as u64);
        // SAFETY: the caller's contract; the memory is this thread's alone.
        unsafe { vdso::enter(self.function, &mut self.run, leaf, command as u64, exchange, capacity) };
    }

    fn fault(&self) -> Fault {
        Fault {
            function: self.run.function,
            vector: self.run.exception_vector,
            error_code: self.run.exception_error_code,
            address: self.run.exception_addr,
        }
    }
}

/// EENTER itself has faulted: its page is not there any more, but for a mistake of ours.
fn not_entered(fault: Fault) -> Error {
    if fault.vector == Fault::PAGE {
        Error::Lost { reloaded: false }
    } else {
        Error::Fault { fault, reason: None }
    }
}

fn text(message: &[u8]) -> Option<String> {
    (!message.is_empty()).then(|| String::from_utf8_lossy(message).into_owned())
}

/// An exchange and the room for a message.
struct Memory(Vec<u64>);

impl Memory {
    fn new(message_limit: usize) -> Self {
        Self(vec![0; HEAD / 8 + message_limit.div_ceil(8)])
    }

    fn capacity(&self) -> usize {
        self.0.len() * 8 - HEAD
    }

    fn put(&mut self, code: u32, function: u32, message: &[u8]) -> Result<(), Error> {
        if message.len() > self.capacity() {
            return Err(Error::TooLarge);
        }
        let head = Exchange { code, function, length: message.len() as u64, ..Exchange::default() };
        let bytes = self.0.as_mut_bytes();
        bytes[..HEAD].copy_from_slice(head.as_bytes());
        bytes[HEAD..][..message.len()].copy_from_slice(message);
        Ok(())
    }

    fn take(&self) -> Result<(Option<Outcome>, u32, Vec<u8>), Error> {
        let bytes = self.0.as_bytes();
        let (head, message) = Exchange::read_from_prefix(bytes).map_err(|_| Error::Protocol)?;
        let outcome = Outcome::from_code(head.code);
        // what was not written is still the host's own
        let len = if outcome.is_some() { head.length } else { 0 };
        let message = usize::try_from(len).ok().and_then(|len| message.get(..len)).ok_or(Error::Protocol)?;
        Ok((outcome, head.function, message.to_vec()))
    }
}
