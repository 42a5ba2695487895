//! A debugger from outside: gdb's remote protocol on a TCP port
//! (*Debugging with GDB, "gdb Remote Serial Protocol"*).
//!
//! * [`Server`]: the port, one debugger at a time
//! * `session`: the conversation; `target`: what gdb can ask of the machine
//! * `layout`, `regs`: registers; `memory`: what the bus sees, and of debug enclaves what
//!   EDBGRD does; `monitor`: `monitor` commands
//! * [`await_enclave`]: the moment for a debugger of an enclave to come
//!
//! Threads are processors, 1 being the boot processor. Everything stops together.

mod enclave;
mod layout;
mod memory;
mod monitor;
mod regs;
mod session;
mod target;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::board::lock;
use crate::gate::Paused;
use crate::running::Running;
pub use enclave::{Initialized, await_enclave};

/// Time between looks whether the machine still runs.
const LOOK: Duration = Duration::from_millis(100);
/// How long the last debugger may take to be told of the machine's end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A port on which debuggers are served, one after the other.
pub struct Server {
    listener: TcpListener,
    busy: Arc<Busy>,
}

/// Whether a session is on.
#[derive(Default)]
struct Busy {
    now: Mutex<bool>,
    changed: Condvar,
}

impl Busy {
    fn set(&self, busy: bool) {
        *lock(&self.now) = busy;
        self.changed.notify_all();
    }
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn bind(address: SocketAddr) -> io::Result<Server> {
        Ok(Server { listener: TcpListener::bind(address)?, busy: Arc::default() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The host does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves debuggers from now on. With `paused`, the machine stands until the
    /// first one lets it go on. A debugger is told of the registers that a processor has
    /// in the boot processor's mode when it comes; with `long`, of x86-64's always.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn serve(&self, running: Arc<Running>, mut paused: Option<Paused>, long: bool) -> io::Result<()> {
        let (listener, busy) = (self.listener.try_clone()?, self.busy.clone());
        let serve = move || {
            for stream in listener.incoming().flatten() {
                busy.set(true);
                // a defect in here ends the session, not the machine
                let session = || session::run(stream, &running, paused.take(), long);
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(session));
                running.gate().detach();
                busy.set(false);
            }
        };
        std::thread::Builder::new().name("gdb".into()).spawn(serve)?;
        Ok(())
    }

    /// After the machine's end: waits until the debugger, if there is one, has been told.
    pub fn finish(&self) {
        let waited = self.busy.changed.wait_timeout_while(lock(&self.busy.now), FAREWELL, |busy| *busy);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
