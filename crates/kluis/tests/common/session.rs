//! A machine that runs while the test does other things.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A `kluis run` in the background, killed when dropped.
pub(crate) struct Session {
    child: Child,
    /// Standard input; it ends when taken.
    pub(crate) input: Option<ChildStdin>,
    output: Lines,
    errors: Lines,
}

/// A stream's lines, as they come.
struct Lines {
    more: Receiver<String>,
    /// All that were taken so far.
    text: String,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let (tell, more) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { more, text: String::new() }
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Option<String> {
        let line = match self.more.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => return None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing more comes after\n{}", self.text),
        };
        self.text.push_str(&line);
        self.text.push('\n');
        Some(line)
    }

    fn until<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = wanted(&self.next()?) {
                return Some(found);
            }
        }
    }
}

impl Session {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        let output = Lines::of(child.stdout.take().unwrap());
        let errors = Lines::of(child.stderr.take().unwrap());
        Self { child, input, output, errors }
    }

    /// Writes to its standard input.
    pub(crate) fn say(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Where on the host the guest's port is, as it was told. Ports are asked for in the
    /// order of the options.
    pub(crate) fn published(&mut self, guest: u16) -> String {
        let end = format!(" leads to the guest's port {guest}");
        let told = |line: &str| line.strip_suffix(&end)?.strip_prefix("kluis: ").map(str::to_owned);
        self.errors.until(told).unwrap_or_else(|| panic!("no port is told: {}", self.errors.text))
    }

    /// Waits for a line of its errors that begins so; the rest of it.
    pub(crate) fn told(&mut self, wanted: &str) -> String {
        let told = self.errors.until(|line| line.strip_prefix(wanted).map(str::to_owned));
        told.unwrap_or_else(|| panic!("no {wanted:?} is told: {}", self.errors.text))
    }

    /// Waits for a line on standard output.
    pub(crate) fn hear(&mut self, wanted: &str) {
        while !self.hear_after(wanted).is_empty() {}
    }

    /// Waits for a line on standard output that begins so; the rest of it.
    pub(crate) fn hear_after(&mut self, wanted: &str) -> String {
        self.output.until(|line| line.strip_prefix(wanted).map(str::to_owned)).unwrap_or_else(|| {
            while self.errors.next().is_some() {}
            panic!("no {wanted:?} in\n{}\n{}", self.output.text, self.errors.text);
        })
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end: status, standard output and errors.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        self.input = None;
        while self.output.next().is_some() {}
        while self.errors.next().is_some() {}
        let status = self.child.wait().unwrap();
        (status, std::mem::take(&mut self.output.text), std::mem::take(&mut self.errors.text))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
