//! What the host does for the enclave.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;
use store_interface::counter::Answer;
use store_interface::{FILES, Outside};

/// How long the counter may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Keeps the store's files, and knows where its counter is.
pub struct Keeper {
    folder: PathBuf,
    counter: String,
}

impl Keeper {
    /// Of the files in a folder, with a counter at this address.
    pub fn new(folder: &str, counter: &str) -> Self {
        Self { folder: folder.into(), counter: counter.into() }
    }

    fn path(&self, file: u8) -> io::Result<PathBuf> {
        let name = FILES.get(usize::from(file)).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.folder.join(name))
    }

    fn ask_counter(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let address = self.counter.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let mut answer = vec![0; size_of::<Answer>()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// The result, or a line about why there is none.
fn told<T>(what: &str, result: io::Result<T>) -> Option<T> {
    result.inspect_err(|e| eprintln!("store-host: {what}: {e}")).ok()
}

impl Outside for Keeper {
    fn len(&self, file: u8) -> Option<u64> {
        let len = self.path(file).and_then(std::fs::metadata).map(|data| data.len());
        match len {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(0),
            len => told("a file of the store", len),
        }
    }

    fn read(&self, file: u8, at: u64, len: u32) -> Option<Vec<u8>> {
        let read = self.path(file).and_then(File::open).and_then(|file| {
            let there = file.metadata()?.len().saturating_sub(at);
            let mut bytes = vec![0; there.min(len.into()) as usize];
            file.read_exact_at(&mut bytes, at)?;
            Ok(bytes)
        });
        told("a file of the store", read)
    }

    fn write(&self, file: u8, at: u64, bytes: &[u8]) -> bool {
        let written = self.path(file).and_then(|path| {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            file.write_all_at(bytes, at)?;
            file.sync_all()
        });
        told("a file of the store", written).is_some()
    }

    fn truncate(&self, file: u8, len: u64) -> bool {
        let path = self.path(file).map(|path| (path.exists(), path));
        let cut = path.and_then(|(exists, path)| match exists {
            true => OpenOptions::new().write(true).open(path)?.set_len(len),
            false => Ok(()),
        });
        told("a file of the store", cut).is_some()
    }

    fn count(&self, request: &[u8]) -> Option<Vec<u8>> {
        told(&format!("the counter at {}", self.counter), self.ask_counter(request))
    }
}
