//! What a confined process can still do. Each case is a process of its own: this
//! test program again, told by its environment what to try.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::mpsc;
use std::thread;

use jail::calls::Calls;
use jail::files::{Files, Strength};

const CASE: &str = "JAIL_CASE";
const FOLDER: &str = "JAIL_FOLDER";
/// Killed by the filter.
const SIGSYS: i32 = 31;

/// The confined process.
#[test]
fn inside() {
    let Ok(case) = std::env::var(CASE) else { return };
    let folder = std::env::var(FOLDER).unwrap();
    case_of(&case).1(Path::new(&folder));
}

type Case = (&'static str, fn(&Path));

const CASES: &[Case] = &[
    ("files", files),
    ("other_threads", other_threads),
    ("no_files", no_files),
    ("no_sockets", no_sockets),
    ("sockets", sockets),
    ("memory", memory),
    ("exec", exec),
    ("threads", threads),
    ("limits", limits),
];

fn case_of(name: &str) -> &'static Case {
    CASES.iter().find(|case| case.0 == name).unwrap()
}

/// Runs a case; how its process ended.
fn run(name: &str) -> ExitStatus {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [("read/file", "r"), ("write/file", "w"), ("secret", "s")] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "inside", "--nocapture", "--test-threads", "1"]);
    command.env(CASE, case_of(name).0).env(FOLDER, folder.path());
    command.status().unwrap()
}

fn denied<T>(result: std::io::Result<T>) {
    assert_eq!(result.err().map(|e| e.kind()), Some(ErrorKind::PermissionDenied));
}

fn files(folder: &Path) {
    let (read, write, secret) = (folder.join("read"), folder.join("write"), folder.join("secret"));
    let mut open_before = File::open(&secret).unwrap();
    if Files::none().read(&read).write(&write).confine().unwrap() == Strength::None {
        println!("not shown: this kernel has no Landlock");
        return;
    }
    assert_eq!(fs::read(read.join("file")).unwrap(), b"r");
    denied(fs::write(read.join("file"), "x"));
    denied(fs::remove_file(read.join("file")));
    denied(fs::write(read.join("new"), "x"));
    fs::write(write.join("file"), "x").unwrap();
    fs::rename(write.join("file"), write.join("new")).unwrap();
    fs::create_dir(write.join("folder")).unwrap();
    denied(File::open(&secret));
    denied(File::open("/etc/passwd"));
    denied(fs::remove_file(&secret));
    // neither by a link, nor by a rename, nor by a way around
    std::os::unix::fs::symlink(&secret, write.join("link")).unwrap();
    denied(File::open(write.join("link")));
    denied(File::open(write.join("../secret")));
    assert!(fs::hard_link(&secret, write.join("hard")).is_err());
    assert!(fs::rename(&secret, write.join("moved")).is_err());
    denied(Command::new("/bin/true").status());
    // what is open stays open
    let mut text = String::new();
    open_before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "s");
}

fn other_threads(folder: &Path) {
    // the filter reaches threads that were there before it
    let (go, wait) = mpsc::channel::<()>();
    let file = folder.join("read/file");
    let other = thread::spawn(move || {
        wait.recv().unwrap();
        File::open(file)
    });
    Calls::default().confine().unwrap();
    go.send(()).unwrap();
    denied(other.join().unwrap());
}

fn no_files(folder: &Path) {
    let mut file = File::options().read(true).append(true).open(folder.join("write/file")).unwrap();
    Calls::default().confine().unwrap();
    denied(File::open(folder.join("read/file")));
    denied(fs::create_dir(folder.join("new")));
    denied(fs::rename(folder.join("secret"), folder.join("public")));
    file.write_all(b"more").unwrap();
    file.sync_all().unwrap();
}

fn no_sockets(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let unix = UnixListener::bind(folder.join("socket")).unwrap();
    let before = UnixStream::connect(folder.join("socket")).unwrap();
    Calls::default().confine().unwrap();
    denied(TcpStream::connect(listener.local_addr().unwrap()));
    denied(UnixStream::connect(folder.join("socket")));
    // whoever connected is served
    let (mut served, _) = unix.accept().unwrap();
    (&before).write_all(b"hello").unwrap();
    let mut text = [0; 5];
    served.read_exact(&mut text).unwrap();
}

fn sockets(folder: &Path) {
    let unix = UnixListener::bind(folder.join("socket")).unwrap();
    Calls { internet: true, unix: true, ..Calls::default() }.confine().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    UnixStream::connect(folder.join("socket")).unwrap();
    drop(unix);
    denied(File::open(folder.join("read/file")));
}

fn memory(_: &Path) {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
    let map = |prot| {
        // SAFETY: a new mapping, of which nothing else is known.
        unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, prot, MapFlags::PRIVATE) }
    };
    Calls::default().confine().unwrap();
    let page = map(ProtFlags::READ | ProtFlags::WRITE).unwrap();
    // SAFETY: the page is this function's own.
    let made = unsafe { mprotect(page, 4096, MprotectFlags::READ | MprotectFlags::EXEC) };
    assert_eq!(made, Err(rustix::io::Errno::PERM));
    assert!(map(ProtFlags::READ | ProtFlags::EXEC).is_err());
    // large allocations are mappings
    assert_eq!(vec![1u8; 64 << 20].iter().map(|&b| usize::from(b)).sum::<usize>(), 64 << 20);
}

fn exec(_: &Path) {
    Calls { files: true, internet: true, unix: true }.confine().unwrap();
    denied(Command::new("/bin/true").status());
    let error = Command::new("/bin/true").exec();
    unreachable!("the process should have ended, not seen {error}");
}

fn threads(_: &Path) {
    Calls::default().confine().unwrap();
    let sum: i32 = (0..8)
        .map(|n| thread::Builder::new().name(format!("t{n}")).spawn(move || n).unwrap())
        .map(|t| t.join().unwrap())
        .sum();
    assert_eq!(sum, 28);
}

fn limits(folder: &Path) {
    jail::limits::confine(jail::limits::OPEN_FILES).unwrap();
    let many: Vec<_> = (0..jail::limits::OPEN_FILES).map(|_| File::open(folder.join("secret"))).collect();
    assert!(many.last().unwrap().is_err() && many[0].is_ok());
}

#[test]
fn what_is_not_given_cannot_be_reached() {
    for (name, _) in CASES.iter().filter(|case| case.0 != "exec") {
        assert!(run(name).success(), "{name}");
    }
}

#[test]
fn starting_a_program_ends_the_process() {
    let status = run("exec");
    assert_eq!(status.signal(), Some(SIGSYS), "{status}");
}
