//! A machine in a process of its own, and what is asked of the host program in it.

use super::Interrupted;
use super::story::printable;
use crate::exit::Error;
use serde_json::Value;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The size of all machines of the demo.
pub(super) const SIZE: &str = "Standard_DC1s_v2";
/// The guest's port (vsock) at which the enclave's clients come in.
pub(super) const PORT: u32 = 7000;
/// The name of the socket at which clients come in on the host.
pub(super) const SOCKET: &str = "clinic.socket";
/// Where the shared folder is in the guest.
const FOLDER: &str = "/demo";
/// How long an answer may take: a boot, the enclaves for a quote, a slow host.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between looks at whether we are to end.
const LOOK: Duration = Duration::from_millis(100);
/// Most bytes of an answer.
const MAX_LINE: u64 = 64 << 10;
/// Most bytes that are told of what a machine has said of its end.
const MAX_SAID: usize = 4096;

/// A machine that runs; ended when dropped.
pub(super) struct Machine {
    process: Child,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    /// The end of what it has told of itself.
    errors: Arc<Mutex<Vec<u8>>>,
    socket: PathBuf,
    interrupted: Interrupted,
}

/// What the host program says.
pub(super) type Answer = Result<Value, String>;

impl Machine {
    /// Starts a machine on the platform in `platform`, which shares the folder `shared`. Its
    /// socket and what it says of itself are in the folder `own`.
    ///
    /// # Errors
    /// There is no process for it.
    pub(super) fn start(
        platform: &Path,
        shared: &Path,
        own: &Path,
        interrupted: &Interrupted,
    ) -> Result<Self, Error> {
        let cannot = |e: std::io::Error| Error::failed(format!("cannot start a machine: {e}"));
        let socket = own.join(SOCKET);
        let with = |before: &str, path: &Path, after: &str| {
            let mut text = OsString::from(before);
            text.push(path);
            text.push(after);
            text
        };
        std::fs::create_dir_all(own).map_err(cannot)?;
        let enter = format!("cd {FOLDER} && exec ./clinic-host");
        let mut process = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("--platform")
            .arg(platform)
            .args(["run", "--quiet", "--size", SIZE, "--network", "none"])
            .arg("--share")
            .arg(with("", shared, &format!(":{FOLDER}")))
            .arg("--vsock-listen")
            .arg(with(&format!("{PORT}="), &socket, ""))
            .args(["--", "sh", "-c", &enter])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let (requests, stdout) = (process.stdin.take(), process.stdout.take());
        let (send, answers) = sync_channel(1);
        let read = move || -> Option<()> {
            let mut reader = BufReader::new(stdout?);
            loop {
                let mut line = Vec::new();
                reader
                    .by_ref()
                    .take(MAX_LINE)
                    .read_until(b'\n', &mut line)
                    .ok()
                    .filter(|count| *count > 0)?;
                send.send(String::from_utf8_lossy(&line).into_owned()).ok()?;
            }
        };
        thread::Builder::new().spawn(read).map_err(Error::no_thread)?;
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (stderr, kept) = (process.stderr.take(), errors.clone());
        let keep = move || -> Option<()> {
            let (mut stderr, mut piece) = (stderr?, [0; MAX_SAID]);
            loop {
                let count = stderr.read(&mut piece).ok().filter(|count| *count > 0)?;
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&piece[..count]);
                let old = kept.len().saturating_sub(MAX_SAID);
                kept.drain(..old);
            }
        };
        thread::Builder::new().spawn(keep).map_err(Error::no_thread)?;
        Ok(Self { process, requests, answers, errors, socket, interrupted: interrupted.clone() })
    }

    /// Asks the host program for something, whose answer [`Machine::answer`] has.
    ///
    /// # Errors
    /// The machine has ended.
    pub(super) fn ask(&mut self, request: &str) -> Result<(), Error> {
        let asked =
            self.requests.as_mut().map(|requests| requests.write_all(format!("{request}\n").as_bytes()));
        if asked.is_some_and(|asked| asked.is_ok()) { Ok(()) } else { Err(self.ended()) }
    }

    /// The next answer.
    ///
    /// # Errors
    /// There is none: the machine has ended, or is silent.
    pub(super) fn answer(&mut self) -> Result<Answer, Error> {
        let until = Instant::now() + PATIENCE;
        let line = loop {
            match self.answers.recv_timeout(LOOK) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
                Err(RecvTimeoutError::Timeout) if self.is_interrupted() => return Err(interrupted()),
                Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                    let said = self.said();
                    return Err(Error::failed(format!("the machine has been silent for {PATIENCE:?}{said}")));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let other = || Error::failed(format!("the host program in the machine says {line:?}"));
        let mut answer: Value = serde_json::from_str(&line).map_err(|_| other())?;
        match (answer.get_mut("ok").map(Value::take), answer["error"].as_str()) {
            (Some(done), None) => Ok(Ok(done)),
            (None, Some(why)) => Ok(Err(why.to_owned())),
            _ => Err(other()),
        }
    }

    /// Asks for what must be done.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn has_done(&mut self, request: &str) -> Result<Value, Error> {
        self.ask(request)?;
        self.answer()?.map_err(|why| Error::Unmet(format!("`{request}` is refused: {}", printable(&why))))
    }

    /// Asks for what is perhaps refused.
    ///
    /// # Errors
    /// There is no answer.
    pub(super) fn tried(&mut self, request: &str) -> Result<Answer, Error> {
        self.ask(request)?;
        self.answer()
    }

    /// Where clients of the enclave come in.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its number among processes.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets it come to its end.
    ///
    /// # Errors
    /// It does not end well.
    pub(super) fn end(mut self) -> Result<(), Error> {
        // the host program has nothing more to read
        self.requests = None;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) if self.is_interrupted() => return Err(interrupted()),
                Ok(None) if Instant::now() < until => thread::sleep(LOOK / 10),
                _ => return Err(self.ended()),
            }
        }
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) != 0
    }

    fn ended(&mut self) -> Error {
        let said = self.said();
        Error::failed(format!("the machine has ended{said}"))
    }

    /// What it has told of itself.
    fn said(&self) -> String {
        let said = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        match String::from_utf8_lossy(&said).trim() {
            "" => String::new(),
            text => format!(": {}", printable(text)),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.requests = None;
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

fn interrupted() -> Error {
    Error::failed("a signal has ended the demo")
}
