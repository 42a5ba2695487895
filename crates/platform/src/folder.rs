//! The platform's folder: who may see it, who may change it, and how a change
//! is whole or not at all.
//!
//! Two locks of *flock(2)*, both let go by the kernel when a process ends:
//! * on the folder itself, exclusive and short: whoever changes the platform;
//! * on the file `in-use`: shared by each machine for as long as it runs,
//!   exclusive and without waiting by whoever changes the platform.

use crate::PlatformError;
use crate::format::{self, FormatError};
use crate::roots::Roots;
use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file of the roots.
const ROOTS: &str = "roots";
/// The file that machines lock.
const IN_USE: &str = "in-use";
/// First letters of files that are being written.
const TEMPORARY: &str = ".roots-";
/// How often the folder may vanish under whoever wants to lock it.
const TRIES: u32 = 1000;
/// Permission bits of those other than the owner.
const OTHERS: u32 = 0o077;

/// Where the platform is by default: `kluis/platform` in `$XDG_STATE_HOME`, or
/// in `~/.local/state` (*XDG Base Directory Specification*: relative paths are
/// ignored); `None` if the environment names no such folder.
pub fn default_folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|h| h.join(".local/state")))?;
    Some(base.join("kluis/platform"))
}

/// A platform's folder, there or not.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// The right to change what is in a folder, until dropped.
#[derive(Debug)]
pub struct Change {
    folder: Folder,
    /// The folder, locked.
    lock: File,
}

impl Folder {
    /// The folder at this path; touches nothing.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn roots(&self) -> PathBuf {
        self.0.join(ROOTS)
    }

    /// The roots in it; `None` if there are none. Needs no lock: the file is
    /// only ever replaced as a whole.
    ///
    /// # Errors
    /// Others may read or change it, it is damaged, or it cannot be read.
    pub fn read(&self) -> Result<Option<Roots>, PlatformError> {
        if !self.is_private()? {
            return Ok(None);
        }
        let path = self.roots();
        let file = match open(&path, OpenOptions::new().read(true)) {
            Err(PlatformError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(format::MAX_SIZE + 1));
        // one byte more, to see that there is no more
        file.take(format::MAX_SIZE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(PlatformError::io("read", &path))?;
        format::decode(&bytes).map(Some).map_err(|e| match e {
            FormatError::Damaged(reason) => PlatformError::Damaged { path, reason },
            FormatError::Version(version) => PlatformError::Version { path, version },
        })
    }

    /// Whether it is there, and the user's alone.
    fn is_private(&self) -> Result<bool, PlatformError> {
        let meta = match fs::metadata(&self.0) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            other => other.map_err(PlatformError::io("look at", &self.0))?,
        };
        if !meta.is_dir() {
            return Err(PlatformError::Kind { path: self.0.clone(), wanted: "folder" });
        }
        check_private(&self.0, &meta, 0o700)?;
        Ok(true)
    }

    /// Takes part in the use of the platform until the file is dropped; waits
    /// while it is being changed.
    ///
    /// # Errors
    /// The file cannot be opened or locked.
    pub fn share(&self) -> Result<File, PlatformError> {
        let (path, file) = self.open_in_use()?;
        file.lock_shared().map_err(PlatformError::io("lock", &path))?;
        Ok(file)
    }

    fn open_in_use(&self) -> Result<(PathBuf, File), PlatformError> {
        let path = self.0.join(IN_USE);
        let file = open(&path, OpenOptions::new().read(true).write(true).create(true))?;
        Ok((path, file))
    }

    /// Makes the folder if need be, and waits for the right to change it.
    ///
    /// # Errors
    /// It cannot be made or locked, or is not the user's alone.
    pub fn change(&self) -> Result<Change, PlatformError> {
        for _ in 0..TRIES {
            if let Err(e) = DirBuilder::new().recursive(true).mode(0o700).create(&self.0) {
                // a file, or a link that leads nowhere
                if e.kind() == ErrorKind::AlreadyExists {
                    return Err(PlatformError::Kind { path: self.0.clone(), wanted: "folder" });
                }
                return Err(PlatformError::io("make the folder", &self.0)(e));
            }
            // it may go as fast as it came: see `Change::withdraw`
            if !self.is_private()? {
                continue;
            }
            let lock = match File::open(&self.0) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(PlatformError::io("open", &self.0))?,
            };
            lock.lock().map_err(PlatformError::io("lock", &self.0))?;
            let locked = lock.metadata().map_err(PlatformError::io("look at", &self.0))?;
            let same = |now: Metadata| (now.dev(), now.ino()) == (locked.dev(), locked.ino());
            if fs::metadata(&self.0).is_ok_and(same) {
                return Ok(Change { folder: self.clone(), lock });
            }
        }
        Err(PlatformError::Raced(self.0.clone()))
    }
}

impl Change {
    /// Whether there is a file of roots, readable or not.
    pub fn is_taken(&self) -> bool {
        fs::symlink_metadata(self.folder.roots()).is_ok()
    }

    /// Makes sure that no machine uses the platform, until the file is dropped.
    ///
    /// # Errors
    /// One does.
    pub fn exclude(&self) -> Result<File, PlatformError> {
        let (path, file) = self.folder.open_in_use()?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(PlatformError::InUse(self.folder.0.clone())),
            Err(TryLockError::Error(e)) => Err(PlatformError::io("lock", &path)(e)),
        }
    }

    /// Writes the roots: after it the old ones or the new are there, whatever
    /// happens meanwhile.
    ///
    /// # Errors
    /// They cannot be written; what was there before still is.
    pub fn write(&self, roots: &Roots) -> Result<(), PlatformError> {
        let path = self.folder.roots();
        let fail = || PlatformError::io("write", &path);
        self.sweep();
        let bytes = format::encode(roots);
        let mut file =
            tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder.0).map_err(fail())?;
        file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(fail())?;
        file.persist(&path).map_err(|e| fail()(e.error))?;
        self.lock.sync_all().map_err(fail())?;
        // the folder's own name, in case it is new
        sync_parent(&self.folder.0)
    }

    /// Removes what writers left that were killed.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder.0).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Gives the file of roots a second name in the folder, to be kept when it
    /// is replaced; `None` if there is none.
    ///
    /// # Errors
    /// The host refuses.
    pub fn keep_aside(&self, now: u64) -> Result<Option<PathBuf>, PlatformError> {
        if !self.is_taken() {
            return Ok(None);
        }
        let names = (0u32..1000).map(|i| match i {
            0 => format!("{ROOTS}.replaced-{now}"),
            i => format!("{ROOTS}.replaced-{now}-{i}"),
        });
        let from = self.folder.roots();
        for name in names {
            let to = self.folder.0.join(name);
            match fs::hard_link(&from, &to) {
                Ok(()) => return Ok(Some(to)),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                // a file system without such links: a name is free, so move it
                Err(_) => {
                    fs::rename(&from, &to).map_err(PlatformError::io("put aside", &from))?;
                    return Ok(Some(to));
                }
            }
        }
        Err(PlatformError::io("put aside", &from)(io::Error::from(ErrorKind::AlreadyExists)))
    }

    /// Gives up: the folder is removed again if nothing is in it.
    pub fn withdraw(self) {
        // still locked: who waits for the lock then sees that the folder is gone
        let _ = fs::remove_dir(&self.folder.0);
    }
}

/// Makes the entry of `path` in its folder last.
///
/// # Errors
/// The folder cannot be opened or written.
pub(crate) fn sync_parent(path: &Path) -> Result<(), PlatformError> {
    let parent = parent(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(PlatformError::io("write", parent))
}

/// The folder that `path` is in.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a file of the folder that is the user's alone; follows no link and
/// waits for nobody.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, PlatformError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let kind = || PlatformError::Kind { path: path.to_owned(), wanted: "regular file" };
    let opened = options.mode(0o600).custom_flags(flags.bits() as i32).open(path);
    let file = match opened {
        // a link, or a folder opened for writing
        Err(e) if is_kind(&e) => return Err(kind()),
        other => other.map_err(PlatformError::io("open", path))?,
    };
    let meta = file.metadata().map_err(PlatformError::io("look at", path))?;
    if !meta.is_file() {
        return Err(kind());
    }
    check_private(path, &meta, 0o600)?;
    Ok(file)
}

fn check_private(path: &Path, meta: &Metadata, wanted: u32) -> Result<(), PlatformError> {
    let you = rustix::process::geteuid().as_raw();
    if meta.uid() != you {
        return Err(PlatformError::Foreign { path: path.to_owned(), owner: meta.uid(), you });
    }
    let mode = meta.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(PlatformError::TooOpen { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Whether opening failed because of what is there.
fn is_kind(e: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(e), Some(Errno::LOOP | Errno::ISDIR | Errno::NXIO))
}
