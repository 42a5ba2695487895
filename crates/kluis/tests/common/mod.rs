//! What the tests of the built command share.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod checked;
pub(crate) mod example;
pub(crate) mod gdb;
pub(crate) mod guest;
pub(crate) mod repository;
pub(crate) mod search;
pub(crate) mod session;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError, mpsc};
use std::time::Duration;

/// The command.
pub(crate) fn kluis() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kluis"));
    command.env_remove("RUST_LOG").env("KLUIS_PLATFORM", platform()).stdin(Stdio::null());
    command
}

/// A platform of the tests' own, made before anybody uses it, so that no
/// machine tells that it made one.
pub(crate) fn platform() -> &'static Path {
    static PLATFORM: OnceLock<PathBuf> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("platform");
        // other tests may have made it already
        platform::Platform::load_or_init(&dir).unwrap();
        dir
    })
}

/// One machine with Debian's kernel at a time, to leave the host to it; the first
/// caller of a process has the image built.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    static IMAGE: Once = Once::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    IMAGE.call_once(|| {
        let image = image::ensure(&image::Options::default());
        assert!(image.is_ok(), "no guest image: {}", image.unwrap_err());
    });
    turn
}

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a command to its end with this input; a hanging one is killed, which
/// its exit code then shows.
pub(crate) fn output(command: &mut Command, input: &[u8]) -> Output {
    output_within(PATIENCE, command, input)
}

/// The same for what takes longer.
pub(crate) fn output_within(patience: Duration, command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    std::thread::spawn(move || {
        // the command may have closed it, or ended
        let _ = stdin.write_all(&input);
    });
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    let mut stdout = child.stdout.take().unwrap();
    let (done, out) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        stdout.read_to_end(&mut text).unwrap();
        let _ = done.send(text);
    });
    let stdout = out.recv_timeout(patience).unwrap_or_else(|_| {
        child.kill().unwrap();
        Vec::new()
    });
    let status = child.wait().unwrap();
    Output { status, stdout, stderr: errors.join().unwrap() }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder for one test.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; gives its path.
    pub(crate) fn file(&self, name: &str, data: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), data).unwrap();
        self.at(name)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An ELF kernel that is nothing but this 64-bit code, at 2 MiB.
pub(crate) fn kernel(code: &[u8]) -> Vec<u8> {
    const AT: u64 = 2 << 20;
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [AT, 64, 0] {
        elf.extend(word.to_le_bytes()); // entry, program headers, sections
    }
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    elf.extend([1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD, rwx
    let len = code.len() as u64;
    for word in [120, AT, AT, len, len, 4096] {
        elf.extend(u64::to_le_bytes(word));
    }
    assert_eq!(elf.len(), 120);
    elf.extend(code);
    elf
}

/// Code that writes `text` to COM1.
pub(crate) fn say(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 3f8h
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Code that resets the machine through the register at CF9h, and waits.
pub(crate) const RESET: &[u8] = &[
    0x66, 0xba, 0xf9, 0x0c, // mov dx, cf9h
    0xb0, 0x02, 0xee, // mov al, 2; out dx, al
    0xb0, 0x06, 0xee, // mov al, 6; out dx, al
    0xeb, 0xfe, // jmp $
];

/// Code that does nothing, for ever.
pub(crate) const HANG: &[u8] = &[0xeb, 0xfe];

/// Code that faults without anybody to handle it: ud2, its IDT being empty.
pub(crate) const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];

/// Code that sends back what COM1 gets, up to and with a `q`.
pub(crate) const ECHO: &[u8] = &[
    0x66, 0xba, 0xfd, 0x03, // mov dx, 3fdh: line status
    0xec, 0xa8, 0x01, // in al, dx; test al, 1: data ready
    0x74, 0xf7, // jz: from the start
    0x66, 0xba, 0xf8, 0x03, // mov dx, 3f8h
    0xec, 0xee, // in al, dx; out dx, al
    0x3c, b'q', // cmp al, 'q'
    0x75, 0xed, // jne: from the start
];
