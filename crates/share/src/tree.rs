//! The file system: FUSE's operations on entries of open folders.
//!
//! Every path has one component, relative to a folder's descriptor, and its
//! last symbolic link is not followed. Opening, and what the kernel has no call
//! for by `O_PATH` descriptors, goes by `/proc/self/fd`, whose entries lead to
//! the very file, wherever it is by then.

use crate::attr;
use crate::nodes::{Node, Nodes};
use fuse_backend_rs::abi::fuse_abi::{CreateIn, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, FsOptions, OpenOptions, SetattrValid, ZeroCopyReader,
    ZeroCopyWriter,
};
use rustix::fs::{
    self, AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RawDir, RenameFlags, SeekFrom, Stat,
    Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the guest may believe what it was told: changes on the host are
/// seen after this time at the latest.
const BELIEVE: Duration = Duration::from_secs(1);
/// Flags of open files that the guest chooses; the others are not for it.
const OPEN_FLAGS: OFlags =
    OFlags::RWMODE.union(OFlags::APPEND).union(OFlags::TRUNC).union(OFlags::SYNC).union(OFlags::DSYNC);
/// Those that every open file has.
const ALWAYS: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY).union(OFlags::NOFOLLOW);
/// Mode bits that make a program run as somebody else.
const SET_ID: u32 = 0o6000;
/// What one reading of a folder holds, in bytes.
const DIRECTORY: usize = 32 << 10;

/// A shared folder.
pub(crate) struct Tree {
    read_only: bool,
    /// `/proc/self/fd`.
    proc_fds: OwnedFd,
    nodes: Mutex<Nodes>,
}

/// One component, which stays in its folder.
fn component(name: &CStr) -> io::Result<&CStr> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

fn flags(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags)
}

/// Whether a file opened so can be changed by that.
fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::TRUNC) || flags & OFlags::RWMODE != OFlags::RDONLY
}

impl Tree {
    pub(crate) fn new(root: OwnedFd, stat: &Stat, read_only: bool, descriptors: usize) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_fds = fs::openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
        Ok(Self { read_only, proc_fds, nodes: Mutex::new(Nodes::new(root, stat, descriptors)?) })
    }

    /// Whether the folder can be read.
    pub(crate) fn check(&self) -> io::Result<()> {
        let root = self.node(crate::nodes::ROOT)?;
        self.reopen(&root, OFlags::RDONLY | OFlags::DIRECTORY).map(drop)
    }

    /// The guest starts afresh: all but the root is forgotten.
    pub(crate) fn clear(&self) {
        self.nodes().clear();
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        // what a panic left is a table still
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, number: u64) -> io::Result<Node> {
        Ok(self.nodes().get(number)?.clone())
    }

    fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(Errno::ROFS.into()) } else { Ok(()) }
    }

    /// Whether something may be made, of which so many descriptors are to be held.
    fn may_make(&self, descriptors: usize) -> io::Result<()> {
        self.writable()?;
        Ok(self.nodes().has_room(descriptors)?)
    }

    /// Name of a node in `/proc/self/fd`.
    fn proc_name(node: &Node) -> String {
        node.fd.as_raw_fd().to_string()
    }

    /// Opens a node, which must be a file or a folder.
    fn reopen(&self, node: &Node, flags: OFlags) -> io::Result<File> {
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            return Err(Errno::ACCESS.into());
        }
        // the entry itself is a link
        let flags = (flags | ALWAYS) - OFlags::NOFOLLOW;
        let file = fs::openat(&self.proc_fds, Self::proc_name(node), flags, Mode::empty())?;
        if writes(flags) && node.kind == FileType::RegularFile {
            // a program that runs as its owner is not to be changed by a guest: for
            // all but root the host's kernel sees to that
            let stat = fs::fstat(&file)?;
            if stat.st_mode & SET_ID != 0 {
                let _ = fs::fchmod(&file, attr::mode(&stat, stat.st_mode));
            }
        }
        Ok(file.into())
    }

    /// Gives the guest a number for an entry of a folder.
    fn entry(&self, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<Entry> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(folder, name, flags, Mode::empty())?;
        let stat = fs::fstat(&fd)?;
        let inode = self.nodes().know(fd, &stat)?;
        Ok(Entry {
            inode,
            attr: attr::of(&stat),
            attr_timeout: BELIEVE,
            entry_timeout: BELIEVE,
            ..Entry::default()
        })
    }

    /// Creates a file with exactly this mode.
    fn create_new(&self, folder: &Node, name: &CStr, open: OFlags, mode: u32) -> io::Result<File> {
        let open = open | OFlags::CREATE | OFlags::EXCL | ALWAYS;
        let file = fs::openat(&folder.fd, name, open, Mode::from_raw_mode(mode & 0o777))?;
        let stat = fs::fstat(&file)?;
        // this process's umask may have taken rights away
        if stat.st_mode & 0o7777 != mode & attr::MODES {
            fs::fchmod(&file, attr::mode(&stat, mode))?;
        }
        Ok(file.into())
    }

    fn opened(&self, file: File, node: u64) -> io::Result<Option<u64>> {
        Ok(Some(self.nodes().keep(file, node)?))
    }

    /// Lists a folder from `offset` on until `add` says that it is full.
    fn list(
        &self,
        node: u64,
        handle: u64,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, &CStr) -> io::Result<usize>,
    ) -> io::Result<()> {
        let folder = self.nodes().file(handle, node)?.try_clone()?;
        fs::seek(&folder, SeekFrom::Start(offset))?;
        let mut space = [MaybeUninit::uninit(); DIRECTORY];
        let mut entries = RawDir::new(&folder, &mut space);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let listed = DirEntry {
                ino: entry.ino(),
                offset: entry.next_entry_cookie(),
                type_: entry.file_type().as_raw_mode() >> 12,
                name: name.to_bytes(),
            };
            if add(listed, name)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn stat(&self, node: u64, handle: Option<u64>) -> io::Result<Stat> {
        let mut nodes = self.nodes();
        Ok(match handle {
            Some(handle) => fs::fstat(&*nodes.file(handle, node)?)?,
            None => fs::fstat(&*nodes.get(node)?.fd)?,
        })
    }

    fn set_times(&self, node: &Node, attr: &stat64, valid: SetattrValid) -> io::Result<()> {
        let time = |set, now, seconds, nanoseconds| {
            let tv_nsec = if valid.contains(now) {
                UTIME_NOW
            } else if valid.contains(set) {
                nanoseconds
            } else {
                UTIME_OMIT
            };
            Timespec { tv_sec: seconds, tv_nsec }
        };
        let times = Timestamps {
            last_access: time(
                SetattrValid::ATIME,
                SetattrValid::ATIME_NOW,
                attr.st_atime,
                attr.st_atime_nsec,
            ),
            last_modification: time(
                SetattrValid::MTIME,
                SetattrValid::MTIME_NOW,
                attr.st_mtime,
                attr.st_mtime_nsec,
            ),
        };
        Ok(fs::utimensat(&self.proc_fds, Self::proc_name(node), &times, AtFlags::empty())?)
    }
}

/// What is not said here answers ENOSYS, after which Linux asks no more: locks
/// (they are the guest's own), extended attributes, ioctl.
impl FileSystem for Tree {
    type Inode = u64;
    type Handle = u64;

    fn init(&self, _capable: FsOptions) -> io::Result<FsOptions> {
        self.clear();
        Ok(FsOptions::ASYNC_READ
            | FsOptions::ATOMIC_O_TRUNC
            | FsOptions::AUTO_INVAL_DATA
            | FsOptions::BIG_WRITES
            | FsOptions::DO_READDIRPLUS
            | FsOptions::HANDLE_KILLPRIV
            | FsOptions::MAX_PAGES
            | FsOptions::PARALLEL_DIROPS
            | FsOptions::READDIRPLUS_AUTO)
    }

    fn destroy(&self) {
        self.clear();
    }

    fn statfs(&self, ctx: &Context, inode: u64) -> io::Result<statvfs64> {
        let of = fs::fstatvfs(&*self.node(inode)?.fd)?;
        let mut out = Unanswered.statfs(ctx, inode)?;
        out.f_bsize = of.f_bsize;
        out.f_frsize = of.f_frsize;
        out.f_blocks = of.f_blocks;
        out.f_bfree = of.f_bfree;
        out.f_bavail = of.f_bavail;
        out.f_files = of.f_files;
        out.f_ffree = of.f_ffree;
        out.f_namemax = of.f_namemax;
        Ok(out)
    }

    fn lookup(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.entry(self.node(parent)?.fd.as_fd(), component(name)?)
    }

    fn forget(&self, _: &Context, inode: u64, count: u64) {
        self.nodes().forget(inode, count);
    }

    fn getattr(&self, _: &Context, inode: u64, handle: Option<u64>) -> io::Result<(stat64, Duration)> {
        Ok((attr::of(&self.stat(inode, handle)?), BELIEVE))
    }

    fn setattr(
        &self,
        _: &Context,
        inode: u64,
        attr: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<(stat64, Duration)> {
        self.writable()?;
        let node = self.node(inode)?;
        if valid.contains(SetattrValid::MODE) {
            if node.kind == FileType::Symlink {
                return Err(Errno::OPNOTSUPP.into());
            }
            let mode = attr::mode(&fs::fstat(&node.fd)?, attr.st_mode);
            fs::chmodat(&self.proc_fds, Self::proc_name(&node), mode, AtFlags::empty())?;
        }
        // an owner is accepted and stays as it is: what `cp -a` and `tar x` want
        if valid.contains(SetattrValid::SIZE) {
            let size = u64::try_from(attr.st_size).map_err(|_| Errno::INVAL)?;
            match handle {
                Some(handle) => fs::ftruncate(&*self.nodes().file(handle, inode)?, size)?,
                None => fs::ftruncate(&self.reopen(&node, OFlags::WRONLY)?, size)?,
            }
        }
        if valid.intersects(
            SetattrValid::ATIME | SetattrValid::MTIME | SetattrValid::ATIME_NOW | SetattrValid::MTIME_NOW,
        ) {
            self.set_times(&node, &attr, valid)?;
        }
        Ok((attr::of(&fs::fstat(&node.fd)?), BELIEVE))
    }

    fn readlink(&self, _: &Context, inode: u64) -> io::Result<Vec<u8>> {
        Ok(fs::readlinkat(&*self.node(inode)?.fd, "", Vec::new())?.into_bytes())
    }

    fn symlink(&self, _: &Context, target: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.may_make(1)?;
        let folder = self.node(parent)?;
        fs::symlinkat(target, &folder.fd, component(name)?)?;
        self.entry(folder.fd.as_fd(), name)
    }

    fn mknod(
        &self,
        _: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        _: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.may_make(1)?;
        if FileType::from_raw_mode(mode) != FileType::RegularFile {
            return Err(Errno::PERM.into());
        }
        let folder = self.node(parent)?;
        self.create_new(&folder, component(name)?, OFlags::WRONLY, mode & !umask)?;
        self.entry(folder.fd.as_fd(), name)
    }

    fn mkdir(&self, _: &Context, parent: u64, name: &CStr, mode: u32, umask: u32) -> io::Result<Entry> {
        self.may_make(1)?;
        let folder = self.node(parent)?;
        let mode = mode & !umask;
        fs::mkdirat(&folder.fd, component(name)?, Mode::from_raw_mode(mode & 0o777))?;
        let entry = self.entry(folder.fd.as_fd(), name)?;
        let made = self.node(entry.inode)?;
        let stat = fs::fstat(&made.fd)?;
        // somebody on the host may have put something else in its place
        if made.kind != FileType::Directory || stat.st_mode & attr::MODES == mode & attr::MODES {
            return Ok(entry);
        }
        fs::chmodat(&self.proc_fds, Self::proc_name(&made), attr::mode(&stat, mode), AtFlags::empty())?;
        Ok(Entry { attr: attr::of(&fs::fstat(&made.fd)?), ..entry })
    }

    fn unlink(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        Ok(fs::unlinkat(&*self.node(parent)?.fd, component(name)?, AtFlags::empty())?)
    }

    fn rmdir(&self, _: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        Ok(fs::unlinkat(&*self.node(parent)?.fd, component(name)?, AtFlags::REMOVEDIR)?)
    }

    fn rename(
        &self,
        _: &Context,
        old_folder: u64,
        old: &CStr,
        new_folder: u64,
        new: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        let flags = RenameFlags::from_bits_retain(flags);
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL.into());
        }
        let (from, to) = (self.node(old_folder)?, self.node(new_folder)?);
        Ok(fs::renameat_with(&from.fd, component(old)?, &to.fd, component(new)?, flags)?)
    }

    fn link(&self, _: &Context, inode: u64, folder: u64, name: &CStr) -> io::Result<Entry> {
        self.may_make(1)?;
        let (node, folder) = (self.node(inode)?, self.node(folder)?);
        let from = Self::proc_name(&node);
        fs::linkat(&self.proc_fds, from, &folder.fd, component(name)?, AtFlags::SYMLINK_FOLLOW)?;
        self.entry(folder.fd.as_fd(), name)
    }

    fn open(
        &self,
        _: &Context,
        inode: u64,
        how: u32,
        _: u32,
    ) -> io::Result<(Option<u64>, OpenOptions, Option<u32>)> {
        let how = flags(how) & OPEN_FLAGS;
        if writes(how) {
            self.writable()?;
        }
        let node = self.node(inode)?;
        if node.kind == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        let handle = self.opened(self.reopen(&node, how)?, inode)?;
        Ok((handle, OpenOptions::empty(), None))
    }

    fn create(
        &self,
        _: &Context,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        self.may_make(2)?;
        let (folder, how) = (self.node(parent)?, flags(args.flags));
        let made = self.create_new(&folder, component(name)?, how & OPEN_FLAGS, args.mode & !args.umask);
        let made = match made {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !how.contains(OFlags::EXCL) => None,
            Err(e) => return Err(e),
        };
        let entry = self.entry(folder.fd.as_fd(), name)?;
        let opened = made.map_or_else(|| self.reopen(&self.node(entry.inode)?, how & OPEN_FLAGS), Ok);
        match opened.and_then(|file| self.opened(file, entry.inode)) {
            Ok(handle) => Ok((entry, handle, OpenOptions::empty(), None)),
            Err(e) => {
                self.nodes().forget(entry.inode, 1);
                Err(e)
            }
        }
    }

    fn read(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        w: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        let size = (size as usize).min(w.available_bytes());
        w.write_from(self.nodes().file(handle, inode)?, size, offset)
    }

    fn write(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        r: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        self.writable()?;
        r.read_to(self.nodes().file(handle, inode)?, size as usize, offset)
    }

    fn fsync(&self, _: &Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        let file = self.nodes().file(handle, inode)?.try_clone()?;
        if data_only { file.sync_data() } else { file.sync_all() }
    }

    fn fallocate(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.writable()?;
        let mode = FallocateFlags::from_bits_retain(mode);
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP.into());
        }
        Ok(fs::fallocate(&*self.nodes().file(handle, inode)?, mode, offset, length)?)
    }

    fn release(
        &self,
        _: &Context,
        inode: u64,
        _: u32,
        handle: u64,
        _: bool,
        _: bool,
        _: Option<u64>,
    ) -> io::Result<()> {
        Ok(self.nodes().close(handle, inode)?)
    }

    fn opendir(&self, _: &Context, inode: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        let file = self.reopen(&self.node(inode)?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok((self.opened(file, inode)?, OpenOptions::empty()))
    }

    fn readdir(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        _: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.list(inode, handle, offset, &mut |listed, _| add(listed))
    }

    fn readdirplus(
        &self,
        _: &Context,
        inode: u64,
        handle: u64,
        _: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        let folder = self.node(inode)?;
        self.list(inode, handle, offset, &mut |listed, name| {
            // one that cannot be looked at, or is one too many, is listed all the same
            let entry = self.entry(folder.fd.as_fd(), name).unwrap_or_default();
            let added = add(listed, entry);
            if !matches!(added, Ok(1..)) {
                self.nodes().forget(entry.inode, 1);
            }
            added
        })
    }

    fn fsyncdir(&self, ctx: &Context, inode: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.fsync(ctx, inode, data_only, handle)
    }

    fn releasedir(&self, _: &Context, inode: u64, _: u32, handle: u64) -> io::Result<()> {
        Ok(self.nodes().close(handle, inode)?)
    }

    fn lseek(&self, _: &Context, inode: u64, handle: u64, offset: u64, whence: u32) -> io::Result<u64> {
        let to = match i32::try_from(whence) {
            Ok(libc::SEEK_DATA) => SeekFrom::Data(offset),
            Ok(libc::SEEK_HOLE) => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL.into()),
        };
        Ok(fs::seek(&*self.nodes().file(handle, inode)?, to)?)
    }
}

/// Answers as the library does by itself; it knows how to make structures of
/// the C library's.
struct Unanswered;

impl FileSystem for Unanswered {
    type Inode = u64;
    type Handle = u64;
}
