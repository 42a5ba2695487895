//! What a guest can do with a share, and what not, in FUSE's messages.

use share::Share;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

mod op {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const IOCTL: u32 = 39;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const LSEEK: u32 = 46;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
}

const ROOT: u64 = 1;
const MODE: u32 = 1;
const UID: u32 = 2;
const SIZE: u32 = 8;
const MTIME: u32 = 32;

/// The fields of a message, one after the other.
macro_rules! fields {
    ($($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend_from_slice(&$value.to_le_bytes());)*
        bytes
    }};
}

fn named(mut fields: Vec<u8>, names: &[&str]) -> Vec<u8> {
    for name in names {
        fields.extend(name.bytes());
        fields.push(0);
    }
    fields
}

fn u32_at(reply: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(reply[at..at + 4].try_into().unwrap())
}

fn u64_at(reply: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(reply[at..at + 8].try_into().unwrap())
}

/// Answer without header, or the error's number.
type Answer = Result<Vec<u8>, i32>;

struct Guest(Share);

impl Guest {
    fn of(path: &Path, read_only: bool) -> Self {
        let guest = Self(Share::open(path, read_only, 1000).unwrap());
        let mut init = fields!(7u32, 36u32, 1u32 << 20, u32::MAX);
        init.resize(64, 0);
        let answer = guest.ask(op::INIT, 0, &init).unwrap();
        assert_eq!(u32_at(&answer, 0), 7);
        guest
    }

    fn ask(&self, opcode: u32, node: u64, body: &[u8]) -> Answer {
        let mut request = fields!((40 + body.len()) as u32, opcode, 99u64, node, 0u32, 0u32, 1u32, 0u32);
        request.extend(body);
        let mut reply = vec![0; 1 << 17];
        let len = self.0.answer(&mut request, &mut reply);
        assert!(len >= 16, "no answer to {opcode}");
        assert_eq!((u32_at(&reply, 0) as usize, u64_at(&reply, 8)), (len, 99));
        match u32_at(&reply, 4) as i32 {
            0 => Ok(reply[16..len].to_vec()),
            error => Err(-error),
        }
    }

    fn lookup(&self, folder: u64, name: &str) -> Result<u64, i32> {
        self.ask(op::LOOKUP, folder, &named(vec![], &[name])).map(|entry| u64_at(&entry, 0))
    }

    fn open(&self, node: u64, flags: i32) -> Result<u64, i32> {
        self.ask(op::OPEN, node, &fields!(flags, 0u32)).map(|open| u64_at(&open, 0))
    }

    fn read(&self, node: u64, handle: u64, offset: u64, size: u32) -> Answer {
        self.ask(op::READ, node, &fields!(handle, offset, size, 0u32, 0u64, 0u32, 0u32))
    }

    fn write(&self, node: u64, handle: u64, offset: u64, data: &[u8]) -> Answer {
        let mut body = fields!(handle, offset, data.len() as u32, 0u32, 0u64, 0u32, 0u32);
        body.extend(data);
        self.ask(op::WRITE, node, &body)
    }

    fn create(&self, folder: u64, name: &str, flags: i32, mode: u32) -> Answer {
        self.ask(op::CREATE, folder, &named(fields!(flags, mode, 0u32, 0u32), &[name]))
    }

    fn set(&self, node: u64, valid: u32, size: u64, mode: u32) -> Answer {
        let times = fields!(0u64, 1_000_000_000u64, 0u64, 0u32, 5u32, 0u32);
        let body =
            [fields!(valid, 0u32, 0u64, size, 0u64), times, fields!(mode, 0u32, 1000u32, 1000u32, 0u32)];
        self.ask(op::SETATTR, node, &body.concat())
    }

    fn forget(&self, node: u64, times: u64) {
        let mut request = fields!(48u32, op::FORGET, 1u64, node, 0u32, 0u32, 0u32, 0u32, times);
        assert_eq!(self.0.answer(&mut request, &mut []), 0);
    }

    fn content(&self, folder: u64, name: &str) -> Result<String, i32> {
        let node = self.lookup(folder, name)?;
        let handle = self.open(node, libc::O_RDONLY)?;
        let data = self.read(node, handle, 0, 4096)?;
        self.ask(op::RELEASE, node, &fields!(handle, 0u32, 0u32, 0u64))?;
        Ok(String::from_utf8(data).unwrap())
    }

    /// Names in a folder, read piece by piece.
    fn list(&self, folder: u64, opcode: u32, piece: u32) -> Vec<String> {
        let handle = u64_at(&self.ask(op::OPENDIR, folder, &fields!(0u32, 0u32)).unwrap(), 0);
        let (mut names, mut offset) = (Vec::new(), 0u64);
        loop {
            let ask = fields!(handle, offset, piece, 0u32, 0u64, 0u32, 0u32);
            let entries = self.ask(opcode, folder, &ask).unwrap();
            let mut rest = &entries[..];
            if rest.is_empty() {
                return names;
            }
            while !rest.is_empty() {
                if opcode == op::READDIRPLUS {
                    let node = u64_at(rest, 0);
                    rest = &rest[128..];
                    self.forget(node, 1);
                }
                let len = u32_at(rest, 16) as usize;
                offset = u64_at(rest, 8);
                names.push(String::from_utf8(rest[24..24 + len].to_vec()).unwrap());
                rest = &rest[(24 + len).next_multiple_of(8)..];
            }
        }
    }
}

/// A folder with a share in it, and something beside the share.
struct World {
    _tmp: tempfile::TempDir,
    share: PathBuf,
    outside: PathBuf,
}

impl World {
    fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        let (share, outside) = (tmp.path().join("share"), tmp.path().join("outside"));
        fs::create_dir(&share).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(share.join("file"), "file").unwrap();
        fs::create_dir(share.join("folder")).unwrap();
        Self { _tmp: tmp, share, outside }
    }

    fn guest(&self) -> Guest {
        Guest::of(&self.share, false)
    }
}

/// All below a folder: paths, kinds and modes, sizes, times.
fn picture(path: &Path) -> Vec<(PathBuf, u32, u64, i64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        all.push((entry.path(), meta.mode(), meta.size(), meta.mtime()));
        if meta.is_dir() {
            all.extend(picture(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn names_do_not_lead_out() {
    let world = World::new();
    let guest = world.guest();
    let file = guest.lookup(ROOT, "file").unwrap();
    let before = picture(world.share.parent().unwrap());
    for name in ["..", ".", "", "a/b", "/etc", "../outside", "folder/..", "/"] {
        let asked = [
            (op::LOOKUP, named(vec![], &[name])),
            (op::MKDIR, named(fields!(0o755u32, 0u32), &[name])),
            (op::MKNOD, named(fields!(0o100_644u32, 0u32, 0u32, 0u32), &[name])),
            (op::CREATE, named(fields!(libc::O_RDWR, 0o644u32, 0u32, 0u32), &[name])),
            (op::SYMLINK, named(vec![], &[name, "target"])),
            (op::UNLINK, named(vec![], &[name])),
            (op::RMDIR, named(vec![], &[name])),
            (op::RENAME, named(fields!(ROOT), &[name, "new"])),
            (op::RENAME, named(fields!(ROOT), &["file", name])),
            (op::RENAME2, named(fields!(ROOT, 2u32, 0u32), &[name, "file"])),
            (op::LINK, named(fields!(file), &[name])),
        ];
        for (opcode, body) in asked {
            assert_eq!(guest.ask(opcode, ROOT, &body), Err(libc::EINVAL), "{opcode} {name:?}");
        }
    }
    assert_eq!(picture(world.share.parent().unwrap()), before);
}

#[test]
fn links_are_text_and_not_followed() {
    let world = World::new();
    let guest = world.guest();
    symlink(&world.outside, world.share.join("absolute")).unwrap();
    symlink("../outside/secret", world.share.join("relative")).unwrap();
    let before = picture(&world.outside);
    for (name, target) in
        [("absolute", world.outside.as_path()), ("relative", Path::new("../outside/secret"))]
    {
        let link = guest.lookup(ROOT, name).unwrap();
        let text = guest.ask(op::READLINK, link, &[]).unwrap();
        assert_eq!(Path::new(OsStr::from_bytes(&text)), target);
        for flags in
            [libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC, libc::O_PATH, libc::O_TMPFILE]
        {
            assert_eq!(guest.open(link, flags), Err(libc::EACCES));
        }
        assert_eq!(guest.ask(op::OPENDIR, link, &fields!(0u32, 0u32)), Err(libc::EACCES));
        assert_eq!(guest.lookup(link, "secret"), Err(libc::ENOTDIR));
        assert_eq!(guest.create(link, "new", libc::O_RDWR, 0o644), Err(libc::ENOTDIR));
        assert_eq!(guest.create(ROOT, name, libc::O_RDWR, 0o644), Err(libc::EACCES));
        assert_eq!(guest.set(link, SIZE, 0, 0), Err(libc::EACCES));
        assert_eq!(guest.set(link, MODE, 0, 0o777), Err(libc::EOPNOTSUPP));
        guest.set(link, MTIME, 0, 0).unwrap();
        // a link to the link is a link
        guest.ask(op::LINK, ROOT, &named(fields!(link), &[&format!("{name}2")])).unwrap();
        assert!(world.share.join(format!("{name}2")).is_symlink());
    }
    assert_eq!(picture(&world.outside), before);
    // what the guest makes is text as well
    guest.ask(op::SYMLINK, ROOT, &named(vec![], &["made", "/etc/passwd"])).unwrap();
    assert_eq!(fs::read_link(world.share.join("made")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn a_link_put_in_the_way_is_never_followed() {
    let world = World::new();
    let guest = world.guest();
    fs::write(world.share.join("folder/secret"), "inside").unwrap();
    symlink(&world.outside, world.share.join("link")).unwrap();
    let done = AtomicBool::new(false);
    let exchange = || {
        let (a, b) = (world.share.join("folder"), world.share.join("link"));
        while !done.load(Ordering::Relaxed) {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &a,
                rustix::fs::CWD,
                &b,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
    };
    let inside = std::thread::scope(|scope| {
        scope.spawn(exchange);
        let mut inside = 0;
        for _ in 0..3000 {
            let folder = guest.lookup(ROOT, "folder").unwrap();
            match guest.content(folder, "secret") {
                Ok(text) => {
                    assert_eq!(text, "inside");
                    inside += 1;
                }
                Err(error) => assert_eq!(error, libc::ENOTDIR),
            }
            let _ = guest.create(folder, "mine", libc::O_RDWR, 0o600);
            guest.forget(folder, 1);
        }
        done.store(true, Ordering::Relaxed);
        inside
    });
    assert!(inside > 0);
    assert_eq!(picture(&world.outside).len(), 1);
}

#[test]
fn a_folder_that_was_moved_out_does_not_lead_on() {
    let world = World::new();
    let guest = world.guest();
    let folder = guest.lookup(ROOT, "folder").unwrap();
    fs::rename(world.share.join("folder"), world.outside.join("folder")).unwrap();
    assert_eq!(guest.lookup(folder, ".."), Err(libc::EINVAL));
    assert_eq!(guest.lookup(ROOT, "folder"), Err(libc::ENOENT));
}

#[test]
fn magic_links_of_proc_are_text() {
    let guest = Guest::of(Path::new("/proc/self"), false);
    for name in ["root", "cwd", "exe"] {
        let link = guest.lookup(ROOT, name).unwrap();
        assert_eq!(guest.open(link, libc::O_RDONLY), Err(libc::EACCES));
        assert_eq!(guest.lookup(link, "etc"), Err(libc::ENOTDIR));
        assert!(guest.ask(op::READLINK, link, &[]).unwrap().starts_with(b"/"));
    }
    let fds = guest.lookup(ROOT, "fd").unwrap();
    let open = guest.lookup(fds, "0").unwrap();
    assert_eq!(guest.open(open, libc::O_RDONLY), Err(libc::EACCES));
}

#[test]
fn special_files_are_neither_opened_nor_made() {
    let world = World::new();
    let guest = world.guest();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, world.share.join("fifo"), fifo, 0o666.into(), 0).unwrap();
    let _socket = UnixListener::bind(world.share.join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let node = guest.lookup(ROOT, name).unwrap();
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            // a FIFO without its other end would wait for ever
            assert_eq!(guest.open(node, flags), Err(libc::EACCES), "{name}");
            assert_eq!(guest.create(ROOT, name, flags, 0o644), Err(libc::EACCES), "{name}");
        }
    }
    for kind in [libc::S_IFIFO, libc::S_IFCHR, libc::S_IFBLK, libc::S_IFSOCK, libc::S_IFDIR, libc::S_IFLNK] {
        let body = named(fields!(kind | 0o666, 0x103u32, 0u32, 0u32), &["made"]);
        assert_eq!(guest.ask(op::MKNOD, ROOT, &body), Err(libc::EPERM));
    }
    assert!(!world.share.join("made").exists());
    let devices = Guest::of(Path::new("/dev"), false);
    let null = devices.ask(op::LOOKUP, ROOT, &named(vec![], &["null"])).unwrap();
    assert_eq!(u32_at(&null, 40 + 76), 0, "no device number");
    assert_eq!(devices.open(u64_at(&null, 0), libc::O_RDWR), Err(libc::EACCES));
}

#[test]
fn modes_are_those_the_guest_asks_for() {
    let world = World::new();
    let guest = world.guest();
    for mode in (0..0o10000).step_by(7).chain([0o666, 0o777, 0o1777, 0o4755, 0o6777]) {
        let on_host = |name: &str| fs::metadata(world.share.join(name)).unwrap().mode() & 0o7777;
        let created = guest.create(ROOT, "created", libc::O_RDWR, mode).unwrap();
        let node = guest.ask(op::MKNOD, ROOT, &named(fields!(0o100_000 | mode, 0u32, 0u32, 0u32), &["node"]));
        let made = guest.ask(op::MKDIR, ROOT, &named(fields!(mode, 0u32), &["made"])).unwrap();
        for (entry, name, kind) in
            [(created, "created", 0o100_000), (node.unwrap(), "node", 0o100_000), (made, "made", 0o040_000)]
        {
            assert_eq!(on_host(name), mode & 0o1777, "{name} {mode:o}");
            assert_eq!(u32_at(&entry, 100), kind | mode & 0o1777, "{name} {mode:o}");
            assert_eq!((u32_at(&entry, 108), u32_at(&entry, 112)), (0, 0));
            let changed = guest.set(u64_at(&entry, 0), MODE, 0, 0o7777 - mode).unwrap();
            assert_eq!(u32_at(&changed, 76), kind | (0o7777 - mode) & 0o1777);
            assert_eq!(on_host(name), (0o7777 - mode) & 0o1777);
            guest.forget(u64_at(&entry, 0), 1);
        }
        for name in ["created", "node"] {
            guest.ask(op::UNLINK, ROOT, &named(vec![], &[name])).unwrap();
        }
        guest.ask(op::RMDIR, ROOT, &named(vec![], &["made"])).unwrap();
        guest.0.forget();
    }
    // the guest's umask is in what it asks for, ours is not
    guest.ask(op::MKDIR, ROOT, &named(fields!(0o777u32, 0o027u32), &["masked"])).unwrap();
    assert_eq!(fs::metadata(world.share.join("masked")).unwrap().mode() & 0o7777, 0o750);
    // set-user-ID is not seen, and an owner stays
    fs::set_permissions(world.share.join("file"), PermissionsExt::from_mode(0o4755)).unwrap();
    let file = guest.lookup(ROOT, "file").unwrap();
    let attr = guest.set(file, UID, 0, 0).unwrap();
    assert_eq!((u32_at(&attr, 76), u32_at(&attr, 84)), (0o100_755, 0));
    let mode = || fs::metadata(world.share.join("file")).unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o4755);
    guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(mode(), 0o4755);
    guest.open(file, libc::O_RDWR).unwrap();
    assert_eq!(mode(), 0o755);
    let owner = fs::metadata(world.share.join("file")).unwrap().uid();
    assert_eq!(owner, fs::metadata(&world.share).unwrap().uid());
}

#[test]
fn of_a_read_only_share_nothing_changes() {
    let world = World::new();
    fs::write(world.share.join("folder/in"), "in").unwrap();
    let before = picture(&world.share);
    let guest = Guest::of(&world.share, true);
    let (file, folder) = (guest.lookup(ROOT, "file").unwrap(), guest.lookup(ROOT, "folder").unwrap());
    let handle = guest.open(file, libc::O_RDONLY).unwrap();
    let write = [fields!(handle, 0u64, 1u32, 0u32, 0u64, 0u32, 0u32), b"x".to_vec()].concat();
    let mut asked = vec![
        (op::SYMLINK, ROOT, named(vec![], &["new", "target"])),
        (op::MKNOD, ROOT, named(fields!(0o100_644u32, 0u32, 0u32, 0u32), &["new"])),
        (op::MKDIR, ROOT, named(fields!(0o755u32, 0u32), &["new"])),
        (op::UNLINK, ROOT, named(vec![], &["file"])),
        (op::RMDIR, ROOT, named(vec![], &["folder"])),
        (op::RENAME, ROOT, named(fields!(ROOT), &["file", "new"])),
        (op::RENAME2, ROOT, named(fields!(ROOT, 0u32, 0u32), &["file", "new"])),
        (op::LINK, ROOT, named(fields!(file), &["new"])),
        (op::CREATE, ROOT, named(fields!(libc::O_RDONLY, 0o644u32, 0u32, 0u32), &["file"])),
        (op::CREATE, ROOT, named(fields!(libc::O_RDWR, 0o644u32, 0u32, 0u32), &["new"])),
        (op::WRITE, file, write),
        (op::FALLOCATE, file, fields!(handle, 0u64, 100u64, 0u32, 0u32)),
        (op::FALLOCATE, file, fields!(handle, 0u64, 1u64, 3u32, 0u32)),
    ];
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC, libc::O_RDONLY | libc::O_TRUNC, 3] {
        asked.push((op::OPEN, file, fields!(flags, 0u32)));
    }
    for (opcode, node, body) in asked {
        assert_eq!(guest.ask(opcode, node, &body), Err(libc::EROFS), "{opcode}");
    }
    for valid in [MODE, UID, SIZE, MTIME, MODE | SIZE, 0] {
        assert_eq!(guest.set(file, valid, 0, 0o777), Err(libc::EROFS));
    }
    // what there is no operation for changes nothing either
    for opcode in [op::SETXATTR, op::REMOVEXATTR, op::IOCTL, op::COPY_FILE_RANGE] {
        guest
            .ask(opcode, file, &named(fields!(0u32, 0u32, 0u64, 0u64, 0u64, 0u64, 0u64), &["user.x"]))
            .unwrap_err();
    }
    assert_eq!(picture(&world.share), before);
    // and reading goes on
    assert_eq!(guest.content(folder, "in").unwrap(), "in");
    assert_eq!(guest.list(ROOT, op::READDIR, 4096).len(), 2);
    assert_eq!(guest.open(folder, libc::O_TMPFILE | libc::O_RDONLY), Err(libc::EISDIR));
    guest.ask(op::FSYNC, file, &fields!(handle, 0u32, 0u32)).unwrap();
}

#[test]
fn files_are_read_written_and_changed() {
    let world = World::new();
    let guest = world.guest();
    let created = guest.create(ROOT, "new", libc::O_RDWR | libc::O_EXCL, 0o600).unwrap();
    let (node, handle) = (u64_at(&created, 0), u64_at(&created, 128));
    assert_eq!(guest.create(ROOT, "new", libc::O_RDWR | libc::O_EXCL, 0o600), Err(libc::EEXIST));
    let again = guest.create(ROOT, "new", libc::O_RDWR, 0o600).unwrap();
    assert_eq!(u64_at(&again, 0), node, "the same file");
    let data: Vec<u8> = (0..100_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
    assert_eq!(u32_at(&guest.write(node, handle, 5, &data).unwrap(), 0), 100_000);
    assert_eq!(guest.read(node, handle, 5, 100_000).unwrap(), data);
    assert_eq!(guest.read(node, handle, 100_000, 1 << 16).unwrap(), data[99_995..]);
    assert_eq!(guest.read(node, handle, 1 << 40, 10).unwrap(), b"");
    assert_eq!(fs::read(world.share.join("new")).unwrap()[5..], data);
    // appended, wherever the guest believes the end to be
    let append = guest.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    fs::write(world.share.join("new"), "host").unwrap();
    guest.write(node, append, 0, b"guest").unwrap();
    assert_eq!(fs::read(world.share.join("new")).unwrap(), b"hostguest");
    assert_eq!(u64_at(&guest.set(node, SIZE, 4, 0).unwrap(), 24), 4);
    let attr = guest.set(node, MTIME, 0, 0).unwrap();
    assert_eq!((u64_at(&attr, 16 + 32), u32_at(&attr, 16 + 52)), (1_000_000_000, 5));
    // holes
    guest.ask(op::FALLOCATE, node, &fields!(handle, 0u64, 1u64 << 20, 0u32, 0u32)).unwrap();
    guest.ask(op::FALLOCATE, node, &fields!(handle, 0u64, 1u64, 0x40u32, 0u32)).unwrap_err();
    let hole = guest.ask(op::LSEEK, node, &fields!(handle, 0u64, libc::SEEK_HOLE, 0u32)).unwrap();
    assert!(u64_at(&hole, 0) <= 1 << 20);
    assert_eq!(guest.ask(op::LSEEK, node, &fields!(handle, 0u64, libc::SEEK_END, 0u32)), Err(libc::EINVAL));
    // moved, removed, and still there for whoever has it open
    let folder = guest.lookup(ROOT, "folder").unwrap();
    guest.ask(op::RENAME, ROOT, &named(fields!(folder), &["new", "moved"])).unwrap();
    assert_eq!(guest.lookup(folder, "moved"), Ok(node));
    guest.ask(op::LINK, ROOT, &named(fields!(node), &["second"])).unwrap();
    assert_eq!(fs::metadata(world.share.join("second")).unwrap().nlink(), 2);
    guest.ask(op::RENAME2, ROOT, &named(fields!(ROOT, 1u32, 0u32), &["second", "file"])).unwrap_err();
    assert_eq!(
        guest.ask(op::RENAME2, ROOT, &named(fields!(ROOT, 4u32, 0u32), &["second", "x"])),
        Err(libc::EINVAL)
    );
    guest.ask(op::UNLINK, ROOT, &named(vec![], &["second"])).unwrap();
    guest.ask(op::UNLINK, folder, &named(vec![], &["moved"])).unwrap();
    assert_eq!(guest.read(node, handle, 0, 4).unwrap(), b"host");
    // a handle is good for its own node, and once
    assert_eq!(guest.read(folder, handle, 0, 4), Err(libc::EBADF));
    for expected in [Ok(vec![]), Err(libc::EBADF)] {
        assert_eq!(guest.ask(op::RELEASE, node, &fields!(handle, 0u32, 0u32, 0u64)), expected);
    }
    assert_eq!(guest.read(node, handle, 0, 4), Err(libc::EBADF));
    let about = guest.ask(op::STATFS, ROOT, &[]).unwrap();
    assert!(u64_at(&about, 0) > 0 && u32_at(&about, 44) >= 255);
    assert_eq!(guest.ask(op::GETXATTR, node, &named(fields!(0u32, 0u32), &["user.x"])), Err(libc::ENOSYS));
}

#[test]
fn folders_are_listed_whole_in_pieces() {
    let world = World::new();
    let guest = world.guest();
    let folder = guest.lookup(ROOT, "folder").unwrap();
    let mut names: Vec<String> =
        (0..1500).map(|n| format!("entry-{n:0width$}", width = n % 90 + 1)).collect();
    names.sort();
    names.dedup();
    for name in &names {
        fs::write(world.share.join("folder").join(name), "").unwrap();
    }
    for (opcode, piece) in
        [(op::READDIR, 300), (op::READDIR, 1 << 16), (op::READDIRPLUS, 500), (op::READDIRPLUS, 1 << 16)]
    {
        let mut listed = guest.list(folder, opcode, piece);
        listed.sort();
        assert_eq!(listed, names, "{opcode} {piece}");
    }
}

#[test]
fn descriptors_are_bounded_and_come_back() {
    let world = World::new();
    let guest = Guest(Share::open(&world.share, false, 10).unwrap());
    for n in 0..20 {
        fs::write(world.share.join("folder").join(n.to_string()), "").unwrap();
    }
    let folder = guest.lookup(ROOT, "folder").unwrap();
    let known: Vec<_> = (0..20).map(|n| guest.lookup(folder, &n.to_string())).collect();
    assert_eq!(known.iter().filter(|node| node.is_ok()).count(), 8);
    assert_eq!(known[19], Err(libc::ENFILE));
    let first = known[0].unwrap();
    assert_eq!(guest.open(first, libc::O_RDONLY), Err(libc::ENFILE));
    assert_eq!(guest.ask(op::MKDIR, ROOT, &named(fields!(0o755u32, 0u32), &["new"])), Err(libc::ENFILE));
    assert!(!world.share.join("new").exists());
    // a second look at the same counts once, and is forgotten twice
    assert_eq!(guest.lookup(folder, "0"), Ok(first));
    guest.forget(first, 1);
    assert_eq!(guest.lookup(folder, "19"), Err(libc::ENFILE));
    guest.forget(first, 1);
    assert_eq!(guest.ask(op::GETATTR, first, &fields!(0u32, 0u32, 0u64)), Err(libc::ESTALE));
    guest.lookup(folder, "19").unwrap();
    // the root is never forgotten, and all the others with a reset
    guest.forget(ROOT, u64::MAX);
    guest.0.forget();
    assert_eq!(guest.lookup(folder, "1"), Err(libc::ESTALE));
    guest.lookup(ROOT, "folder").unwrap();
}

#[test]
fn a_million_lookups_take_no_more_than_that() {
    const MOST: usize = 500;
    let world = World::new();
    let guest = Guest(Share::open(&world.share, false, MOST).unwrap());
    for n in 0..1000 {
        fs::write(world.share.join("folder").join(n.to_string()), "").unwrap();
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let folder = guest.lookup(ROOT, "folder").unwrap();
    let mut known = 0;
    for round in 0..1000 {
        let found = (0..1000).filter(|n| guest.lookup(folder, &n.to_string()).is_ok()).count();
        known = known.max(found);
        if round % 100 == 0 {
            // those of tests that run beside this one are among them
            assert!(descriptors() < before + MOST + 400);
        }
    }
    assert_eq!(known, MOST - 2, "all but the root and the folder");
    // what it forgets makes room, however often it had looked
    guest.0.forget();
    let folder = guest.lookup(ROOT, "folder").unwrap();
    assert!(guest.lookup(folder, "999").is_ok());
}

#[test]
fn messages_that_lie_are_harmless() {
    let world = World::new();
    let guest = world.guest();
    let mut good = fields!(45u32, op::LOOKUP, 1u64, ROOT, 0u32, 0u32, 0u32, 0u32);
    good.extend(b"file\0");
    for cut in 0..good.len() {
        let mut reply = [0; 200];
        guest.0.answer(&mut good[..cut].to_vec(), &mut reply);
    }
    for room in 0..160 {
        let mut reply = vec![0; room];
        assert!(guest.0.answer(&mut good.clone(), &mut reply) <= room);
    }
    for len in [0u32, 39, 40, 44, 46, 1 << 20, u32::MAX] {
        good[..4].copy_from_slice(&len.to_le_bytes());
        guest.0.answer(&mut good.clone(), &mut [0; 200]);
    }
    for opcode in (0..64).chain([4096, u32::MAX]) {
        for body in 0..100usize {
            let mut request = fields!((40 + body) as u32, opcode, 1u64, ROOT, 0u32, 0u32, 0u32, 0u32);
            request.resize(40 + body, 0xff);
            guest.0.answer(&mut request, &mut [0; 200]);
        }
    }
    assert_eq!(guest.content(ROOT, "file").unwrap(), "file");
}

#[test]
fn only_folders_are_shared() {
    let world = World::new();
    let refused = |path: PathBuf| Share::open(&path, false, 10).err().unwrap().to_string();
    assert!(refused(world.share.join("missing")).contains("check the path"));
    assert!(refused(world.share.join("file")).contains("not a folder"));
    // a link to the folder is the user's own wish
    symlink(&world.share, world.outside.join("link")).unwrap();
    let guest = Guest::of(&world.outside.join("link"), false);
    assert_eq!(guest.content(ROOT, "file").unwrap(), "file");
    assert!(share::descriptors() >= 256);
}
