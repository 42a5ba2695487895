//! What every Linux program expects to find: file systems, devices, a host
//! name, an environment, drivers.

use crate::log;
use agent_proto::Mount;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Lists the modules loaded always, one path a line, in order.
const MODULES: &str = "/etc/kluis/modules";
/// Lists of those loaded only when the machine has a virtio device of a type
/// (*virtio 1.2 §5*): loading takes time.
const FOR_DEVICES: [(u16, &str); 4] = [
    (1, "/etc/kluis/modules.net"),
    (2, "/etc/kluis/modules.disk"),
    (19, "/etc/kluis/modules.vsock"),
    (26, "/etc/kluis/modules.share"),
];

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

/// Names the machine.
pub fn host_name() {
    if let Err(e) = rustix::system::sethostname(b"kluis") {
        log::error(format!("cannot set the host name: {e}"));
    }
}

/// Sets this process's environment, which every command inherits. The caller
/// has one thread.
pub fn environment() {
    let _ = std::env::set_current_dir("/");
    let shell = login_shell(&fs::read_to_string("/etc/passwd").unwrap_or_default());
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", shell.as_str()),
        ("TERM", "linux"),
    ] {
        // SAFETY: this process has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Root's shell (*passwd(5)*).
fn login_shell(passwd: &str) -> String {
    let root = passwd.lines().find(|line| line.split(':').nth(2) == Some("0"));
    let shell = root.and_then(|line| line.split(':').nth(6)).filter(|shell| shell.starts_with('/'));
    shell.unwrap_or("/bin/sh").to_owned()
}

/// Loads the modules the image lists, as far as there are devices for them.
pub fn modules() {
    load_list(MODULES);
    for (device, list) in FOR_DEVICES {
        if has_device(device) {
            load_list(list);
        }
    }
}

/// Whether the machine has a virtio device of this type.
pub fn has_device(kind: u16) -> bool {
    let id = format!("{kind:#06x}");
    fs::read_dir("/sys/bus/virtio/devices")
        .into_iter()
        .flatten()
        .flatten()
        .any(|dir| fs::read_to_string(dir.path().join("device")).is_ok_and(|text| text.trim() == id))
}

/// Mounts a shared folder by its tag; makes the folder to mount it on.
///
/// # Errors
/// What cannot be done and why, for people.
pub fn share(share: &Mount) -> Result<(), String> {
    let target = Path::new(OsStr::from_bytes(&share.target));
    let fail = |what: &str, e: std::io::Error| format!("cannot {what} {}: {e}", target.display());
    if !target.is_absolute() {
        return Err(format!("{} is no absolute path to mount a share on", target.display()));
    }
    fs::create_dir_all(target).map_err(|e| fail("make the folder", e))?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, share.read_only);
    let none: Option<&std::ffi::CStr> = None;
    mount(share.tag.as_slice(), target, "virtiofs", flags, none)
        .map_err(|e| fail("mount a share on", e.into()))
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

#[cfg(test)]
mod tests {
    #[test]
    fn login_shell_is_roots() {
        let passwd = "x:x:1:1::/:/bin/x\nroot:x:0:0:root:/root:/bin/bash\n";
        assert_eq!(super::login_shell(passwd), "/bin/bash");
        for odd in ["", "root:x:0:0\n", "root:x:0:0:root:/root:\n"] {
            assert_eq!(super::login_shell(odd), "/bin/sh");
        }
    }
}
