//! What the guest says on its first serial port: kept, watched, passed on.

use super::streams::{Outlet, own};
use crate::cli::RunArgs;
use crate::exit::Error;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

/// Bytes of the console kept for a report.
const KEPT: usize = 64 << 10;
/// A longer line is looked at only so far.
const LONGEST_LINE: usize = 1024;
/// Written by the first process as soon as its file systems are mounted.
const INIT_STARTED: &[u8] = b"kluis-init: started";
/// Begins the kernel's last words.
const PANIC: &[u8] = b"Kernel panic";

/// Where the console goes besides.
#[derive(Default)]
pub(crate) struct Tee {
    /// A file.
    pub(crate) file: Option<File>,
    /// A queue with a writer of its own.
    pub(crate) outlet: Option<Outlet>,
}

impl Tee {
    /// Where `args` lead it, and the file that was made for it if there was none.
    ///
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn of(args: &RunArgs, serial: bool) -> Result<(Self, Option<PathBuf>), Error> {
        let mut tee = Self::default();
        let mut new_file = None;
        match &args.console {
            // it is on standard output already
            Some(path) if path.as_os_str() == "-" && serial => {}
            Some(path) if path.as_os_str() == "-" => {
                tee.outlet = Some(Outlet::new());
            }
            Some(path) => {
                let is_new = !path.exists();
                tee.file = Some(File::create(path).map_err(|e| {
                    Error::bad(format!("cannot write the console to {}: {e}; check the path", path.display()))
                })?);
                new_file = is_new.then(|| path.clone());
            }
            None => {}
        }
        if serial {
            tee.outlet = Some(Outlet::new());
        }
        Ok((tee, new_file))
    }
}

struct Log {
    kept: VecDeque<u8>,
    line: Vec<u8>,
    init_started: Option<Instant>,
    panicked: bool,
    tee: Tee,
    buffer: Vec<u8>,
}

/// The console's log. Clones are the same log.
#[derive(Clone)]
pub(crate) struct Console(Arc<Mutex<Log>>);

impl Console {
    /// An empty log.
    pub(crate) fn new(tee: Tee) -> Self {
        Self(Arc::new(Mutex::new(Log {
            kept: VecDeque::new(),
            line: Vec::new(),
            init_started: None,
            panicked: false,
            tee,
            buffer: Vec::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue that the console goes to, if it does.
    pub(crate) fn outlet(&self) -> Option<Outlet> {
        self.lock().tee.outlet.clone()
    }

    /// When the first process of Kluis's own guest said that it runs.
    pub(crate) fn init_started(&self) -> Option<Instant> {
        self.lock().init_started
    }

    /// Whether the kernel gave up.
    pub(crate) fn panicked(&self) -> bool {
        self.lock().panicked
    }

    /// The last lines, at most `n`, without what could upset a terminal.
    pub(crate) fn tail(&self, n: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.lock().kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text
            .split(['\n', '\r'])
            .map(|line| line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect::<String>())
            .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>())
            .filter(|line| !line.trim().is_empty())
            .collect();
        lines[lines.len().saturating_sub(n)..].to_vec()
    }
}

impl Log {
    fn watch(&mut self, data: &[u8]) {
        for &byte in data {
            if byte != b'\n' {
                if self.line.len() < LONGEST_LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let has = |what: &[u8]| self.line.windows(what.len()).any(|w| w == what);
            if self.init_started.is_none() && has(INIT_STARTED) {
                self.init_started = Some(Instant::now());
            }
            self.panicked |= has(PANIC);
            self.line.clear();
        }
        self.kept.extend(data);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    fn pass_on(&mut self, data: &[u8]) {
        if self.tee.file.is_some() {
            self.buffer.extend_from_slice(data);
            if self.buffer.contains(&b'\n') || self.buffer.len() >= LONGEST_LINE {
                self.write_out();
            }
        }
    }

    fn write_out(&mut self) {
        if let Some(file) = &mut self.tee.file
            && let Err(e) = file.write_all(&self.buffer)
        {
            eprintln!("kluis: cannot write the console's file any more: {e}");
            self.tee.file = None;
        }
        self.buffer.clear();
    }
}

impl Write for Console {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut log = self.lock();
        log.watch(data);
        log.pass_on(data);
        // waiting for a slow reader is done without the lock
        let outlet = log.tee.outlet.clone();
        drop(log);
        if let Some(outlet) = outlet {
            outlet.push_all(data);
        }
        Ok(data.len())
    }

    /// Serial ports flush after each byte: what matters is written at line
    /// ends and by [`Console::finish`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Console {
    /// Starts to write its queue, if it has one, to a standard stream.
    ///
    /// # Errors
    /// The host gives no descriptor or no thread.
    pub(crate) fn start_writing(&self, serial: bool) -> Result<(), Error> {
        let Some(outlet) = self.outlet() else { return Ok(()) };
        let mut to = own(if serial { rustix::stdio::stdout() } else { rustix::stdio::stderr() })?;
        thread::Builder::new()
            .name("console".into())
            .spawn(move || {
                // nobody reads it any more: the guest need not care
                let _ = outlet.write_to(&mut to, &|| {});
            })
            .map_err(Error::no_thread)?;
        Ok(())
    }

    /// Writes out an unfinished last line.
    pub(crate) fn finish(&self) {
        self.lock().write_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_and_panic_are_noticed_in_single_bytes() {
        let mut c = Console::new(Tee::default());
        for byte in b"[    1.2] kluis-init: started" {
            c.write_all(&[*byte]).unwrap();
        }
        assert_eq!(c.init_started(), None);
        c.write_all(b"\r\n").unwrap();
        assert!(c.init_started().is_some());
        assert!(!c.panicked());
        c.write_all(b"[ 2.0] Kernel panic - not syncing: x\n").unwrap();
        assert!(c.panicked());
    }

    #[test]
    fn tail_is_short_and_harmless() {
        let mut c = Console::new(Tee::default());
        c.write_all(b"one\r\n\x1b[2Jtwo\tx\n\nthr\xffee").unwrap();
        assert_eq!(c.tail(2), ["[2Jtwo x", "thr\u{fffd}ee"]);
        assert_eq!(c.tail(9).len(), 3);
    }

    #[test]
    fn log_is_bounded() {
        let mut c = Console::new(Tee::default());
        for _ in 0..100 {
            c.write_all(&[b'x'; 10_000]).unwrap();
        }
        let log = c.lock();
        assert_eq!(log.kept.len(), KEPT);
        assert_eq!(log.line.len(), LONGEST_LINE);
    }

    #[test]
    fn file_gets_everything() {
        let tmp = tempfile::NamedTempFile::new().unwrap();
        let mut c = Console::new(Tee { file: Some(tmp.reopen().unwrap()), outlet: None });
        c.write_all(b"a\nb").unwrap();
        assert_eq!(std::fs::read(tmp.path()).unwrap(), b"a\nb");
        c.write_all(b"c").unwrap();
        c.finish();
        assert_eq!(std::fs::read(tmp.path()).unwrap(), b"a\nbc");
    }
}
