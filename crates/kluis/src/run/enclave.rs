//! The machine's half of `kluis enclave debug`: its process waits for the enclave, and tells
//! the one that has started it where the enclave and the debugger's port are.

use crate::exit::Error;
use machine::gdb::{Initialized, Server, await_enclave};
use machine::{Paused, Running};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Names the pipe to the machine's process.
const PIPE: &str = "KLUIS_ENCLAVE_DEBUG_PIPE";
/// MRENCLAVE of the enclave, in hexadecimal.
const MRENCLAVE: &str = "KLUIS_ENCLAVE_DEBUG_MRENCLAVE";

/// What the machine's process tells, in a line of JSON.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Found {
    /// First address of the enclave.
    pub(crate) base: u64,
    /// Whether debuggers may look into it. If not, the machine has ended.
    pub(crate) debug: bool,
    /// Where gdb is waited for.
    pub(crate) gdb: SocketAddr,
}

/// To this process: wait for an enclave, and for its debugger then.
pub(crate) struct Order {
    pipe: File,
    mrenclave: String,
}

impl Order {
    /// The environment of a process with this order; `pipe` is the descriptor that it inherits.
    pub(crate) fn environment(pipe: i32, mrenclave: &str) -> [(&'static str, String); 2] {
        [(PIPE, pipe.to_string()), (MRENCLAVE, mrenclave.to_owned())]
    }

    /// Whether this process has one.
    pub(crate) fn is_given() -> bool {
        std::env::var_os(PIPE).is_some()
    }

    /// This process's, if it is one; it then ends with its starter.
    ///
    /// # Errors
    /// The starter is gone.
    pub(crate) fn inherited() -> Result<Option<Self>, Error> {
        let Some(number) = std::env::var_os(PIPE) else { return Ok(None) };
        let fail = |e: io::Error| Error::failed(format!("cannot tell of an enclave: {e}"));
        let path = Path::new("/proc/self/fd").join(number);
        let pipe = File::options().write(true).open(path).map_err(fail)?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| fail(e.into()))?;
        Ok(Some(Self { pipe, mrenclave: std::env::var(MRENCLAVE).unwrap_or_default() }))
    }

    /// Lets the machine run to the enclave; from then on a debugger is served.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn serve(
        self,
        running: Arc<Running>,
        standing: Paused,
        server: Arc<Server>,
    ) -> Result<(), Error> {
        let wait = move || {
            let wanted = |found: &Initialized| hex(&found.mrenclave) == self.mrenclave;
            if let Some((standing, found)) = await_enclave(&running, standing, wanted) {
                self.found(&running, standing, found, &server);
            }
        };
        thread::Builder::new().name("enclave".into()).spawn(wait).map_err(Error::no_thread)?;
        Ok(())
    }

    fn found(mut self, running: &Arc<Running>, standing: Paused, found: Initialized, server: &Server) {
        let told = server.address().and_then(|gdb| {
            let Initialized { base, debug, .. } = found;
            let mut line = serde_json::to_vec(&Found { base, debug, gdb })?;
            line.push(b'\n');
            if debug {
                server.serve(running.clone(), Some(standing), true)?;
            }
            self.pipe.write_all(&line)
        });
        if told.is_err() || !found.debug {
            // nobody would come, or may
            running.stop();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
