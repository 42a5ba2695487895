//! Without a host to talk to: one command, or a shell, on the console.

use crate::{cmdline, log};
use agent_proto::ExitStatus;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::WaitOptions;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Runs `kluis.exec=` of the kernel command line through the shell, or an
/// interactive shell, on the console, and prints its exit code as
/// `kluis-exit: N` on a line of its own (128 + N for signal N, as shells do).
pub fn run() {
    let code = match execute(cmdline::value("kluis.exec").as_deref()) {
        Ok(ExitStatus::Code(code)) => i32::from(code),
        Ok(ExitStatus::Signal(signal)) => 128 + i32::from(signal),
        Err(e) => {
            log::error(format!("cannot run the shell: {e}"));
            if e.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
        }
    };
    let mut out = std::io::stdout();
    let _ = write!(out, "\nkluis-exit: {code}\n");
    let _ = out.flush();
    let _ = rustix::termios::tcdrain(&out);
}

fn execute(command: Option<&str>) -> std::io::Result<ExitStatus> {
    let mut shell = Command::new("/bin/sh");
    match command {
        Some(text) => shell.arg("-c").arg(text),
        None => shell.arg("-l"),
    };
    shell.current_dir("/root");
    // /dev/console cannot be a controlling terminal, what is behind it can
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let device = active.split_whitespace().next_back().unwrap_or("console");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, format!("/dev/{device}"), flags, Mode::empty()) {
        Ok(tty) => {
            shell.stdin(tty.try_clone()?).stdout(tty.try_clone()?).stderr(tty);
        }
        Err(e) => log::error(format!("cannot open /dev/{device}: {e}")),
    }
    // SAFETY: between fork and exec this makes two system calls and touches no
    // memory that another thread may have locked.
    unsafe {
        shell.pre_exec(|| {
            rustix::process::setsid()?;
            // without job control the shell still works
            let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
            Ok(())
        });
    }
    let child = shell.spawn()?;
    loop {
        // reaps orphans as well
        let (pid, status) = rustix::process::wait(WaitOptions::empty())?.ok_or(rustix::io::Errno::CHILD)?;
        if pid.as_raw_nonzero().get().unsigned_abs() == child.id() {
            return Ok(crate::child::exit_status(status));
        }
    }
}
