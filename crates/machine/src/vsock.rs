//! The host's side of the socket device: Unix sockets.
//!
//! One thread waits for all of them (epoll, by edges) and makes the device look
//! at its connections when one has become ready.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use devices::virtio::vsock::{HostSide, HostStream};
use devices::virtio::{VirtioPci, Vsock};
use mem::DmaBus;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::net::Shutdown;
use std::os::fd::OwnedFd;

use crate::board::lock;
use crate::config::MachineError;
use crate::gate::Gate;

/// The guest's address.
const GUEST_CID: u64 = 3;
/// Names the events of streams; those of listeners have their number.
const STREAM: u64 = u64::MAX;
/// Connections taken from a listener at once: the others get their turn.
const AT_ONCE: usize = 16;
/// Pause when the host has no descriptors left for those who wait.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Which Unix sockets a machine's ports are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VsockPorts {
    /// Where connections of the guest to a port of the host go.
    pub connect: BTreeMap<u32, PathBuf>,
    /// Sockets to be made; connections to one go to a port of the guest.
    pub listen: BTreeMap<u32, PathBuf>,
}

impl VsockPorts {
    /// Whether there are none, and therefore no device.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connect.is_empty() && self.listen.is_empty()
    }
}

type Device = Mutex<VirtioPci<Vsock, DmaBus>>;

/// A connection's end, which the thread is told about.
struct Stream(UnixStream);

impl Stream {
    fn new(stream: UnixStream, epoll: &OwnedFd) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &stream, EventData::new_u64(STREAM), flags)?;
        Ok(Self(stream))
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}
impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl HostStream for Stream {
    fn finish(&mut self) {
        // the other end may be gone already
        let _ = self.0.shutdown(Shutdown::Write);
    }
}

/// What the guest finds on the host.
struct Services {
    ports: BTreeMap<u32, PathBuf>,
    epoll: Arc<OwnedFd>,
    /// Closed with the device, which wakes the thread.
    _alive: UnixStream,
}

impl HostSide for Services {
    fn connect(&mut self, port: u32) -> Option<Box<dyn HostStream>> {
        let path = self.ports.get(&port)?;
        let connected = connect_now(path).and_then(|stream| Stream::new(stream, &self.epoll));
        match connected {
            Ok(stream) => Some(Box::new(stream)),
            Err(e) => {
                tracing::info!(port, path = %path.display(), "vsock: nobody answers: {e}");
                None
            }
        }
    }
}

/// Connects to a Unix socket without waiting, not even for one whose owner is
/// busy.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

/// A listening socket in the file system.
struct Listener {
    port: u32,
    listener: UnixListener,
}

impl Listener {
    fn bind(port: u32, path: &Path) -> Result<Self, MachineError> {
        let fail = |why: String| MachineError::Vsock { path: path.to_owned(), why };
        // what a machine that was killed has left
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
        let deserted = UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if is_socket && deserted {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(path).map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => fail("is there already; remove it, or choose another path".into()),
            _ => fail(format!("cannot be made: {e}; check the folder it is in")),
        })?;
        let listener = Self { port, listener };
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private)
            .and_then(|()| listener.listener.set_nonblocking(true))
            .map_err(|e| fail(e.to_string()))?;
        Ok(listener)
    }
}

/// The thread's side, before it is started.
pub(crate) struct Host {
    epoll: Arc<OwnedFd>,
    listeners: Vec<Listener>,
    _alive: UnixStream,
}

/// Makes the device and what it talks to.
pub(crate) fn open(ports: &VsockPorts) -> Result<(Vsock, Host), MachineError> {
    let fail = |e: io::Error| MachineError::Thread(e);
    let epoll = Arc::new(epoll::create(CreateFlags::CLOEXEC).map_err(|e| fail(e.into()))?);
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    epoll::add(&*epoll, &theirs, EventData::new_u64(STREAM), EventFlags::RDHUP)
        .map_err(|e| fail(e.into()))?;
    let listeners =
        ports.listen.iter().map(|(port, path)| Listener::bind(*port, path)).collect::<Result<Vec<_>, _>>()?;
    for (n, listener) in listeners.iter().enumerate() {
        epoll::add(&*epoll, &listener.listener, EventData::new_u64(n as u64), EventFlags::IN)
            .map_err(|e| fail(e.into()))?;
    }
    let services = Services { ports: ports.connect.clone(), epoll: Arc::clone(&epoll), _alive: ours };
    Ok((Vsock::new(GUEST_CID, Box::new(services)), Host { epoll, listeners, _alive: theirs }))
}

impl Host {
    /// Starts the thread; it ends when the device is gone.
    pub(crate) fn start(self, device: Weak<Device>, gate: Arc<Gate>) -> Result<(), MachineError> {
        std::thread::Builder::new()
            .name("vsock".into())
            .spawn(move || self.run(&device, &gate))
            .map_err(MachineError::Thread)?;
        Ok(())
    }

    fn run(self, device: &Weak<Device>, gate: &Gate) {
        let mut events = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&*self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return tracing::error!("vsock: cannot wait for sockets: {e}"),
            }
            let Some(device) = device.upgrade() else { return };
            let look = || {
                let mut device = lock(&device);
                let mut exhausted = false;
                for event in &events {
                    if let Some(listener) = self.listeners.get(event.data.u64() as usize) {
                        exhausted |= self.accept(listener, device.device_mut()).is_err();
                    }
                }
                device.kick();
                exhausted
            };
            match gate.work(look) {
                Some(false) => {}
                Some(true) => std::thread::sleep(EXHAUSTED),
                None => return,
            }
        }
    }

    /// Takes some of those who wait. An error says that the host lacks
    /// descriptors or memory for more of them.
    fn accept(&self, listener: &Listener, device: &mut Vsock) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            match listener.listener.accept() {
                Ok((stream, _)) => {
                    let stream = Stream::new(stream, &self.epoll)?;
                    device.connect(listener.port, Box::new(stream));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
