//! Finding the virtio-console ports that the host named for us.

use crate::setup::has_device;
use agent_proto::{PORT_CONTROL, PORT_STDERR, PORT_STDIN, PORT_STDOUT};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// The four channels to the host, non-blocking.
#[derive(Debug)]
pub struct Ports {
    /// Frames, both ways.
    pub control: OwnedFd,
    /// Bytes for the command.
    pub stdin: OwnedFd,
    /// Bytes from the command.
    pub stdout: OwnedFd,
    /// Bytes from the command, its errors.
    pub stderr: OwnedFd,
}

/// Type of a console (*virtio 1.2 §5*).
const CONSOLE: u16 = 3;
/// How long to wait for ports to be announced: they come one message at a
/// time after the driver is there (*virtio 1.2 §5.3.6*).
const PATIENCE: Duration = Duration::from_secs(5);

/// Opens the ports. `Ok(None)` says that this machine has no console device or
/// one without our ports.
///
/// # Errors
/// When the control port is there but another port is missing or cannot be
/// opened.
pub fn open() -> io::Result<Option<Ports>> {
    if !has_device(CONSOLE) {
        return Ok(None);
    }
    let deadline = Instant::now() + PATIENCE;
    let names = [PORT_CONTROL, PORT_STDIN, PORT_STDOUT, PORT_STDERR];
    loop {
        let found = names.map(find);
        if let [Some(control), Some(stdin), Some(stdout), Some(stderr)] = &found {
            return Ok(Some(Ports {
                control: open_port(control)?,
                stdin: open_port(stdin)?,
                stdout: open_port(stdout)?,
                stderr: open_port(stderr)?,
            }));
        }
        if Instant::now() >= deadline {
            if found[0].is_none() {
                return Ok(None);
            }
            let missing: Vec<&str> =
                names.iter().zip(&found).filter_map(|(name, f)| f.is_none().then_some(*name)).collect();
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the host has no port named {}", missing.join(", ")),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Name below `/dev` of the port that the host calls `name`.
fn find(name: &str) -> Option<String> {
    let dir = entries("/sys/class/virtio-ports")
        .find(|dir| fs::read_to_string(dir.join("name")).is_ok_and(|n| n.trim_end() == name))?;
    Some(dir.file_name()?.to_str()?.to_owned())
}

fn entries(dir: &str) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path())
}

fn open_port(node: &str) -> io::Result<OwnedFd> {
    let path = Path::new("/dev").join(node);
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(CWD, &path, flags, Mode::empty())
        .map_err(|e| io::Error::new(e.kind(), format!("cannot open {}: {e}", path.display())))
}
