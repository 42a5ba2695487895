//! A folder of the host as a guest sees it: the file system behind virtio-fs
//! (*virtio 1.2 §5.11*), asked in the language of FUSE.
//!
//! [`Share::answer`] takes a request and gives the reply. `fuse-backend-rs` reads
//! and writes the messages; the file system (`tree`) is ours
//! (`docs/decisions/0015-virtio-fs.md`).
//!
//! | threat | guard |
//! |---|---|
//! | paths that lead out: `..`, absolute names, symbolic links, also exchanged in the midst | a request names one entry of a folder that is open; no link is followed, `.` and `..` are no names |
//! | magic links of `/proc` in the share | read as text, as every link |
//! | FIFOs, devices and sockets, which block or act when opened | only regular files and folders are opened; none else are made |
//! | set-user-ID programs for the host | these bits are neither shown nor set |
//! | writes to a share that is read-only | EROFS before anything is looked at; no file is open for writing |
//! | files without end | as many descriptors as [`Share::open`] was told, further ones are refused: ENFILE |
//! | messages that lie about their lengths | read within their bytes; the reply stays within the room the guest gave |
//! | a defect in all that | a panic answers EIO |
#![forbid(unsafe_code)]

mod attr;
mod nodes;
mod tree;

use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader, Writer};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tree::Tree;

/// Bytes of the header of a reply: length, error, number of the request.
const REPLY_HEADER: usize = 16;
/// Bytes of the header of a request.
const REQUEST_HEADER: usize = 40;
/// The longest request or reply worth having, in bytes: 1 MiB of data with its
/// headers.
pub const MAX_MESSAGE: usize = (1 << 20) + 4096;
/// Descriptors of a process with shares, at most: what they name stays in the host's
/// memory.
pub const MOST_DESCRIPTORS: u64 = 1 << 18;
/// Descriptors left to the rest of the process.
const OTHERS: u64 = 512;

/// Why a folder cannot be shared: the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It is not there, or closed to us.
    #[error("cannot be opened: {0}; check the path and its permissions")]
    Open(std::io::Error),
    /// It is a file.
    #[error("is not a folder; share the folder it is in")]
    NotAFolder,
    /// The host lacks what is needed.
    #[error("cannot be shared: {0}; /proc must be mounted")]
    Host(std::io::Error),
}

/// A folder, open for a guest.
pub struct Share {
    tree: Arc<Tree>,
    server: Server<Arc<Tree>>,
    /// Where the protocol's library may write what it believes to be a device.
    null: File,
}

impl Share {
    /// Opens the folder at `path`. With `read_only` the guest changes nothing in
    /// it. At most `descriptors` are held for what the guest knows of it.
    ///
    /// From here on nothing outside of the folder is opened, but entries of the
    /// process's own `/proc/self/fd`.
    ///
    /// # Errors
    /// [`ShareError`]
    pub fn open(path: &Path, read_only: bool, descriptors: usize) -> Result<Self, ShareError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty()).map_err(|e| ShareError::Open(e.into()))?;
        let stat = fstat(&root).map_err(|e| ShareError::Open(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(ShareError::NotAFolder);
        }
        let tree = Arc::new(Tree::new(root, &stat, read_only, descriptors).map_err(ShareError::Host)?);
        // an entry of it must be readable now, not only when the guest asks
        tree.check().map_err(ShareError::Open)?;
        let null = File::options().write(true).open("/dev/null").map_err(ShareError::Host)?;
        Ok(Self { server: Server::new(tree.clone()), tree, null })
    }

    /// Answers a request in `reply`, which is as long as the guest has room; how
    /// many bytes of it are the answer. There is none to some requests; those that
    /// cannot be read answer EINVAL.
    pub fn answer(&self, request: &mut [u8], reply: &mut [u8]) -> usize {
        let unique = request.get(8..16).map(<[u8]>::to_vec);
        if request.len() < REQUEST_HEADER {
            return 0;
        }
        let answered = catch_unwind(AssertUnwindSafe(|| {
            let reader = Reader::<()>::from_fuse_buffer(FuseBuf::new(request)).ok()?;
            // what has been split off is written to the buffer alone
            let mut whole = FuseDevWriter::<()>::new(self.null.as_raw_fd(), reply).ok()?;
            let writer = whole.split_at(0).ok()?;
            self.server.handle_message(reader, Writer::FuseDev(writer), None, None).ok()
        }));
        match answered {
            Ok(Some(len)) => len.min(reply.len()),
            // who wants no answer has no room for one
            Ok(None) => failure(unique.as_deref().unwrap_or_default(), reply, Errno::INVAL),
            Err(_) => failure(unique.as_deref().unwrap_or_default(), reply, Errno::IO),
        }
    }

    /// The guest was reset: what it knew is forgotten.
    pub fn forget(&self) {
        self.tree.clear();
    }
}

/// A reply that says only that something failed.
fn failure(unique: &[u8], reply: &mut [u8], error: Errno) -> usize {
    let Some(header) = reply.get_mut(..REPLY_HEADER) else { return 0 };
    header[..4].copy_from_slice(&(REPLY_HEADER as u32).to_le_bytes());
    header[4..8].copy_from_slice(&(-error.raw_os_error()).to_le_bytes());
    header[8..].copy_from_slice(unique);
    REPLY_HEADER
}

/// Raises this process's limit of open files as far as it may; how many of them
/// shares may have.
pub fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(MOST_DESCRIPTORS, |most| most.min(MOST_DESCRIPTORS));
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { Some(most) } else { limit.current };
    usize::try_from(now.unwrap_or(1024).saturating_sub(OTHERS)).unwrap_or(usize::MAX)
}
