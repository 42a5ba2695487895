//! The side that answers.

use std::io::{self, Write};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use enclave_interface::DispatchError;

use crate::stream::{Listener, Stream};
use crate::{Endpoint, Limits, frame};

/// After a connection could not be taken: for want of descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens for clients.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    bound: Endpoint,
    limits: Limits,
}

impl Server {
    /// Listens there.
    ///
    /// # Errors
    /// It cannot, e.g. because somebody else does.
    pub fn bind(endpoint: &Endpoint, limits: Limits) -> io::Result<Self> {
        Ok(Self { listener: Listener::bind(endpoint)?, bound: endpoint.clone(), limits })
    }

    /// Where clients find it: for port 0 of TCP, the one that it got.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        let tcp = self.listener.tcp_address()?;
        Ok(tcp.map_or_else(|| self.bound.clone(), |address| Endpoint::Tcp(address.to_string())))
    }

    /// Serves clients for ever, each on a thread of its own: `|function, arguments|
    /// service.dispatch(function, arguments)`, with the `dispatch` of an interface's trait.
    ///
    /// A connection whose client is slower than [`Limits::patience`], or says what is no
    /// request, is closed.
    pub fn serve(&self, dispatch: impl Fn(u32, &[u8]) -> Result<Vec<u8>, DispatchError> + Sync) -> ! {
        let dispatch = &dispatch;
        let places = Places { free: Mutex::new(self.limits.connections.max(1)), freed: Condvar::new() };
        thread::scope(|scope| {
            loop {
                let place = places.take();
                let Ok(mut stream) = self.listener.accept() else {
                    thread::sleep(PAUSE);
                    continue;
                };
                let serve = move || {
                    let _place = place;
                    // its end, however it comes, is the client's affair
                    let _ = self.answer(&mut stream, dispatch);
                };
                if thread::Builder::new().spawn_scoped(scope, serve).is_err() {
                    thread::sleep(PAUSE);
                }
            }
        })
    }

    fn answer(
        &self,
        stream: &mut Stream,
        dispatch: &impl Fn(u32, &[u8]) -> Result<Vec<u8>, DispatchError>,
    ) -> io::Result<()> {
        let Limits { message, patience, .. } = self.limits;
        stream.until(Instant::now() + patience).write_all(&frame::GREETING)?;
        while let Some(request) = stream.read_frame(message.saturating_add(frame::HEAD), patience)? {
            let Some((function, arguments)) = frame::of_request(&request) else { break };
            stream.write_frame(&frame::response(dispatch(function, arguments)), patience)?;
        }
        Ok(())
    }
}

/// Connections that there may be.
struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// One of them.
struct Place<'a>(&'a Places);

impl Places {
    fn take(&self) -> Place<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.freed.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
