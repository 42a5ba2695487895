//! Starting a command on pipes or on a terminal of its own.

use agent_proto::{Exec, ExitStatus, Tty};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command that was started, and our ends of its streams (non-blocking).
#[derive(Debug)]
pub struct Child {
    /// The process, leader of its own process group.
    pub process: Process,
    /// Where its input goes.
    pub stdin: OwnedFd,
    /// Where its output comes from.
    pub stdout: OwnedFd,
    /// Where its errors come from; none on a terminal.
    pub stderr: Option<OwnedFd>,
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    fd: OwnedFd,
}

/// Why a command did not start: a line for its standard error and the exit
/// code that shells give (*POSIX.1-2017 XCU §2.8.2*).
#[derive(Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// What went wrong, one line without its end.
    pub message: String,
    /// 127 when the program was not found, else 126.
    pub code: u8,
}

impl Process {
    /// The process's number, which is also its group's.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that polls readable once the process has ended.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reaps the process if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        match rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => Some(exit_status(status)),
            // somebody else reaped it: it has ended, its status is lost
            Err(Errno::CHILD) => Some(ExitStatus::Code(255)),
            _ => None,
        }
    }

    /// Sends a signal to the process group; to one that is gone, nothing
    /// happens. Call it only before the process is reaped.
    pub fn signal_group(&self, signal: u8) {
        // SAFETY: plain system call without pointers; the group exists as long
        // as its leader is not reaped, so this can hit nobody else.
        unsafe { libc::kill(-self.pid.as_raw_nonzero().get(), signal.into()) };
    }
}

/// Translates what `waitpid` reports.
#[must_use]
pub fn exit_status(status: WaitStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code as u8),
        (None, Some(signal)) => ExitStatus::Signal(signal as u8),
        // neither stopped nor continued children are asked for
        (None, None) => ExitStatus::Code(255),
    }
}

/// Starts a command; an empty one is a login shell.
///
/// # Errors
/// [`NotStarted`], also when the guest is out of processes or descriptors.
pub fn start(exec: &Exec) -> Result<Child, NotStarted> {
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let shell = [shell.into_vec(), b"-l".to_vec()];
    let argv = if exec.argv.is_empty() { &shell[..] } else { &exec.argv[..] };
    let name = String::from_utf8_lossy(&argv[0]).into_owned();
    let mut command = Command::new(OsStr::from_bytes(&argv[0]));
    command.args(argv[1..].iter().map(|a| OsStr::from_bytes(a)));
    for (key, value) in &exec.env {
        command.env(OsStr::from_bytes(key), OsStr::from_bytes(value));
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
    let cwd = match exec.cwd.as_slice() {
        [] => Path::new(&home),
        dir => Path::new(OsStr::from_bytes(dir)),
    };
    // checked here, because a failing chdir looks like a missing program
    match std::fs::metadata(cwd) {
        Ok(m) if m.is_dir() => command.current_dir(cwd),
        Ok(_) => return Err(not_started(cwd.display(), "not a folder to run in", 126)),
        Err(e) => return Err(not_started(cwd.display(), reason(&e), 126)),
    };
    let started = match &exec.tty {
        None => on_pipes(&mut command),
        Some(tty) => on_terminal(&mut command, tty),
    };
    started.map_err(|e| {
        let code = match e.kind() {
            io::ErrorKind::NotFound => 127,
            _ => 126,
        };
        not_started(name, reason(&e), code)
    })
}

fn not_started(what: impl std::fmt::Display, why: impl std::fmt::Display, code: u8) -> NotStarted {
    NotStarted { message: format!("kluis: {what}: {why}"), code }
}

/// The error in the words that shells use.
fn reason(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "not found".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::ArgumentListTooLong => "argument list too long".into(),
        _ if e.raw_os_error() == Some(libc::ENOEXEC) => "not a program this system runs".into(),
        _ => e.to_string(),
    }
}

fn on_pipes(command: &mut Command) -> io::Result<Child> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let gone = || io::Error::other("a pipe is missing");
    let stdin = OwnedFd::from(child.stdin.take().ok_or_else(gone)?);
    let stdout = OwnedFd::from(child.stdout.take().ok_or_else(gone)?);
    let stderr = OwnedFd::from(child.stderr.take().ok_or_else(gone)?);
    for fd in [&stdin, &stdout, &stderr] {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok(Child { process: process(&child)?, stdin, stdout, stderr: Some(stderr) })
}

fn on_terminal(command: &mut Command, tty: &Tty) -> io::Result<Child> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    resize(master.as_fd(), tty.rows, tty.cols)?;
    if !tty.term.is_empty() {
        command.env("TERM", OsStr::from_bytes(&tty.term));
    }
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    // SAFETY: between fork and exec this makes system calls and touches no
    // memory that another thread may have locked.
    unsafe {
        command.pre_exec(|| {
            // typed signals must act, whatever this process was started with
            for signal in [libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            rustix::process::setsid()?;
            // descriptor 0 is the terminal by now
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
    let child = command.spawn()?;
    // the command holds the terminal's other side; end of file needs it closed
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(Child { process: process(&child)?, stdin: master.try_clone()?, stdout: master, stderr: None })
}

fn process(child: &std::process::Child) -> io::Result<Process> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(Errno::SRCH)?;
    let fd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Process { pid, fd })
}

/// Gives a terminal a new size in characters.
///
/// # Errors
/// When the descriptor is not a terminal.
pub fn resize(master: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
