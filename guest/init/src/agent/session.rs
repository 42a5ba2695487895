//! One command's life: its streams, its end, what is told about it.

use crate::child::{self, Process};
use crate::log;
use crate::pump::{Flow, Pump};
use agent_proto::{Exec, ExitStatus, Stream, ToHost};
use rustix::event::PollFlags;
use rustix::process::{Pid, WaitStatus};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Output of a terminal still read after its command ended, in bytes at most:
/// programs it left behind may write for ever. (A pipe says how much it holds.)
const LAST_OUTPUT: u64 = 1 << 20;

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

impl From<Stream> for Source {
    fn from(s: Stream) -> Self {
        match s {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
        }
    }
}

/// Host to command.
#[derive(Debug, Default)]
struct Input {
    pump: Pump,
    /// Closed when the input ended or the command closed its side.
    sink: Option<OwnedFd>,
    received: u64,
    /// How many bytes come in all, once the host said.
    total: Option<u64>,
}

/// Command to host.
#[derive(Debug, Default)]
struct Output {
    pump: Pump,
    source: Option<OwnedFd>,
    sent: u64,
    /// Bytes still to be read, once the command has ended.
    budget: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Session {
    /// None once it is reaped, or if it never started.
    process: Option<Process>,
    status: Option<ExitStatus>,
    input: Input,
    stdout: Output,
    stderr: Output,
    /// The terminal, for as long as the session lasts.
    terminal: Option<OwnedFd>,
    reported: bool,
}

impl Session {
    pub(super) fn start(exec: &Exec) -> Self {
        let mut session = Self {
            process: None,
            status: None,
            input: Input::default(),
            stdout: Output::default(),
            stderr: Output::default(),
            terminal: None,
            reported: false,
        };
        match child::start(exec) {
            Ok(child) => {
                if child.stderr.is_none() {
                    session.terminal = child.stdin.try_clone().ok();
                }
                session.process = Some(child.process);
                session.input.sink = Some(child.stdin);
                session.stdout.source = Some(child.stdout);
                session.stderr.source = child.stderr;
            }
            Err(why) => {
                session.status = Some(ExitStatus::Code(why.code));
                match exec.tty {
                    None => session.stderr.pump.set(format!("{}\n", why.message).as_bytes()),
                    Some(_) => session.stdout.pump.set(format!("{}\r\n", why.message).as_bytes()),
                }
            }
        }
        session
    }

    fn output(&self, which: Source) -> &Output {
        match which {
            Source::Stdout => &self.stdout,
            Source::Stderr => &self.stderr,
        }
    }

    fn output_mut(&mut self, which: Source) -> &mut Output {
        match which {
            Source::Stdout => &mut self.stdout,
            Source::Stderr => &mut self.stderr,
        }
    }

    // -- input

    /// Whether the stdin port is to be read now.
    pub(super) fn wants_input(&self) -> bool {
        self.input.pump.is_empty() && self.input.left() > 0
    }

    /// Reads the stdin port; false when the host has closed it.
    pub(super) fn take_input(&mut self, port: BorrowedFd<'_>) -> bool {
        let input = &mut self.input;
        match input.pump.fill(port, input.left()) {
            Flow::Moved(n) => {
                input.received += n as u64;
                if input.sink.is_none() {
                    input.pump.clear();
                } else {
                    self.give_input(PollFlags::OUT);
                }
                self.close_input_at_end();
                true
            }
            Flow::Blocked => true,
            Flow::End => false,
        }
    }

    /// The command's input, when it is to be written, or watched for the
    /// command closing it.
    pub(super) fn sink_interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let sink = self.input.sink.as_ref()?;
        if !self.input.pump.is_empty() {
            return Some((sink.as_fd(), PollFlags::OUT));
        }
        // a terminal would report its own hang-up here again and again
        self.terminal.is_none().then(|| (sink.as_fd(), PollFlags::empty()))
    }

    pub(super) fn give_input(&mut self, flags: PollFlags) {
        let input = &mut self.input;
        let Some(sink) = &input.sink else {
            return;
        };
        let broken = flags.contains(PollFlags::ERR);
        if broken || input.pump.drain(sink.as_fd()) == Flow::End {
            input.sink = None;
            input.pump.clear();
        }
        self.close_input_at_end();
    }

    /// Notes where the input ends; false when that is behind us.
    pub(super) fn end_input(&mut self, total: u64) -> bool {
        let sane = total >= self.input.received;
        self.input.total = Some(total.max(self.input.received));
        self.close_input_at_end();
        sane
    }

    fn close_input_at_end(&mut self) {
        let input = &mut self.input;
        if input.left() > 0 || !input.pump.is_empty() {
            return;
        }
        if let (Some(sink), Some(terminal)) = (input.sink.take(), &self.terminal) {
            end_terminal_input(&sink, terminal, input.pump.last());
        }
    }

    pub(super) fn input_ended(&self) -> bool {
        self.input.total.is_some()
    }

    // -- output

    /// The command's output, when it is to be read now.
    pub(super) fn source_interest(&self, which: Source) -> Option<BorrowedFd<'_>> {
        let output = self.output(which);
        let source = output.source.as_ref()?;
        output.pump.is_empty().then(|| source.as_fd())
    }

    pub(super) fn take_output(&mut self, which: Source) {
        let output = self.output_mut(which);
        let Some(source) = &output.source else {
            return;
        };
        match output.pump.fill(source.as_fd(), output.budget.unwrap_or(u64::MAX)) {
            Flow::Moved(n) => {
                output.budget = output.budget.map(|b| b.saturating_sub(n as u64));
            }
            Flow::Blocked => {}
            Flow::End => output.source = None,
        }
    }

    pub(super) fn has_output(&self, which: Source) -> bool {
        !self.output(which).pump.is_empty()
    }

    /// Writes to the port; false when the host has closed it.
    pub(super) fn give_output(&mut self, which: Source, port: BorrowedFd<'_>) -> bool {
        let output = self.output_mut(which);
        match output.pump.drain(port) {
            Flow::Moved(n) => {
                output.sent += n as u64;
                true
            }
            Flow::Blocked => true,
            Flow::End => false,
        }
    }

    /// The host has closed an output's port. While the command runs it waits
    /// for the host to come back; after that nothing is worth waiting for.
    pub(super) fn output_port_closed(&mut self, which: Source) {
        if self.status.is_some() {
            let output = self.output_mut(which);
            output.pump.clear();
            output.source = None;
        }
    }

    /// The host wants no more of this output.
    pub(super) fn close_output(&mut self, which: Source) {
        if self.terminal.is_none() {
            let output = self.output_mut(which);
            output.pump.clear();
            output.source = None;
        }
    }

    // -- the process

    pub(super) fn child_interest(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(Process::as_fd)
    }

    pub(super) fn reap(&mut self) {
        if let Some(status) = self.process.as_ref().and_then(Process::try_wait) {
            self.ended(status);
        }
    }

    /// Some process was reaped; it may be ours.
    pub(super) fn reaped(&mut self, pid: Pid, status: WaitStatus) {
        if self.process.as_ref().is_some_and(|p| p.pid() == pid) {
            self.ended(child::exit_status(status));
        }
    }

    fn ended(&mut self, status: ExitStatus) {
        self.process = None;
        self.status = Some(status);
        self.input.sink = None;
        self.input.pump.clear();
        let terminal = self.terminal.is_some();
        for output in [&mut self.stdout, &mut self.stderr] {
            if let Some(source) = &output.source {
                output.budget = match rustix::io::ioctl_fionread(source) {
                    Ok(held) if !terminal => Some(held),
                    _ => Some(LAST_OUTPUT),
                };
            }
        }
    }

    pub(super) fn signal(&self, signal: u8) {
        if let Some(process) = &self.process {
            process.signal_group(signal);
        }
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) {
        if let Some(terminal) = &self.terminal
            && let Err(e) = child::resize(terminal.as_fd(), rows, cols)
        {
            log::error(format!("cannot resize the terminal: {e}"));
        }
    }

    /// After the command's end: reads what it left in its pipes, without
    /// waiting for others that hold them open.
    pub(super) fn take_last_output(&mut self) {
        if self.status.is_none() {
            return;
        }
        for which in [Source::Stdout, Source::Stderr] {
            if self.output(which).pump.is_empty() {
                self.take_output(which);
                let output = self.output_mut(which);
                if output.pump.is_empty() {
                    output.source = None;
                }
            }
        }
    }

    /// The report of the end, once, when all output is with the host.
    pub(super) fn report(&mut self) -> Option<ToHost> {
        let done = |o: &Output| o.source.is_none() && o.pump.is_empty();
        let status = self.status?;
        if self.reported || !done(&self.stdout) || !done(&self.stderr) {
            return None;
        }
        self.reported = true;
        // hangs up whoever is left on the terminal
        self.terminal = None;
        Some(ToHost::Exit { status, stdout: self.stdout.sent, stderr: self.stderr.sent })
    }

    pub(super) fn reported(&self) -> bool {
        self.reported
    }

    /// Whether nothing of this command is left, neither in the ports.
    pub(super) fn over(&self) -> bool {
        self.reported && self.input.left() == 0
    }
}

impl Input {
    /// Bytes that may still come.
    fn left(&self) -> u64 {
        self.total.map_or(u64::MAX, |t| t.saturating_sub(self.received))
    }
}

/// Types the end-of-file character: twice after an unfinished line, which the
/// first one only hands over (*termios(3), VEOF*). Line editors, which switch
/// that meaning off, read it as the end as well.
fn end_terminal_input(sink: &OwnedFd, terminal: &OwnedFd, last: Option<u8>) {
    let Ok(modes) = tcgetattr(terminal) else {
        return;
    };
    let eof = modes.special_codes[SpecialCodeIndex::VEOF];
    let unfinished = !matches!(last, None | Some(b'\n' | b'\r'));
    let twice = unfinished && modes.local_modes.contains(LocalModes::ICANON);
    let _ = rustix::io::write(sink, &[eof, eof][..1 + usize::from(twice)]);
}
