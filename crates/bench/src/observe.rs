//! Runs a program and reads what it prints, with the time of every line.

use std::collections::VecDeque;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Longer lines are cut: what prints them may be a guest gone astray.
const LINE_LIMIT: usize = 4096;
/// How many last lines are kept for the report of a failure.
const TAIL: usize = 20;

/// How a program ended.
pub(crate) struct Ended {
    /// Its status.
    pub(crate) status: ExitStatus,
    /// The last lines it printed.
    pub(crate) tail: Vec<String>,
}

/// Kills and reaps on drop, so that no machine outlives the benchmark.
struct Reaper(Child);

impl Drop for Reaper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` without input and gives `each` every line of its standard
/// output and error as it comes, with the time since the start of the process.
///
/// # Errors
/// If it cannot be started, or still runs after `timeout`; it is killed then.
pub(crate) fn observe(
    command: &mut Command,
    timeout: Duration,
    mut each: impl FnMut(Duration, &str),
) -> anyhow::Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let mut child = Reaper(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?,
    );
    let (sender, lines) = mpsc::sync_channel(1024);
    if let Some(out) = child.0.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || read_lines(out, &sender));
    }
    if let Some(err) = child.0.stderr.take() {
        thread::spawn(move || read_lines(err, &sender));
    }
    let mut tail = VecDeque::new();
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        match lines.recv_timeout(left) {
            Ok((at, line)) => {
                each(at.saturating_duration_since(start), &line);
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!(
                "{name} was stopped after {} s (--timeout gives it longer); its last lines:\n{}",
                timeout.as_secs(),
                Vec::from(tail).join("\n")
            ),
        }
    }
    let status = child.0.wait().with_context(|| format!("cannot wait for {name}"))?;
    Ok(Ended { status, tail: tail.into() })
}

fn read_lines(mut from: impl Read, to: &SyncSender<(Instant, String)>) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let now = Instant::now();
        for &byte in &buffer[..n] {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if to.send((now, text)).is_err() {
                    return;
                }
            } else if line.len() < LINE_LIMIT {
                line.push(byte);
            }
        }
    }
    if !line.is_empty() {
        let _ = to.send((Instant::now(), String::from_utf8_lossy(&line).into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout: Duration) -> (Vec<String>, anyhow::Result<Ended>) {
        let mut lines = Vec::new();
        let mut command = Command::new("/bin/sh");
        let ended = observe(command.args(["-c", script]), timeout, |_, line| {
            lines.push(line.to_owned());
        });
        (lines, ended)
    }

    #[test]
    fn lines_of_both_streams_and_the_status_arrive() {
        let (mut lines, ended) = sh("echo a; echo b >&2; printf c; exit 3", Duration::from_secs(60));
        lines.sort();
        assert_eq!(lines, ["a", "b", "c"]);
        let ended = ended.unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.tail.len(), 3);
    }

    #[test]
    fn what_does_not_end_is_stopped() {
        let (lines, ended) = sh("echo a; exec sleep 1000", Duration::from_millis(500));
        assert_eq!(lines, ["a"]);
        let message = format!("{:#}", ended.err().unwrap());
        assert!(message.contains("--timeout"), "{message}");
    }

    #[test]
    fn endless_lines_are_cut() {
        let (lines, _) = sh("head -c 1000000 /dev/zero | tr '\\0' x", Duration::from_secs(60));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].len(), LINE_LIMIT);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = observe(&mut Command::new("/nonexistent/x"), Duration::ZERO, |_, _| {});
        assert!(format!("{:#}", error.err().unwrap()).contains("/nonexistent/x"));
    }
}
