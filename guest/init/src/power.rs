//! The end: write out disks and switch off.

use crate::log;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::WaitOptions;
use std::fs;
use std::time::{Duration, Instant};

/// Kills every other process, unmounts disks, and powers the machine off. Where
/// the machine cannot, it halts. Only process 1 may call this.
pub fn off() -> ! {
    // SAFETY: plain system call without pointers. As process 1 this reaches
    // every process but this one (kill(2)).
    unsafe { libc::kill(-1, libc::SIGKILL) };
    // their files must be closed before their file systems can be unmounted
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break,
        }
    }
    unmount_disks();
    rustix::fs::sync();
    if let Err(e) = rustix::system::reboot(rustix::system::RebootCommand::PowerOff) {
        log::error(format!("cannot power off: {e}"));
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Asks the init that runs the system to end it as its `poweroff` does.
pub fn ask_off() {
    let status = std::process::Command::new("/sbin/poweroff").status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        log::error(format!("poweroff failed: {status:?}"));
    }
}

/// Unmounts what is mounted from a device, last mounted first.
fn unmount_disks() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ');
        if let (Some(device), Some(at)) = (fields.next(), fields.next())
            && device.starts_with("/dev/")
            && let Err(e) = unmount(unescape(at), UnmountFlags::empty())
        {
            log::error(format!("cannot unmount {at}: {e}"));
        }
    }
}

/// `/proc/mounts` writes blanks and backslashes as `\ooo` (getmntent(3)).
fn unescape(field: &str) -> Vec<u8> {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|d| {
            let text = std::str::from_utf8(d).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match octal {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(super::unescape(r"/mnt/a\040b\134"), b"/mnt/a b\\");
        assert_eq!(super::unescape(r"/mnt\04"), br"/mnt\04");
        assert_eq!(super::unescape(r"/mnt\777"), br"/mnt\777");
    }
}
