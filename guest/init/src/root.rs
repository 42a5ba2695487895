//! Handing the machine to a distribution on a disk: its root file system is
//! mounted, what is Kluis's is laid beside it in `/run`, and its own init takes
//! this process's place.
//!
//! The disk holds nothing of Kluis. The agent comes from the initramfs, so it is
//! always that of the Kluis which runs the machine, and is started by a unit in
//! `/run/systemd/system`, which systemd reads like those on disk
//! (*systemd.unit(5)*).

use crate::{attestation, log};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the disk is mounted before it becomes the root.
const NEW_ROOT: &str = "/mnt";
/// Kluis's own folder in the running system.
const RUN: &str = "/run/kluis";
/// Units that are there for this boot only.
const UNITS: &str = "/run/systemd/system";
/// What the host handed over for the running system, beside lists of modules.
const HANDED: &str = "/etc/kluis";
/// The files of it, with their modes: keys that may log in as root, settings of apt.
const FILES: [(&str, u32); 2] = [("authorized_keys", 0o600), ("apt.conf", 0o644)];
/// How long a disk may take to appear after its driver.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent as a service: early, and with all the rights of a login.
const AGENT_UNIT: &str = "\
[Unit]
Description=Kluis agent
After=basic.target network.target

[Service]
ExecStart=/run/kluis/agent agent
KillMode=mixed
TimeoutStopSec=5
OOMPolicy=continue
TasksMax=infinity

";

/// The first network device by DHCP, if the machine has one.
const NETWORK_UNIT: &str = "\
[Unit]
Description=Network by DHCP
DefaultDependencies=no
After=local-fs.target systemd-sysctl.service
Before=network.target shutdown.target
Wants=network.target
Conflicts=shutdown.target

[Service]
Type=forking
PIDFile=/run/udhcpc.eth0.pid
ExecStart=/sbin/udhcpc -b -t 5 -T 1 -i eth0 -p /run/udhcpc.eth0.pid
";

/// Makes `device` the root file system and starts its init. Returns only if
/// that cannot be done; the initramfs is then as it was, unless the error came
/// last of all.
#[must_use]
pub fn switch(device: &str) -> io::Error {
    match prepare(device).and_then(|()| change_root()) {
        Ok(old) => {
            empty(old);
            Command::new("/sbin/init").env_clear().env("TERM", "linux").exec()
        }
        Err(e) => e,
    }
}

fn prepare(device: &str) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(device).exists() {
        if Instant::now() > deadline {
            return Err(because("there is no disk", device)(Errno::NOENT.into()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let none: Option<&std::ffi::CStr> = None;
    mount(device, NEW_ROOT, "ext4", MountFlags::NOATIME, none)
        .map_err(|e| because("cannot mount", device)(e.into()))?;
    let (run, units) = (Path::new(RUN), Path::new(UNITS));
    lay_out(Path::new(HANDED), run, units).map_err(because("cannot write to", "/run"))?;
    // a system without quotes is better than none
    if let Err(e) = attestation::lay_out(Path::new("/"), Path::new(NEW_ROOT), run, units) {
        log::error(format!("there is no service for quotes of enclaves: {e}"));
    }
    Ok(())
}

/// Puts the agent, its unit and what was handed over where the booted system finds
/// them. A file that was not is empty.
fn lay_out(handed: &Path, run: &Path, units: &Path) -> io::Result<()> {
    fs::create_dir_all(run)?;
    let agent = run.join("agent");
    fs::copy("/proc/self/exe", &agent)?;
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
    for (name, mode) in FILES {
        let text = match fs::read(handed.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let file = run.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    start(units, "multi-user.target", "kluis-agent.service", AGENT_UNIT)?;
    if Path::new("/sys/class/net/eth0").exists() {
        start(units, "multi-user.target", "kluis-network.service", NETWORK_UNIT)?;
    }
    Ok(())
}

/// Writes a unit that is started with a target, at boot.
pub(crate) fn start(units: &Path, target: &str, name: &str, unit: &str) -> io::Result<()> {
    let wants = units.join(format!("{target}.wants"));
    fs::create_dir_all(&wants)?;
    fs::write(units.join(name), unit)?;
    symlink(format!("../{name}"), wants.join(name))
}

/// Moves the kernel's file systems along and makes the disk the root; gives the
/// old one, which only the descriptor leads to any more.
fn change_root() -> io::Result<OwnedFd> {
    let old = openat(CWD, "/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let _ = unmount("/tmp", UnmountFlags::empty());
    for at in ["/dev", "/proc", "/sys", "/run"] {
        let target = PathBuf::from(format!("{NEW_ROOT}{at}"));
        fs::create_dir_all(&target)?;
        mount_move(at, &target).map_err(|e| because("cannot move", at)(e.into()))?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(old)
}

/// Removes the initramfs's files: they take memory. Symbolic links are not
/// followed; there is nothing mounted in it any more.
fn empty(folder: impl AsFd) {
    let Ok(entries) = Dir::read_from(&folder) else { return };
    for entry in entries.flatten() {
        let name: CString = entry.file_name().to_owned();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let removed = if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(sub) = openat(&folder, &name, flags, Mode::empty()) {
                empty(sub);
            }
            unlinkat(&folder, &name, AtFlags::REMOVEDIR)
        } else {
            unlinkat(&folder, &name, AtFlags::empty())
        };
        // the new root's mount point stays, hidden below it
        if let Err(e) = removed
            && e != Errno::BUSY
        {
            log::error(format!("cannot remove {name:?} of the initramfs: {e}"));
        }
    }
}

fn because(what: &'static str, which: &str) -> impl FnOnce(io::Error) -> io::Error {
    let which = which.to_owned();
    move |e| io::Error::new(e.kind(), format!("{what} {which}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_and_its_unit_are_laid_out() {
        let tmp = std::env::temp_dir().join(format!("kluis-root-{}", std::process::id()));
        let (handed, run, units) = (tmp.join("handed"), tmp.join("kluis"), tmp.join("systemd"));
        fs::create_dir_all(&handed).unwrap();
        fs::write(handed.join("authorized_keys"), "key\n").unwrap();
        lay_out(&handed, &run, &units).unwrap();
        for (name, text, mode) in [("authorized_keys", "key\n", 0o600), ("apt.conf", "", 0o644)] {
            assert_eq!(fs::read_to_string(run.join(name)).unwrap(), text);
            assert_eq!(fs::metadata(run.join(name)).unwrap().permissions().mode() & 0o777, mode);
        }
        let agent = fs::metadata(run.join("agent")).unwrap();
        assert_eq!(agent.permissions().mode() & 0o777, 0o755);
        assert_eq!(agent.len(), fs::metadata("/proc/self/exe").unwrap().len());
        let unit = fs::read_to_string(units.join("multi-user.target.wants/kluis-agent.service")).unwrap();
        assert!(unit.contains("ExecStart=/run/kluis/agent agent\n"), "{unit}");
        fs::remove_dir_all(&tmp).unwrap();
    }

    #[test]
    fn emptying_follows_no_links() {
        let tmp = std::env::temp_dir().join(format!("kluis-empty-{}", std::process::id()));
        fs::create_dir_all(tmp.join("old/a/b")).unwrap();
        fs::write(tmp.join("old/a/b/file"), b"x").unwrap();
        fs::create_dir_all(tmp.join("kept")).unwrap();
        fs::write(tmp.join("kept/file"), b"x").unwrap();
        symlink("../kept", tmp.join("old/link")).unwrap();
        empty(fs::File::open(tmp.join("old")).unwrap());
        assert_eq!(fs::read_dir(tmp.join("old")).unwrap().count(), 0);
        assert!(tmp.join("kept/file").exists());
        fs::remove_dir_all(&tmp).unwrap();
    }
}
