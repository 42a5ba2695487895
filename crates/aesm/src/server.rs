//! The daemon: a socket, and so many clients at a time.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::frame::{self, Until};
use crate::{Quoting, answer_bytes};

/// Where programs look for the service: Intel's path.
pub const SOCKET: &str = "/var/run/aesmd/aesm.socket";

/// How many clients are served at once. The others wait in the socket's queue.
pub const CLIENTS: usize = 8;

/// How long a client may take to send its request, and again to take the response. Programs
/// write a request in one piece.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to accept a client when there are no descriptors or no memory.
const RESPITE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another service answers there.
    #[error("another service listens on {}; stop it first", .0.display())]
    InUse(PathBuf),
    /// There is something that is no socket.
    #[error("{} is there and is no socket; remove it", .0.display())]
    NoSocket(PathBuf),
    /// What the operating system says.
    #[error("cannot listen on {}: {source}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes the socket, and its folder if need be, for all users. One that a service left
/// behind is replaced.
///
/// # Errors
/// Another service is there, or the path cannot be used.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let fail = |source| ListenError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(fail(e)),
        Ok(there) if !there.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(ListenError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(fail)?,
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(listener)
}

/// Serves [`CLIENTS`] clients at a time, each with one request and its response, until the
/// process ends. `log` hears what is wrong with the service; what clients do wrong is not
/// logged.
pub fn serve(listener: &UnixListener, quoting: &dyn Quoting, log: &(dyn Fn(&str) + Sync)) -> ! {
    thread::scope(|scope| {
        for _ in 1..CLIENTS {
            scope.spawn(|| clients(listener, quoting, log));
        }
        match clients(listener, quoting, log) {}
    })
}

/// Serves one client after the other.
fn clients(listener: &UnixListener, quoting: &dyn Quoting, log: &dyn Fn(&str)) -> Infallible {
    loop {
        match listener.accept() {
            // a client that is slow, gone, or no client is nobody's concern
            Ok((client, _)) => drop(client_request(&client, quoting, log)),
            Err(e) => {
                log(&format!("cannot accept a client: {e}"));
                thread::sleep(RESPITE);
            }
        }
    }
}

fn client_request(client: &UnixStream, quoting: &dyn Quoting, log: &dyn Fn(&str)) -> io::Result<()> {
    let request = frame::read(&mut Until::within(client, PATIENCE), frame::MAX_REQUEST)?;
    let response = answer_bytes(&request, quoting, log);
    frame::write(&mut Until::within(client, PATIENCE), &response)
}
