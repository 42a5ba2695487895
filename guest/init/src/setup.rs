//! What every Linux program expects to find: file systems, devices, a host
//! name, an environment, the loopback interface, drivers.

use crate::log;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Lists the modules loaded always, one path a line, in order.
const MODULES: &str = "/etc/kluis/modules";
/// Lists the modules loaded only when the machine has a virtio disk.
const MODULES_DISK: &str = "/etc/kluis/modules.disk";

/// Mounts the kernel's file systems. What fails is logged: a guest without
/// `/dev/shm` is better than none.
pub fn file_systems() {
    let nosuid = MountFlags::NOSUID;
    let plain = nosuid | MountFlags::NODEV | MountFlags::NOEXEC;
    let table: [(&str, &str, MountFlags, &str); 7] = [
        ("devtmpfs", "/dev", nosuid, "mode=0755"),
        ("proc", "/proc", plain, ""),
        ("sysfs", "/sys", plain, ""),
        ("devpts", "/dev/pts", nosuid | MountFlags::NOEXEC, "mode=0620,gid=5,ptmxmode=0666"),
        ("tmpfs", "/dev/shm", nosuid | MountFlags::NODEV, "mode=1777"),
        ("tmpfs", "/tmp", nosuid | MountFlags::NODEV, "mode=1777"),
        ("tmpfs", "/run", nosuid | MountFlags::NODEV, "mode=0755"),
    ];
    for (kind, at, flags, data) in table {
        let _ = fs::create_dir_all(at);
        let Ok(options) = CString::new(data) else {
            continue;
        };
        match mount(kind, at, kind, flags, Some(options.as_c_str())) {
            // the kernel may have mounted /dev itself
            Ok(()) | Err(Errno::BUSY) => {}
            Err(e) => log::error(format!("cannot mount {kind} on {at}: {e}")),
        }
    }
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
    ] {
        if !Path::new(link).exists() {
            let _ = symlink(target, link);
        }
    }
}

/// Sets the host name and this process's environment, which every command
/// inherits.
pub fn identity() {
    if let Err(e) = rustix::system::sethostname(b"kluis") {
        log::error(format!("cannot set the host name: {e}"));
    }
    let _ = std::env::set_current_dir("/");
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/sh"),
        ("TERM", "linux"),
    ] {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Brings the loopback interface up. Quietly does nothing in a kernel without
/// networking.
pub fn loopback() {
    let Ok(socket) = std::net::UdpSocket::bind("0.0.0.0:0") else {
        return;
    };
    // SAFETY: `ifreq` is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is a socket and the request a whole `ifreq`, as
    // SIOCSIFFLAGS takes them (netdevice(7)).
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) };
    if done != 0 {
        let e = std::io::Error::last_os_error();
        log::error(format!("cannot bring the loopback interface up: {e}"));
    }
}

/// Loads the modules the image lists; those for file systems only when there
/// is a disk, since loading takes time.
pub fn modules() {
    load_list(MODULES);
    let disk = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| e.file_name().as_encoded_bytes().starts_with(b"vd"));
    if disk {
        load_list(MODULES_DISK);
    }
}

fn load_list(list: &str) {
    let text = match fs::read_to_string(list) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
        Err(e) => return log::error(format!("cannot read {list}: {e}")),
    };
    for path in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let loaded = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .and_then(|file| rustix::system::finit_module(&file, c"", 0));
        match loaded {
            // built in or loaded already
            Ok(()) | Err(Errno::EXIST) => {}
            // the driver is there and says that its hardware is not
            Err(Errno::NODEV) => {}
            Err(e) => log::error(format!("cannot load the module {path}: {e}")),
        }
    }
}
