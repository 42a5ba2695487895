//! Bytes between the guest's ports and the host's descriptors: bounded, with
//! back-pressure, never blocking a processor's thread for a port.

use super::escape::{Action, Escape};
use super::session::Event;
use crate::exit::Error;
use agent_proto::Stream;
use devices::virtio::console::{HostPort, PortSink};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes of a guest's output kept for a host that is slow to take them.
pub(crate) const CAPACITY: usize = 256 << 10;
/// Bytes moved at once.
const PIECE: usize = 64 << 10;
/// How long a descriptor that is not ready is left alone.
const NOT_READY: Duration = Duration::from_millis(5);

/// A descriptor of our own, without the standard library's buffers.
///
/// # Errors
/// The host gives none.
pub(crate) fn own(fd: BorrowedFd<'_>) -> Result<File, Error> {
    let fail = |e: io::Error| Error::failed(format!("cannot use a standard stream: {e}"));
    Ok(File::from(fd.try_clone_to_owned().map_err(fail)?))
}

/// The host's end of a port, as far as it is used here.
pub(crate) trait Port: Send + Sync {
    /// Queues bytes for the guest; how many there was room for.
    fn write(&self, data: &[u8]) -> usize;
    /// Waits for room, at most so long.
    fn wait_room(&self, timeout: Duration);
    /// The sink that was full has room again.
    fn kick(&self);
    /// Bytes queued so far.
    fn accepted(&self) -> u64;
}

impl Port for HostPort {
    fn write(&self, data: &[u8]) -> usize {
        HostPort::write(self, data)
    }
    fn wait_room(&self, timeout: Duration) {
        HostPort::wait_room(self, timeout);
    }
    fn kick(&self) {
        HostPort::kick(self);
    }
    fn accepted(&self) -> u64 {
        HostPort::accepted(self)
    }
}

#[derive(Default)]
struct Queue {
    bytes: VecDeque<u8>,
    /// Bytes that the guest has given so far.
    arrived: u64,
    /// The guest had to keep some.
    refused: bool,
    /// What was taken out is being written.
    busy: bool,
    /// Nobody wants the bytes any more: take and forget them.
    gone: bool,
    /// No more bytes come.
    ended: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There are bytes, or the end.
    filled: Condvar,
    /// There is room, or nobody wants the bytes.
    drained: Condvar,
    on_bytes: Option<Box<dyn Fn() + Send + Sync>>,
}

/// A bounded queue of bytes from the guest. Clones are the same queue.
#[derive(Clone)]
pub(crate) struct Outlet(Arc<Shared>);

impl Outlet {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// An empty one that calls `f` when bytes come to an empty queue.
    pub(crate) fn notifying(f: impl Fn() + Send + Sync + 'static) -> Self {
        Self::with(Some(Box::new(f)))
    }

    fn with(on_bytes: Option<Box<dyn Fn() + Send + Sync>>) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            on_bytes,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes from the guest; how many there was room for.
    fn push(&self, data: &[u8]) -> usize {
        let mut q = self.lock();
        let was_empty = q.bytes.is_empty();
        let n = if q.gone {
            data.len()
        } else {
            let n = data.len().min(CAPACITY - q.bytes.len());
            q.bytes.extend(&data[..n]);
            n
        };
        q.arrived += n as u64;
        q.refused |= n < data.len();
        drop(q);
        if n > 0 {
            self.0.filled.notify_one();
            if let Some(f) = &self.0.on_bytes
                && was_empty
            {
                f();
            }
        }
        n
    }

    /// Takes all bytes, waiting for room; returns early when nobody wants them.
    pub(crate) fn push_all(&self, mut data: &[u8]) {
        while !data.is_empty() {
            let n = self.push(data);
            data = &data[n..];
            if n == 0 {
                let mut q = self.lock();
                while !q.gone && q.bytes.len() >= CAPACITY {
                    q = self.0.drained.wait(q).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Takes out what is there, without waiting, and whether the guest kept
    /// some back.
    pub(crate) fn take(&self) -> (Vec<u8>, bool) {
        let mut q = self.lock();
        let refused = std::mem::take(&mut q.refused);
        (q.bytes.drain(..).collect(), refused)
    }

    /// Another host had `bytes` before.
    pub(crate) fn go_on_after(&self, bytes: u64) {
        self.lock().arrived = bytes;
    }

    /// No more bytes come: a writer ends once all is written.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.0.filled.notify_all();
    }

    /// Nobody wants the bytes any more; whoever waits for room goes on.
    pub(crate) fn close(&self) {
        let mut q = self.lock();
        q.gone = true;
        q.bytes.clear();
        drop(q);
        self.0.drained.notify_all();
        self.0.filled.notify_all();
    }

    /// Bytes that have come from the guest.
    pub(crate) fn arrived(&self) -> u64 {
        self.lock().arrived
    }

    /// Whether everything that came is written (or unwanted).
    pub(crate) fn is_flushed(&self) -> bool {
        let q = self.lock();
        q.gone || (q.bytes.is_empty() && !q.busy)
    }

    /// Whether nobody wants the bytes any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// Writes what comes to `to` until the end; `kick` tells the guest of room.
    ///
    /// # Errors
    /// The descriptor's; from then on bytes are taken and forgotten.
    pub(crate) fn write_to(&self, to: &mut dyn Write, kick: &dyn Fn()) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let mut q = self.lock();
            q.busy = false;
            while q.bytes.is_empty() && !q.ended && !q.gone {
                q = self.0.filled.wait(q).unwrap_or_else(PoisonError::into_inner);
            }
            if q.bytes.is_empty() {
                return Ok(());
            }
            let n = q.bytes.len().min(PIECE);
            piece.clear();
            piece.extend(q.bytes.drain(..n));
            q.busy = true;
            let refused = std::mem::take(&mut q.refused);
            drop(q);
            self.0.drained.notify_all();
            if refused {
                kick();
            }
            if let Err(e) = write_all(to, &piece) {
                self.close();
                self.lock().busy = false;
                kick();
                return Err(e);
            }
        }
    }
}

impl PortSink for Outlet {
    fn write(&mut self, data: &[u8]) -> usize {
        self.push(data)
    }
}

/// As [`Write::write_all`], also to a descriptor that somebody made
/// non-blocking.
fn write_all(to: &mut dyn Write, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match to.write(data) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => data = &data[n..],
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(NOT_READY),
            Err(e) => return Err(e),
        }
    }
    to.flush()
}

/// Writes an output of the guest's command in a thread of its own.
///
/// # Errors
/// The host has no more threads.
pub(crate) fn spawn_writer(
    outlet: &Outlet,
    port: Arc<dyn Port>,
    mut to: impl Write + Send + 'static,
    stream: Stream,
    events: Sender<Event>,
) -> io::Result<()> {
    let outlet = outlet.clone();
    thread::Builder::new().name(format!("{stream:?}").to_lowercase()).spawn(move || {
        if let Err(e) = outlet.write_to(&mut to, &|| port.kick()) {
            // nobody listens any more at the end of the session
            let _ = events.send(Event::OutputGone(stream, e));
        }
    })?;
    Ok(())
}

/// Reads the host's input for the guest in a thread of its own, until its end.
/// With an `escape` that is looked for.
///
/// # Errors
/// The host has no more threads.
pub(crate) fn spawn_reader(
    mut from: impl Read + Send + 'static,
    port: Arc<dyn Port>,
    mut escape: Option<Escape>,
    events: Sender<Event>,
) -> io::Result<()> {
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut buf = vec![0; PIECE];
        loop {
            let n = match from.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(NOT_READY);
                    continue;
                }
                // a terminal that went away, a folder: the input is over
                Err(_) => break,
            };
            let (data, actions) = match &mut escape {
                None => (buf[..n].to_vec(), Vec::new()),
                Some(escape) => escape.feed(&buf[..n]),
            };
            for action in actions {
                if events.send(Event::Escape(action)).is_err() || action == Action::Quit {
                    return;
                }
            }
            let mut rest = &data[..];
            while !rest.is_empty() {
                match port.write(rest) {
                    0 => port.wait_room(Duration::from_millis(100)),
                    n => rest = &rest[n..],
                }
            }
        }
        let _ = events.send(Event::InputEnd { total: port.accepted() });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[derive(Default)]
    struct Slow {
        bytes: Mutex<Vec<u8>>,
        waits: AtomicUsize,
    }
    impl Port for Slow {
        fn accepted(&self) -> u64 {
            self.bytes.lock().unwrap().len() as u64
        }
        fn write(&self, data: &[u8]) -> usize {
            // every other call has no room
            if self.waits.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return 0;
            }
            let n = data.len().min(1000);
            self.bytes.lock().unwrap().extend(&data[..n]);
            n
        }
        fn wait_room(&self, _: Duration) {}
        fn kick(&self) {}
    }

    fn noise(n: usize) -> Vec<u8> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn outlet_takes_no_more_than_it_holds_and_says_so() {
        let outlet = Outlet::new();
        let data = noise(CAPACITY + 10);
        assert_eq!(outlet.push(&data), CAPACITY);
        assert_eq!(outlet.push(&data[CAPACITY..]), 0);
        assert!(!outlet.is_flushed());
        let (taken, refused) = outlet.take();
        assert!(refused);
        assert!(taken == data[..CAPACITY]);
        assert!(outlet.is_flushed());
        assert_eq!(outlet.push(&data[CAPACITY..]), 10);
        assert_eq!(outlet.take(), (data[CAPACITY..].to_vec(), false));
        assert_eq!(outlet.arrived(), data.len() as u64);
    }

    #[test]
    fn writer_kicks_a_guest_that_was_refused() {
        let outlet = Outlet::new();
        let data = noise(3 * CAPACITY);
        let done = Mutex::new(outlet.push(&data));
        let kick = || {
            let mut done = done.lock().unwrap();
            *done += outlet.push(&data[*done..]);
            if *done == data.len() {
                outlet.end();
            }
        };
        let mut out = Vec::new();
        outlet.write_to(&mut out, &kick).unwrap();
        assert!(out == data);
        assert!(outlet.is_flushed());
    }

    #[test]
    fn broken_output_swallows_the_rest() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let outlet = Outlet::new();
        outlet.push(b"x");
        let e = outlet.write_to(&mut Broken, &|| {}).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::BrokenPipe);
        assert!(outlet.is_gone() && outlet.is_flushed());
        let data = noise(2 * CAPACITY);
        assert_eq!(outlet.push(&data), data.len());
        outlet.push_all(&data);
    }

    #[test]
    fn whoever_waits_for_room_goes_on_when_the_outlet_closes() {
        let outlet = Outlet::new();
        let other = outlet.clone();
        let waiting = thread::spawn(move || other.push_all(&noise(2 * CAPACITY)));
        while outlet.arrived() < CAPACITY as u64 {
            thread::yield_now();
        }
        outlet.close();
        waiting.join().unwrap();
    }

    #[test]
    fn interrupted_and_unready_writers_lose_nothing() {
        struct Moody(Vec<u8>, usize);
        impl Write for Moody {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(ErrorKind::Interrupted.into()),
                    1 if self.1 < 20 => Err(ErrorKind::WouldBlock.into()),
                    _ => {
                        let n = data.len().min(4096);
                        self.0.extend(&data[..n]);
                        Ok(n)
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let outlet = Outlet::new();
        let data = noise(CAPACITY);
        outlet.push(&data);
        outlet.end();
        let mut to = Moody(Vec::new(), 0);
        outlet.write_to(&mut to, &|| {}).unwrap();
        assert!(to.0 == data);
    }

    #[test]
    fn reader_waits_for_room_and_counts_to_the_end() {
        let port = Arc::new(Slow::default());
        let data = noise(200_000);
        let (tx, rx) = mpsc::channel();
        spawn_reader(io::Cursor::new(data.clone()), port.clone(), None, tx).unwrap();
        match rx.recv().unwrap() {
            Event::InputEnd { total } => assert_eq!(total, data.len() as u64),
            other => panic!("{other:?}"),
        }
        assert!(*port.bytes.lock().unwrap() == data);
    }
}
