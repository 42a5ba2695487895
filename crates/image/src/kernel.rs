//! Taking a kernel and the modules it needs for our devices out of Debian's
//! `linux-image-*` package.

use crate::deb;
use crate::elf;
use crate::error::ImageError;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// What init loads, by the name of its list: the first one at every boot, the
/// console early, since the agent waits for it; the others when the machine has
/// such a device (`guest/init`, `setup`).
const LISTS: [(&str, &[&str]); 5] = [
    ("modules", &["virtio_pci", "virtio_console", "virtio_blk", "virtio_rng"]),
    ("modules.disk", &["ext4"]),
    ("modules.net", &["virtio_net"]),
    ("modules.vsock", &["vmw_vsock_virtio_transport"]),
    ("modules.share", &["virtiofs"]),
];

/// A kernel and its modules.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` prints it.
    pub(crate) release: String,
    pub(crate) vmlinuz: Vec<u8>,
    /// In load order: dependencies first.
    pub(crate) modules: Vec<Module>,
    /// Which of them are loaded together: a list's name, and their places.
    pub(crate) lists: Vec<(&'static str, Vec<usize>)>,
    /// Its `modules.builtin` file.
    pub(crate) builtin: Vec<u8>,
}

/// A kernel module, uncompressed.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    /// Below `lib/modules/RELEASE`, such as `kernel/fs/ext4/ext4.ko`.
    pub(crate) path: String,
    pub(crate) data: Vec<u8>,
    /// Modules among these that must be loaded before, the first one first.
    pub(crate) needs: Vec<String>,
    /// Patterns by which the kernel asks for it.
    pub(crate) aliases: Vec<String>,
}

/// Reads the package.
pub(crate) fn read(package: &Path) -> Result<Kernel, ImageError> {
    let file = File::open(package).map_err(ImageError::io("open", package))?;
    read_from(file, &deb::label(package))
}

/// Reads the package from what is open already; `label` names it in messages.
pub(crate) fn read_from(package: impl Read + Seek, label: &str) -> Result<Kernel, ImageError> {
    let mut found = None;
    let mut builtin = Vec::new();
    let mut files = BTreeMap::new();
    deb::for_each_file(package, label, |path, size, data| {
        // newer releases have everything below /usr
        let path = path.strip_prefix("usr/").unwrap_or(path);
        if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
            found = Some((release.to_owned(), deb::read_whole(path, size, data)?));
        } else if let Some((_, rest)) = path.strip_prefix("lib/modules/").and_then(|p| p.split_once('/')) {
            if rest == "modules.builtin" {
                builtin = deb::read_whole(path, size, data)?;
            } else if let Some(name) = module_name(rest) {
                files.insert(name, (rest.to_owned(), deb::read_whole(path, size, data)?));
            }
        }
        Ok(())
    })?;
    let (release, vmlinuz) = found.ok_or_else(|| ImageError::format(label, "it holds no kernel"))?;
    let modules = select(files, &builtin_names(&builtin))?;
    let lists = LISTS.iter().map(|(name, drivers)| (*name, load_order(&modules, drivers))).collect();
    Ok(Kernel { release, vmlinuz, modules, lists, builtin })
}

/// The name by which the kernel knows the module in this file.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

fn builtin_names(list: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(list).lines().filter_map(module_name).collect()
}

type Files = BTreeMap<String, (String, Vec<u8>)>;

/// Picks our drivers and what they depend on, in load order. The package has no
/// `modules.dep` (Debian makes it on installation), so the modules' own words
/// are taken.
fn select(files: Files, builtin: &BTreeSet<String>) -> Result<Vec<Module>, ImageError> {
    let mut picker = Picker { files, builtin, done: Vec::new(), visiting: BTreeSet::new() };
    for name in LISTS.iter().flat_map(|(_, drivers)| *drivers) {
        picker.pick(name, "the machine's devices")?;
    }
    Ok(picker.done)
}

/// Places of these drivers and of what they need, in load order.
fn load_order(modules: &[Module], drivers: &[&str]) -> Vec<usize> {
    let needed = |name: &str| {
        let of_driver = |m: &Module| drivers.contains(&m.name.as_str()) && m.needs.iter().any(|n| n == name);
        drivers.contains(&name) || modules.iter().any(of_driver)
    };
    (0..modules.len()).filter(|at| needed(&modules[*at].name)).collect()
}

struct Picker<'a> {
    files: Files,
    builtin: &'a BTreeSet<String>,
    done: Vec<Module>,
    visiting: BTreeSet<String>,
}

impl Picker<'_> {
    fn pick(&mut self, name: &str, needed_by: &str) -> Result<(), ImageError> {
        if self.builtin.contains(name) || self.done.iter().any(|m| m.name == name) {
            return Ok(());
        }
        // the kernel's build forbids cycles; a damaged file may have one
        if !self.visiting.insert(name.to_owned()) {
            return Err(ImageError::format(name, "modules depend on each other in a circle"));
        }
        let (path, data) = self.files.remove(name).ok_or_else(|| {
            ImageError::format(
                "the kernel package",
                format!("it has no module {name}, which {needed_by} need"),
            )
        })?;
        let (path, data) = deb::decompress_module(&path, data)?;
        let info = elf::modinfo(&data).ok_or_else(|| ImageError::format(&path, "not a kernel module"))?;
        let mut wanted = Vec::new();
        let mut aliases = Vec::new();
        for (key, value) in info {
            match key {
                "depends" => wanted
                    .extend(value.split(',').filter(|d| !d.is_empty()).map(|d| (d.replace('-', "_"), true))),
                // what is to be loaded before if it exists; "post:" is left out
                "softdep" => {
                    if let Some(list) = value.strip_prefix("pre:") {
                        let list = list.split("post:").next().unwrap_or_default();
                        wanted.extend(list.split_whitespace().map(|d| (d.replace('-', "_"), false)));
                    }
                }
                "alias" => aliases.push(value.to_owned()),
                _ => {}
            }
        }
        let mut needs: Vec<String> = Vec::new();
        for (dependency, must) in wanted {
            let known = self.files.contains_key(&dependency);
            if must || known {
                self.pick(&dependency, name)?;
            }
            if let Some(module) = self.done.iter().find(|m| m.name == dependency) {
                for need in module.needs.iter().chain([&dependency]) {
                    if !needs.contains(need) {
                        needs.push(need.clone());
                    }
                }
            }
        }
        self.done.push(Module { name: name.to_owned(), path, data, needs, aliases });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::module;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter()
            .map(|(path, info)| (module_name(path).unwrap(), ((*path).to_owned(), module(info))))
            .collect()
    }

    #[test]
    fn dependencies_come_first_and_built_in_ones_not_at_all() {
        let files = files(&[
            ("kernel/virtio_pci.ko", "depends=virtio,virtio_ring\0alias=pci:v1AF4*\0"),
            ("kernel/virtio.ko", "depends=\0"),
            ("kernel/virtio_ring.ko", "depends=virtio\0"),
            ("kernel/virtio_console.ko", "depends=virtio\0"),
            ("kernel/virtio-rng.ko", "depends=\0"),
            ("kernel/ext4.ko", "depends=jbd2\0softdep=pre: crc32c absent post: other\0"),
            ("kernel/jbd2.ko", "depends=\0"),
            ("kernel/crc32c.ko", "depends=\0"),
            ("kernel/other.ko", "depends=\0"),
            ("kernel/vsock.ko", "depends=\0"),
            ("kernel/vmw_vsock_virtio_transport.ko", "depends=vsock\0"),
            ("kernel/fuse.ko", "depends=\0"),
            ("kernel/virtiofs.ko", "depends=fuse,jbd2\0"),
            ("kernel/failover.ko", "depends=\0"),
            ("kernel/virtio_net.ko", "depends=failover,jbd2\0"),
        ]);
        let builtin = builtin_names(b"kernel/drivers/block/virtio_blk.ko\n");
        let got = select(files, &builtin).unwrap();
        let list = |n: usize| -> Vec<&str> {
            load_order(&got, LISTS[n].1).into_iter().map(|at| got[at].name.as_str()).collect()
        };
        assert_eq!(list(0), ["virtio", "virtio_ring", "virtio_pci", "virtio_console", "virtio_rng"]);
        assert_eq!(list(1), ["jbd2", "crc32c", "ext4"]);
        // what two lists need is in both
        assert_eq!(list(2), ["jbd2", "failover", "virtio_net"]);
        assert_eq!(list(3), ["vsock", "vmw_vsock_virtio_transport"]);
        assert_eq!(list(4), ["jbd2", "fuse", "virtiofs"]);
        assert_eq!(got.len(), 14);
        assert_eq!(got[2].needs, ["virtio", "virtio_ring"]);
        assert_eq!(got[2].aliases, ["pci:v1AF4*"]);
        assert_eq!(got[4].path, "kernel/virtio-rng.ko");
    }

    #[test]
    fn missing_and_circular_modules_are_errors() {
        let none = select(Files::new(), &BTreeSet::new()).unwrap_err();
        assert!(none.to_string().contains("no module virtio_pci"), "{none}");
        let circle =
            files(&[("a/virtio_pci.ko", "depends=virtio\0"), ("a/virtio.ko", "depends=virtio_pci\0")]);
        let circle = select(circle, &BTreeSet::new()).unwrap_err();
        assert!(circle.to_string().contains("circle"), "{circle}");
    }

    #[test]
    fn module_names_are_the_kernels() {
        assert_eq!(module_name("kernel/x/virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("kernel/x/a.ko").as_deref(), Some("a"));
        assert_eq!(module_name("modules.order"), None);
        assert_eq!(module_name("kernel/a.kobject"), None);
    }
}
