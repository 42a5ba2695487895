//! Debian's i386 architecture as a judge of 32-bit code: its userland under the
//! 64-bit kernel, and its kernels, which bring 32-bit and PAE paging with them.
//! The packages come by the host's own apt, with package lists in the build folder.

mod common;

use common::{Scratch, kluis, output, text, turn};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longer than any test here takes on a slow host.
const TIMEOUT: &str = "900s";

/// apt for i386, with state of its own.
fn apt(program: &str, dir: &Path) -> Command {
    let folder = |name: &str, sub: &str| format!("Dir::{name}={}", dir.join(sub).display());
    let mut command = Command::new(program);
    for option in ["APT::Architecture=i386", "APT::Architectures=i386", "Dir::State::status=/dev/null"] {
        command.args(["-o", option]);
    }
    command.args(["-o", &folder("State", "state"), "-o", &folder("Cache", "cache"), "-q"]).current_dir(dir);
    command
}

/// The files of an i386 package, unpacked.
fn package(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("i386");
    let files = dir.join(name);
    if files.exists() {
        return files;
    }
    for sub in ["state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    // A list that cannot be had of another source than Debian's does not matter.
    let _ = apt("apt-get", &dir).arg("update").output().unwrap();
    let fetched = apt("apt-get", &dir).args(["download", name]).output().unwrap();
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let is_ours = |path: &Path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        file.starts_with(&format!("{name}_")) && file.ends_with(".deb")
    };
    let deb = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).find(|p| is_ours(p)).unwrap();
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(deb).arg(&files).status().unwrap();
    assert!(unpacked.success());
    files
}

/// The package that a meta package's `Depends` begins with.
fn kernel_of(meta: &str) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("i386");
    let _ = package("busybox-static"); // package lists are there then
    let out = apt("apt-cache", &dir).args(["show", "--no-all-versions", meta]).output().unwrap();
    let said = text(&out.stdout);
    let depends = said.lines().find_map(|line| line.strip_prefix("Depends: ")).expect("a dependency");
    depends.split([' ', ',']).next().unwrap_or_default().to_owned()
}

const BUSYBOX: &str = "bin/busybox";

#[test]
fn a_32_bit_debian_busybox_works() {
    let _turn = turn();
    let busybox = std::fs::read(package("busybox-static").join(BUSYBOX)).unwrap();
    let script = "cat > /tmp/busybox; chmod +x /tmp/busybox
        seq 1 20000 > /tmp/n; b=/tmp/busybox
        $b sha256sum < /tmp/n; $b md5sum < /tmp/n; $b gzip < /tmp/n | $b gunzip | $b sha1sum
        $b awk 'BEGIN { for (i = 1; i < 2000; i++) s += i / 7; printf \"%.6f\\n\", s }'
        $b sort -rn /tmp/n | $b head -1; $b uname -m; $b ash -c 'echo $((7 * 6)) | $b cat'
        head -c 20 /tmp/busybox | $b hexdump -n 5 -e '5/1 \"%02x\" \"\\n\"'";
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT, "--cpus", "2", "--", "sh", "-c", script]);
    let out = output(&mut command, &busybox);
    let said = text(&out.stdout);
    let lines: Vec<&str> = said.lines().collect();
    let host = |command: &str| {
        let out = Command::new("sh").args(["-c", command]).output().unwrap();
        text(&out.stdout).trim().to_owned()
    };
    let expected = [
        host("seq 1 20000 | sha256sum"),
        host("seq 1 20000 | md5sum"),
        host("seq 1 20000 | sha1sum"),
        "285571.428571".to_owned(),
        "20000".to_owned(),
        "x86_64".to_owned(),
    ];
    assert!(lines.len() > expected.len(), "{said}\n{}", text(&out.stderr));
    assert_eq!(lines[..expected.len()], expected, "{}", text(&out.stderr));
    assert_eq!(lines.last(), Some(&"7f454c4601"), "a 32-bit ELF file");
}

/// An initramfs (*cpio, "newc"*) whose init is i386 busybox.
fn initrd(script: &str) -> Vec<u8> {
    let busybox = std::fs::read(package("busybox-static").join(BUSYBOX)).unwrap();
    let mut out = Vec::new();
    let mut add = |name: &str, mode: u32, device: (u32, u32), data: &[u8]| {
        let fields =
            [1, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        out.extend_from_slice(b"070701");
        fields.iter().for_each(|field| out.extend(format!("{field:08x}").bytes()));
        out.extend(name.bytes().chain([0]));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    for dir in ["bin", "dev", "proc"] {
        add(dir, 0o40755, (0, 0), b"");
    }
    add("dev/console", 0o20600, (5, 1), b"");
    add(BUSYBOX, 0o100_755, (0, 0), &busybox);
    add("init", 0o100_755, (0, 0), script.as_bytes());
    add("TRAILER!!!", 0, (0, 0), b"");
    out
}

/// Boots one of Debian's i386 kernels and gives what its init said.
fn boot(meta: &str) -> String {
    let name = kernel_of(meta);
    let kernel = package(&name).join("boot").join(name.replacen("linux-image", "vmlinuz", 1));
    let s = Scratch::new();
    let script = "#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b uname -srm
$b echo processors $($b grep -c ^processor /proc/cpuinfo)
$b echo abc | $b sha256sum
$b seq 1 20000 | $b gzip | $b gunzip | $b md5sum
$b poweroff -f
";
    let initrd = s.file("initrd", initrd(script));
    let mut command = kluis();
    command.args(["run", "--quiet", "--timeout", TIMEOUT, "--memory", "512M", "--cpus", "2"]);
    command.args(["--kernel", &kernel.display().to_string(), "--initrd", &initrd]);
    // The kernel's self-tests of RSA take minutes of 32-bit multiplications.
    command.args(["--append", "console=ttyS0 quiet cryptomgr.notests"]);
    let out = output(&mut command, b"");
    assert_eq!(out.status.code(), Some(0), "{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

#[test]
#[ignore = "minutes: two kernels of 50 MB to fetch and boot; run with --ignored"]
fn debians_32_bit_kernels_boot() {
    let _turn = turn();
    // PAE paging with XD, on two processors.
    let said = boot("linux-image-686-pae");
    assert!(said.contains("-686-pae i686") && said.contains("processors 2"), "{said}");
    assert!(said.contains("edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"), "{said}");
    // 32-bit paging, without PAE.
    let said = boot("linux-image-686");
    assert!(said.contains("-686 i686") && said.contains("processors 2"), "{said}");
    assert!(said.contains("edeaaff3f1774ad2888673770c6d64097e391bc362d7d6fb34982ddf0efd18cb"), "{said}");
}
