//! The initramfs's contents.

use crate::applets;
use crate::cpio::{Node, Tree};
use crate::deb;
use crate::error::ImageError;
use crate::kernel::Kernel;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// Takes the busybox program out of its package.
pub(crate) fn read_busybox(package: &Path) -> Result<Vec<u8>, ImageError> {
    let file = File::open(package).map_err(ImageError::io("open", package))?;
    read_busybox_from(file, &deb::label(package))
}

/// The same for a package that is open already; `label` names it in messages.
pub(crate) fn read_busybox_from(package: impl Read + Seek, label: &str) -> Result<Vec<u8>, ImageError> {
    let mut found = None;
    deb::for_each_file(package, label, |path, size, data| {
        if path.strip_prefix("usr/").unwrap_or(path) == "bin/busybox" {
            found = Some(deb::read_whole(path, size, data)?);
        }
        Ok(())
    })?;
    found.ok_or_else(|| ImageError::format(label, "it holds no bin/busybox"))
}

/// Packs the initramfs; one that only hands over to a disk needs no busybox. It is
/// not compressed: unpacking would cost the guest more than reading.
pub(crate) fn pack(kernel: &Kernel, busybox: Option<Vec<u8>>, init: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut tree = Tree::default();
    for (path, mode) in [
        // the root itself, which the kernel makes writable for all
        (".", 0o755),
        ("dev", 0o755),
        ("proc", 0o555),
        ("sys", 0o555),
        ("run", 0o755),
        ("tmp", 0o1777),
        ("root", 0o700),
        ("mnt", 0o755),
        ("var/tmp", 0o1777),
        ("usr/local/bin", 0o755),
    ] {
        tree.add(path, Node::Dir { mode });
    }
    // the kernel opens it for init before there is a /dev
    tree.add("dev/console", Node::CharDevice { mode: 0o600, major: 5, minor: 1 });
    tree.file("init", 0o755, init);
    if let Some(busybox) = busybox {
        programs(&mut tree, busybox)?;
    }
    settings(&mut tree);
    modules(&mut tree, kernel);
    tree.pack().ok_or_else(|| ImageError::format("the initramfs", "a file has more than 4 GiB"))
}

/// An initramfs of a single file, to be put behind another; `None` if it is too
/// long.
pub(crate) fn single(path: &str, mode: u32, data: &[u8]) -> Option<Vec<u8>> {
    let mut tree = Tree::default();
    tree.file(path, mode, data);
    tree.pack()
}

fn programs(tree: &mut Tree, busybox: Vec<u8>) -> Result<(), ImageError> {
    let names = applets::list(&busybox)
        .ok_or_else(|| ImageError::format("busybox", "its list of commands is not found"))?;
    for name in names {
        tree.link(&format!("bin/{name}"), "busybox");
    }
    tree.file("bin/busybox", 0o755, busybox);
    tree.link("sbin", "bin");
    tree.link("usr/bin", "../bin");
    tree.link("usr/sbin", "../bin");
    Ok(())
}

fn settings(tree: &mut Tree) {
    for (path, text) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("hostname", "kluis\n"),
        ("hosts", "127.0.0.1 localhost kluis\n::1 localhost\n"),
        ("profile", "PS1='\\u@\\h:\\w\\$ '\nexport PS1\n"),
        ("os-release", "NAME=\"Kluis guest\"\nID=kluis\nID_LIKE=debian\nPRETTY_NAME=\"Kluis guest\"\n"),
    ] {
        tree.file(&format!("etc/{path}"), 0o644, text);
    }
    tree.link("etc/mtab", "/proc/mounts");
}

/// The modules, what our init reads to load them, and what `modprobe` reads.
fn modules(tree: &mut Tree, kernel: &Kernel) {
    let base = format!("lib/modules/{}", kernel.release);
    let (mut dep, mut alias) = (String::new(), String::new());
    for module in &kernel.modules {
        tree.file(&format!("{base}/{}", module.path), 0o644, module.data.clone());
        let _ = write!(dep, "{}:", module.path);
        // depmod lists what is loaded last first
        for need in module.needs.iter().rev() {
            if let Some(needed) = kernel.modules.iter().find(|m| m.name == *need) {
                let _ = write!(dep, " {}", needed.path);
            }
        }
        dep.push('\n');
        for pattern in &module.aliases {
            let _ = writeln!(alias, "alias {pattern} {}", module.name);
        }
    }
    for (name, places) in &kernel.lists {
        let mut list = String::new();
        for &at in places {
            let _ = writeln!(list, "/{base}/{}", kernel.modules[at].path);
        }
        tree.file(&format!("etc/kluis/{name}"), 0o644, list);
    }
    tree.file(&format!("{base}/modules.dep"), 0o644, dep);
    tree.file(&format!("{base}/modules.alias"), 0o644, alias);
    tree.file(&format!("{base}/modules.builtin"), 0o644, kernel.builtin.clone());
}
