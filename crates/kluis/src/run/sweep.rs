//! Takes the sockets of `--vsock-listen` away when the machine's process is gone, however
//! it ended. That one is confined and may remove nothing in the user's folders, so one
//! beside it does: this program once more, which waits for the end of a stream.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Says to this program that it is to wait and sweep; its standard input is the stream.
const SWEEP: &str = "KLUIS_SWEEP";
/// How long the machine's process waits at its end.
const PATIENCE: Duration = Duration::from_secs(2);

/// The other process, as long as this is there.
pub(super) struct Sweeper(UnixStream);

impl Sweeper {
    /// Starts it for these sockets, which are there; `None` if there are none.
    ///
    /// # Errors
    /// The host gives no process.
    pub(super) fn start<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> io::Result<Option<Self>> {
        let mut list = Vec::new();
        for path in paths {
            // nothing that somebody puts in its place is taken away
            let about = fs::symlink_metadata(path)?;
            list.extend(format!("{}:{}:", about.dev(), about.ino()).bytes());
            list.extend(path.as_os_str().as_bytes());
            list.push(0);
        }
        if list.is_empty() {
            return Ok(None);
        }
        let (mut ours, theirs) = UnixStream::pair()?;
        Command::new("/proc/self/exe")
            .env(SWEEP, "")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // the terminal's signals are not for it
            .process_group(0)
            .spawn()?;
        ours.write_all(&list)?;
        Ok(Some(Self(ours)))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // it ends its side once it has done its work
        let _ = self.0.shutdown(Shutdown::Write);
        let _ = self.0.set_read_timeout(Some(PATIENCE));
        let _ = self.0.read(&mut [0]);
    }
}

/// Does that work, if this process is the one for it.
pub(crate) fn if_asked() -> Option<ExitCode> {
    std::env::var_os(SWEEP)?;
    let mut list = Vec::new();
    let told = io::stdin().lock().read_to_end(&mut list);
    list.split(|&byte| byte == 0).for_each(sweep);
    Some(if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes what `device:inode:path` names, if it is still that.
fn sweep(entry: &[u8]) {
    let mut parts = entry.splitn(3, |&byte| byte == b':');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (Some(dev), Some(ino)) = (number(), number()) else { return };
    let Some(path) = parts.next() else { return };
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    if fs::symlink_metadata(&path).is_ok_and(|about| (about.dev(), about.ino()) == (dev, ino)) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_meant_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a:b");
        fs::write(&path, "").unwrap();
        let about = fs::metadata(&path).unwrap();
        let entry = |ino: u64| {
            let mut entry = format!("{}:{ino}:", about.dev()).into_bytes();
            entry.extend(path.as_os_str().as_bytes());
            entry
        };
        for other in [&b""[..], b"1", b"x:y:/", &entry(about.ino() + 1)] {
            sweep(other);
        }
        assert!(path.exists());
        sweep(&entry(about.ino()));
        assert!(!path.exists());
    }
}
