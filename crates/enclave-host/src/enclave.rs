//! An enclave and its threads.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use enclave_abi::call::{Configuration, function};
use enclave_interface::{Caller, DispatchError};
use sgx_abi::AttributeFlags;
use zerocopy::IntoBytes;

use crate::driver::{self, Driver};
use crate::files::Files;
use crate::keys::{self, KeySource};
use crate::mailbox::{self, Mailboxes};
use crate::park::Park;
use crate::thread::{Left, Thread};
use crate::{Error, LoadError, vdso};

/// The host's functions: number and encoded arguments to an encoded result.
type Ocalls = dyn Fn(u32, &[u8]) -> Result<Vec<u8>, DispatchError> + Send + Sync;

/// How an enclave is loaded and served.
pub struct Options {
    message_limit: usize,
    allow_debug: bool,
    signer: Option<[u8; 32]>,
    keys: Option<Box<dyn KeySource>>,
    ocalls: Box<Ocalls>,
    switchless: usize,
    print: Box<dyn Fn(&str) + Send + Sync>,
    lost: Option<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// Production enclaves only, of any signer; messages of up to 1 MiB; no functions for the enclave to
    /// call; an enclave that is lost with the EPC is not loaded again.
    pub fn new() -> Self {
        Self {
            message_limit: 1 << 20,
            allow_debug: false,
            signer: None,
            keys: None,
            ocalls: Box::new(|_, _| Err(DispatchError::NoFunction)),
            switchless: 0,
            print: Box::new(|text| println!("{text}")),
            lost: None,
        }
    }

    /// Most bytes of arguments or results. Each thread has memory for that.
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// Loads debug enclaves too, from which a debugger reads every secret.
    pub fn allow_debug(mut self, allow: bool) -> Self {
        self.allow_debug = allow;
        self
    }

    /// Loads enclaves of this signer alone (MRSIGNER, as `kluis enclave inspect` tells it). It
    /// keeps a program from calling what it was not made for; what an enclave is, whoever
    /// trusts it learns from its report or quote.
    pub fn signer(mut self, mrsigner: [u8; 32]) -> Self {
        self.signer = Some(mrsigner);
        self
    }

    /// Where the key is from if the enclave is encrypted: e.g. [`crate::KeyFile`]. It is asked
    /// each time that the enclave is loaded.
    pub fn keys(mut self, keys: impl KeySource + 'static) -> Self {
        self.keys = Some(Box::new(keys));
        self
    }

    /// Functions that the enclave may call: `|function, arguments| host.dispatch(function,
    /// arguments)`, with the `dispatch` of an interface's trait. They are called on the
    /// thread that has called the enclave, and may call it themselves.
    pub fn ocalls(
        mut self,
        ocalls: impl Fn(u32, &[u8]) -> Result<Vec<u8>, DispatchError> + Send + Sync + 'static,
    ) -> Self {
        self.ocalls = Box::new(ocalls);
        self
    }

    /// Threads, at most 64, that wait for calls which the enclave makes without leaving
    /// (`enclave::host::Switchless`). Each is at work for some milliseconds after a call.
    pub fn switchless(mut self, threads: usize) -> Self {
        self.switchless = threads;
        self
    }

    /// Where the lines go that a debug enclave prints; else to standard output.
    pub fn print(mut self, print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.print = Box::new(print);
        self
    }

    /// Called once when the enclave was lost with the EPC; `true` has it loaded again. The
    /// call that found the loss still fails: what the enclave knew is gone. The function must
    /// not call the enclave itself.
    pub fn on_loss(mut self, decide: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.lost = Some(Box::new(decide));
        self
    }

    /// Calls a function of the program's; `None` if there is none.
    pub(crate) fn serve(&self, function: u32, arguments: &[u8]) -> Option<Vec<u8>> {
        if function >= function::RESERVED {
            return None;
        }
        (self.ocalls)(function, arguments).ok()
    }
}

/// A loaded enclave. Calls come from any number of threads; each takes one of the
/// enclave's own for its time, and waits for one if need be.
pub struct Enclave {
    files: Files,
    options: Arc<Options>,
    current: Mutex<Arc<Loaded>>,
}

/// One life of an enclave.
struct Loaded {
    driver: Driver,
    idle: Mutex<Idle>,
    freed: Condvar,
    park: Park,
    /// Memory that the enclave knows of, and threads that watch it.
    _mailboxes: Mailboxes,
}

/// Threads that are in nobody's use.
struct Idle {
    threads: Vec<Thread>,
    /// Those that exist: not those that were lost to a fault.
    alive: usize,
}

thread_local! {
    /// Calls that this thread is in the midst of.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Does work of a thread that must not wait for the enclave: the enclave waits for it.
pub(crate) fn in_a_call<T>(work: impl FnOnce() -> T) -> T {
    /// Counts back, also when a function of the program's panics.
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _back = Back;
    work()
}

/// Stands for a thread during a call.
struct Lent<'a> {
    loaded: &'a Loaded,
    /// The thread, if it can be lent again: not if it was left in the midst of a call.
    back: Option<Thread>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut idle = lock(&self.loaded.idle);
        match self.back.take() {
            Some(thread) => idle.threads.push(thread),
            None => idle.alive -= 1,
        }
        self.loaded.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Enclave {
    /// Loads and initialises an enclave.
    ///
    /// # Errors
    /// It is a debug enclave or another signer's, and that is not allowed; kernel or processor
    /// refuse it; or it does not take its first call.
    pub fn load(files: Files, options: Options) -> Result<Self, LoadError> {
        if let Some(expected) = options.signer
            && files.mrsigner() != expected
        {
            return Err(LoadError::Signer { found: files.mrsigner(), expected });
        }
        let options = Arc::new(options);
        let loaded = Loaded::new(&files, &options)?;
        Ok(Self { files, options, current: Mutex::new(Arc::new(loaded)) })
    }

    /// Loads the enclave again, afresh, e.g. after it has ended. Calls that are in the old
    /// one come to their end there.
    ///
    /// # Errors
    /// As of [`Enclave::load`]; the old one then stays.
    pub fn reload(&self) -> Result<(), LoadError> {
        let loaded = Loaded::new(&self.files, &self.options)?;
        *lock(&self.current) = Arc::new(loaded);
        Ok(())
    }

    /// Address at which the enclave lies now.
    pub fn base(&self) -> u64 {
        lock(&self.current).driver.base()
    }

    fn lost(&self, loaded: &Arc<Loaded>) -> Error {
        let mut current = lock(&self.current);
        // another thread may have found the loss before
        let mut reloaded = !Arc::ptr_eq(&current, loaded);
        if !reloaded
            && self.options.lost.as_ref().is_some_and(|decide| decide())
            && let Ok(new) = Loaded::new(&self.files, &self.options)
        {
            *current = Arc::new(new);
            reloaded = true;
        }
        Error::Lost { reloaded }
    }
}

impl Caller for Enclave {
    type Error = Error;

    fn call(&self, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Error> {
        let loaded = lock(&self.current).clone();
        loaded.call(&self.options, function, arguments).map_err(|error| match error {
            Error::Lost { .. } => self.lost(&loaded),
            error => error,
        })
    }
}

impl Loaded {
    fn new(files: &Files, options: &Arc<Options>) -> Result<Self, LoadError> {
        let parts = &files.0;
        if parts.sigstruct.attributes.flags.contains(AttributeFlags::DEBUG) && !options.allow_debug {
            return Err(LoadError::Debug);
        }
        let driver = Driver::load(files)?;
        let function = vdso::function().ok_or(LoadError::NoVdso)?;
        let thread = |tcs: &u64| Thread::new(driver.base() + tcs, function, options.message_limit);
        let threads: Vec<_> = parts.tcs.iter().map(thread).collect();
        let (alive, park) = (threads.len(), Park::new(threads.len()));
        let idle = Mutex::new(Idle { threads, alive });
        let mailboxes = Mailboxes::new(options.switchless, options);
        let configuration = Configuration {
            sgx2: driver::has_sgx2().into(),
            mailboxes: mailboxes.address(),
            mailbox_count: mailboxes.count(),
            mailbox_size: mailbox::SIZE as u64,
        };
        let loaded = Self { driver, idle, freed: Condvar::new(), park, _mailboxes: mailboxes };
        if let Some(payload) = &parts.payload {
            let call = |function, arguments: &[u8]| loaded.call(options, function, arguments);
            keys::unlock(files, payload, &loaded.driver, options.keys.as_deref(), call)?;
        }
        let configured = loaded.call(options, function::CONFIGURE, configuration.as_bytes());
        configured.map_err(|error| LoadError::Start(Box::new(error)))?;
        Ok(loaded)
    }

    fn call(&self, options: &Options, function: u32, arguments: &[u8]) -> Result<Vec<u8>, Error> {
        let mut thread = self.take_thread()?;
        let mut lent = Lent { loaded: self, back: None };
        let result = in_a_call(|| self.run(&mut thread, options, function, arguments));
        // after these it stands at the call's end, ready for the next
        if result.as_ref().err().is_none_or(Error::leaves_at_rest) {
            lent.back = Some(thread);
        }
        result
    }

    fn run(
        &self,
        thread: &mut Thread,
        options: &Options,
        function: u32,
        arguments: &[u8],
    ) -> Result<Vec<u8>, Error> {
        // SAFETY: the TCS is of the enclave that `self` keeps loaded, and `thread` is in
        // no other's use. The enclave is one that this program chose to load.
        let mut left = unsafe { thread.call(function, arguments) }?;
        loop {
            match left {
                Left::Done(result) => return Ok(result),
                Left::Ocall(function, arguments) => {
                    let result = self.serve(options, function, &arguments);
                    // SAFETY: as above.
                    left = unsafe { thread.give_back(result.as_deref()) }?;
                }
            }
        }
    }

    /// Does what the enclave asks for; `None` if that cannot be.
    fn serve(&self, options: &Options, number: u32, arguments: &[u8]) -> Option<Vec<u8>> {
        let thread = || arguments.try_into().ok().map(u64::from_le_bytes);
        match number {
            function::TIME => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
                Some([&now.as_secs().to_le_bytes()[..], &now.subsec_nanos().to_le_bytes()].concat())
            }
            function::PARK => self.park.sleep(thread()?).then(Vec::new),
            function::WAKE => self.park.wake(thread()?).then(Vec::new),
            function::PRINT => {
                (options.print)(std::str::from_utf8(arguments).ok()?);
                Some(Vec::new())
            }
            _ => options.serve(number, arguments),
        }
    }

    fn take_thread(&self) -> Result<Thread, Error> {
        let mut idle = lock(&self.idle);
        loop {
            if let Some(thread) = idle.threads.pop() {
                return Ok(thread);
            }
            if idle.alive == 0 {
                return Err(Error::Aborted(None));
            }
            // who is asked to wait may be the one whom the others wait for
            if DEPTH.get() > 0 {
                return Err(Error::NoThread);
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
