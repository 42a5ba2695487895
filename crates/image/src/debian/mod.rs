//! The `debian` image: a whole Debian on a disk, made of packages without root.
//!
//! ```text
//! kluis/debian/
//!   lock              held while an image is made
//!   partial/HASH.deb  packages, checked, until an image is made of them
//!   new/              an image being made
//!   ID/               disk.img, vmlinuz, kernel.deb, manifest.json, initrd-KEY.cpio
//! ```
//!
//! The host fetches packages and lays their files and dpkg's records out (`tree`);
//! no program of theirs runs on it. The rest — making the file system, unpacking,
//! maintainer scripts — is done by `setup.sh` in a Kluis machine with the small
//! image, which the caller runs ([`Stage`]).
//!
//! The disk holds a Debian and nothing of Kluis but settings (`settings`): init
//! and agent come with the initramfs, which is made anew when they change.

mod disk;
mod settings;
mod tree;

use crate::apt::{Apt, Lists};
use crate::cache::{self, Cache, Image, Options};
use crate::deb::{self, Part};
use crate::error::ImageError;
use crate::manifest::{FileRecord, LAYOUT, PackageRecord};
use crate::{INIT, hash, kernel, rootfs};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tree::Tree;

/// Changed whenever the same packages would make another disk.
const DISK_LAYOUT: u32 = 3;
/// Length of the disk in bytes. What is not written takes no space.
const DISK_SIZE: u64 = 16 << 30;
/// What every Debian has: the packages marked as essential, on which others rely
/// without saying so (*Debian Policy §3.8*).
const ESSENTIAL: [&str; 22] = [
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
];
/// What is in the image beside these and what all depend on.
const PACKAGES: [&str; 20] = [
    "apt",
    "ca-certificates",
    "curl",
    "e2fsprogs",
    "gcc",
    "iproute2",
    "kmod",
    "less",
    "libc6-dev",
    "login",
    "make",
    "netbase",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "systemd-sysv",
    "udhcpc",
    "usr-is-merged",
    "xz-utils",
];
/// Packages whose programs make the file system, by the beginnings of their names:
/// libraries carry versions.
const TOOLS: [&str; 5] = ["e2fsprogs", "libext2fs2", "libcom-err2", "libblkid1", "libuuid1"];
/// The C library, whose name is the beginning of others.
const LIBC: &str = "libc6";
const DISK_FILE: &str = "disk.img";
const KERNEL_FILE: &str = "vmlinuz";
const KERNEL_PACKAGE: &str = "kernel.deb";
const MANIFEST_FILE: &str = "manifest.json";
/// What the setting up machine runs.
const SETUP: &str = include_str!("setup.sh");

/// An image on disk.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Folder that all lies in.
    pub folder: PathBuf,
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initramfs that hands the machine over to the disk's own init.
    pub initrd: PathBuf,
    /// The disk, raw. Machines must not write to it.
    pub disk: PathBuf,
    /// What it was made from.
    pub manifest: DebianManifest,
}

/// The description of an image: `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianManifest {
    /// Version of the disk's layout.
    pub layout: u32,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel's package.
    pub kernel_package: PackageRecord,
    /// The packages on the disk.
    pub packages: Vec<PackageRecord>,
    /// The kernel.
    pub kernel: FileRecord,
    /// The disk; its hash is over what is not zero (`docs/debian.md`).
    pub disk: FileRecord,
    /// When the disk was last known to be whole: its time of modification, in
    /// seconds and nanoseconds.
    disk_time: (i64, i64),
}

/// An image that is ready to be set up in a machine.
#[derive(Debug)]
pub struct Stage {
    /// The disks, in this order: the image, which is written, and two to read.
    pub disks: [PathBuf; 3],
    /// The shell script to run. Its standard input is to stay open; its output
    /// tells how far it is: `step: TEXT`, and dpkg's messages.
    pub script: &'static str,
    /// How many packages dpkg will set up.
    pub packages: usize,
}

/// The newest image that is whole; makes one if there is none. `set_up` runs
/// [`Stage::script`] in a machine; its error is told as it is.
///
/// # Errors
/// [`ImageError`] names cause and remedy; the cache is then as it was, but for
/// packages that were fetched.
pub fn ensure(
    options: &Options,
    set_up: impl FnOnce(&Stage) -> Result<(), String>,
) -> Result<Debian, ImageError> {
    match newest(options)? {
        Some(found) => Ok(found),
        None => build(options, set_up),
    }
}

/// Makes an image of the packages that are current now, unless there is one of
/// just these.
///
/// # Errors
/// As [`ensure`].
pub fn build(
    options: &Options,
    set_up: impl FnOnce(&Stage) -> Result<(), String>,
) -> Result<Debian, ImageError> {
    // the machine that sets it up has this one, and so has it the kernel
    let small = cache::ensure(options)?;
    let shop = Shop::open(options)?;
    let _lock = shop.cache.lock(&shop.folder)?;
    let (kernel, packages) = shop.gather(&small)?;
    let id = id(&kernel, &packages);
    if let Some(found) = shop.load(&id)? {
        shop.cache.progress.line("The Debian image is current");
        return Ok(found);
    }
    shop.make(&id, kernel, packages, set_up)
}

/// The newest image that is whole.
///
/// # Errors
/// The cache cannot be used.
pub fn newest(options: &Options) -> Result<Option<Debian>, ImageError> {
    let shop = Shop::open(options)?;
    for (_, id) in shop.ids().into_iter().rev() {
        if let Some(found) = shop.load(&id)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The image whose disk has this identity.
///
/// # Errors
/// The cache cannot be used.
pub fn with_identity(options: &Options, identity: &[u8; 32]) -> Result<Option<Debian>, ImageError> {
    let shop = Shop::open(options)?;
    let wanted = hash::hex(identity);
    let described = |id: &String| shop.manifest(id).is_some_and(|m| m.disk.sha256 == wanted);
    match shop.ids().into_iter().map(|(_, id)| id).find(described) {
        Some(id) => shop.load(&id),
        None => Ok(None),
    }
}

/// Folders and descriptions of all images, the oldest first, unchecked and without
/// writing anything.
#[must_use]
pub fn list(cache: &Path) -> Vec<(PathBuf, DebianManifest)> {
    ids(&cache.join("debian"))
        .into_iter()
        .filter_map(|(_, id)| {
            let folder = cache.join("debian").join(id);
            Some((folder.clone(), read_manifest(&folder)?))
        })
        .collect()
}

impl Debian {
    /// What tells the disk from every other (`docs/debian.md`).
    #[must_use]
    pub fn identity(&self) -> [u8; 32] {
        hash::from_hex(&self.manifest.disk.sha256).unwrap_or_default()
    }
}

/// An initramfs to be put behind an image's, with what a machine is handed at its start:
/// the keys that may log in as root, and settings of apt.
#[must_use]
pub fn handed(authorized: &str, apt: &str) -> Vec<u8> {
    let files = [("authorized_keys", 0o600, authorized), ("apt.conf", 0o644, apt)];
    files
        .into_iter()
        .filter_map(|(name, mode, text)| rootfs::single(&format!("etc/kluis/{name}"), mode, text.as_bytes()))
        .collect::<Vec<_>>()
        .concat()
}

/// Lays a package's files out as for an image: for the fuzz targets.
#[doc(hidden)]
pub fn fuzz_tree(package: &[u8]) -> Result<usize, ImageError> {
    let mut tree = Tree::new(Vec::new())?;
    tree.package_from(|| Ok(io::Cursor::new(package)), "package")?;
    tree.finish().map(|bytes| bytes.len())
}

/// Where images are made.
struct Shop {
    cache: Cache,
    folder: PathBuf,
}

impl Shop {
    fn open(options: &Options) -> Result<Self, ImageError> {
        let cache = Cache::open(options)?;
        let folder = cache.root.join("debian");
        Ok(Self { cache, folder })
    }

    fn ids(&self) -> Vec<(SystemTime, String)> {
        ids(&self.folder)
    }

    fn manifest(&self, id: &str) -> Option<DebianManifest> {
        read_manifest(&self.folder.join(id))
    }

    /// An image, if it is whole, with this program's init.
    fn load(&self, id: &str) -> Result<Option<Debian>, ImageError> {
        let folder = self.folder.join(id);
        let Some(mut manifest) = self.manifest(id) else { return Ok(None) };
        let disk = folder.join(DISK_FILE);
        let kernel = folder.join(KERNEL_FILE);
        let right = fs::metadata(&kernel).is_ok_and(|m| m.len() == manifest.kernel.size)
            && hash::of_file(&kernel).is_ok_and(|h| h == manifest.kernel.sha256);
        let Ok(meta) = fs::metadata(&disk) else { return Ok(None) };
        if !right || meta.len() != manifest.disk.size {
            return Ok(None);
        }
        if manifest.disk_time != (meta.mtime(), meta.mtime_nsec()) {
            // somebody touched it; reading all of it tells whether it changed
            let _step = self.cache.progress.step("Checking the Debian image");
            let now = File::open(&disk).and_then(|f| disk::identity(&f));
            if !now.is_ok_and(|i| hash::hex(&i) == manifest.disk.sha256) {
                return Ok(None);
            }
            manifest.disk_time = (meta.mtime(), meta.mtime_nsec());
            cache::write_atomically(&folder, MANIFEST_FILE, &cache::to_json(&manifest)?)?;
        }
        let initrd = self.initrd(&folder)?;
        Ok(Some(Debian { folder, kernel, initrd, disk, manifest }))
    }

    /// The initramfs with this program's init, and its choice of modules.
    fn initrd(&self, folder: &Path) -> Result<PathBuf, ImageError> {
        let key = hash::of_bytes(format!("layout {LAYOUT}\ninit {}\n", self.cache.init_sha256).as_bytes());
        let name = format!("initrd-{}.cpio", &key[..16]);
        let path = folder.join(&name);
        if !path.exists() {
            let _step = self.cache.progress.step("Packing the Debian image's initramfs");
            let kernel = kernel::read(&folder.join(KERNEL_PACKAGE))?;
            let packed = rootfs::pack(&kernel, None, INIT)?;
            cache::write_atomically(folder, &name, &packed)?;
        }
        Ok(path)
    }

    /// All packages, fetched and checked: the small image's kernel and ours.
    fn gather(&self, small: &Image) -> Result<(PackageRecord, Vec<PackageRecord>), ImageError> {
        let kernel = small.manifest.packages.first().cloned();
        let kernel =
            kernel.ok_or_else(|| ImageError::format("the small image", "its description has no kernel"))?;
        let apt_folder = self.cache.root.join("apt");
        let mut apt = Apt::new(&apt_folder, self.cache.progress)?;
        let mut packages = self.resolve(&apt)?;
        let fetched = self.fetch(&apt, &packages).and_then(|()| self.cache.fetch(&apt, &kernel));
        if let Err(e) = fetched {
            // a list can promise what its mirror has replaced already
            if apt.lists() == Lists::Own || !matches!(e, ImageError::Apt { .. }) {
                return Err(e);
            }
            apt.use_own_lists()?;
            packages = self.resolve(&apt)?;
            self.fetch(&apt, &packages)?;
            self.cache.fetch(&apt, &kernel)?;
        }
        Ok((kernel, packages))
    }

    fn resolve(&self, apt: &Apt<'_>) -> Result<Vec<PackageRecord>, ImageError> {
        let _step = self.cache.progress.step("Choosing the Debian image's packages");
        let packages = apt.closure(&[&ESSENTIAL[..], &PACKAGES].concat())?;
        if let Some(odd) = packages.iter().find(|p| !hash::is_sha256(&p.sha256)) {
            return Err(ImageError::NoPackage { package: odd.name.clone() });
        }
        Ok(packages)
    }

    fn deb(&self, package: &PackageRecord) -> PathBuf {
        self.folder.join("partial").join(format!("{}.deb", package.sha256))
    }

    fn fetch(&self, apt: &Apt<'_>, packages: &[PackageRecord]) -> Result<(), ImageError> {
        let has = |p: &PackageRecord| hash::of_file(&self.deb(p)).is_ok_and(|h| h == p.sha256);
        let missing: Vec<&PackageRecord> = packages.iter().filter(|p| !has(p)).collect();
        let sum = |of: &mut dyn Iterator<Item = u64>| of.fold(0, u64::saturating_add) >> 20;
        self.cache.progress.line(&format!(
            "Making the Debian image, once: {} packages, {} MiB to fetch; it takes some minutes and 1 GiB of disk",
            packages.len(),
            sum(&mut missing.iter().map(|p| p.size))
        ));
        if missing.is_empty() {
            return Ok(());
        }
        let folder = self.folder.join("partial/fetching");
        apt.download_all(&missing, &folder)?;
        for entry in fs::read_dir(&folder).map_err(ImageError::io("read", &folder))?.flatten() {
            let path = entry.path();
            let Ok(sum) = hash::of_file(&path) else { continue };
            if let Some(package) = missing.iter().find(|p| p.sha256 == sum) {
                let target = self.deb(package);
                fs::rename(&path, &target).map_err(ImageError::io("write", &target))?;
            }
        }
        cache::remove(&folder)?;
        match missing.iter().find(|p| !self.deb(p).exists()) {
            Some(package) => Err(ImageError::Checksum {
                file: format!("{} {}", package.name, package.version),
                expected: package.sha256.clone(),
                actual: "of none of the files that came".into(),
            }),
            None => Ok(()),
        }
    }

    fn make(
        &self,
        id: &str,
        kernel: PackageRecord,
        packages: Vec<PackageRecord>,
        set_up: impl FnOnce(&Stage) -> Result<(), String>,
    ) -> Result<Debian, ImageError> {
        let new = self.folder.join("new");
        // left by an interrupted run; we hold the lock
        cache::remove(&new)?;
        fs::create_dir_all(&new).map_err(ImageError::io("create", &new))?;
        let made = self.write(&new, kernel, packages, set_up).and_then(|()| {
            let target = self.folder.join(id);
            cache::remove(&target)?;
            fs::rename(&new, &target).map_err(ImageError::io("write", &target))?;
            cache::sync_folder(&self.folder)
        });
        if let Err(e) = made {
            let _ = fs::remove_dir_all(&new);
            return Err(e);
        }
        // what it was made of is in it
        let _ = fs::remove_dir_all(self.folder.join("partial"));
        let made = self.load(id)?.ok_or_else(|| {
            let path = self.folder.join(id);
            ImageError::io("read back", &path)(io::Error::other("its contents changed"))
        })?;
        self.cache.progress.line(&format!("Debian image ready: {}", made.folder.display()));
        Ok(made)
    }

    fn write(
        &self,
        dir: &Path,
        kernel: PackageRecord,
        packages: Vec<PackageRecord>,
        set_up: impl FnOnce(&Stage) -> Result<(), String>,
    ) -> Result<(), ImageError> {
        let kernel_deb = dir.join(KERNEL_PACKAGE);
        let from = self.cache.deb(&kernel);
        fs::copy(&from, &kernel_deb).map_err(ImageError::io("copy", &from))?;
        let read = kernel::read(&kernel_deb)?;
        let [raw, tools, files] = ["raw", "tools.tar", "files.tar"].map(|name| dir.join(name));
        {
            let _step = self.cache.progress.step("Unpacking packages");
            self.write_tools(&tools, &packages)?;
            self.write_files(&files, &packages, &kernel_deb)?;
        }
        File::create(&raw)
            .and_then(|file| file.set_len(DISK_SIZE))
            .map_err(ImageError::io("create", &raw))?;
        let stage = Stage { disks: [raw.clone(), tools, files], script: SETUP, packages: packages.len() };
        set_up(&stage).map_err(|detail| ImageError::SetUp { detail })?;

        let _step = self.cache.progress.step("Checking and storing the image");
        let disk = dir.join(DISK_FILE);
        let (identity, time) = store_disk(&raw, &disk).map_err(ImageError::io("write", &disk))?;
        cache::write_synced(&dir.join(KERNEL_FILE), &read.vmlinuz)?;
        let manifest = DebianManifest {
            layout: DISK_LAYOUT,
            kernel_release: read.release,
            kernel_package: kernel,
            packages,
            kernel: FileRecord {
                name: KERNEL_FILE.to_owned(),
                sha256: hash::of_bytes(&read.vmlinuz),
                size: read.vmlinuz.len() as u64,
            },
            disk: FileRecord { name: DISK_FILE.to_owned(), sha256: hash::hex(&identity), size: DISK_SIZE },
            disk_time: time,
        };
        for used in &stage.disks {
            fs::remove_file(used).map_err(ImageError::io("remove", used))?;
        }
        cache::write_synced(&dir.join(MANIFEST_FILE), &cache::to_json(&manifest)?)?;
        cache::sync_folder(dir)
    }

    fn write_tools(&self, path: &Path, packages: &[PackageRecord]) -> Result<(), ImageError> {
        let mut tree = Tree::new(writer(path)?)?;
        let needed = |p: &&PackageRecord| p.name == LIBC || TOOLS.iter().any(|name| p.name.starts_with(name));
        packages.iter().filter(needed).try_for_each(|p| tree.package(&self.deb(p)))?;
        close(tree, path)
    }

    fn write_files(&self, path: &Path, packages: &[PackageRecord], kernel: &Path) -> Result<(), ImageError> {
        let mut tree = Tree::new(writer(path)?)?;
        let apt_folder = self.cache.root.join("apt");
        let apt = Apt::new(&apt_folder, self.cache.progress)?;
        settings::write(&mut tree, &apt.sources()?)?;
        packages.iter().try_for_each(|p| tree.package(&self.deb(p)))?;
        // all modules: the initramfs has the few that every machine needs
        let file = File::open(kernel).map_err(ImageError::io("open", kernel))?;
        deb::for_each_entry(file, KERNEL_PACKAGE, Part::Data, |path, header, target, data| {
            let inner = path.strip_prefix("usr/").unwrap_or(path);
            if inner.starts_with("lib/modules/") {
                tree.entry(path.trim_end_matches('/'), header, target, data, KERNEL_PACKAGE)
            } else {
                Ok(())
            }
        })?;
        close(tree, path)
    }
}

/// Names the image that these packages make.
fn id(kernel: &PackageRecord, packages: &[PackageRecord]) -> String {
    let mut text = format!("layout {DISK_LAYOUT}\nsetup {}\n", hash::of_bytes(SETUP.as_bytes()));
    let mut sums: Vec<&str> = packages.iter().map(|p| p.sha256.as_str()).collect();
    sums.sort_unstable();
    for sum in std::iter::once(kernel.sha256.as_str()).chain(sums) {
        text += sum;
        text.push('\n');
    }
    hash::of_bytes(text.as_bytes())[..16].to_owned()
}

/// Images by age, the oldest first.
fn ids(folder: &Path) -> Vec<(SystemTime, String)> {
    let mut found: Vec<(SystemTime, String)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            let plain = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
            let time = fs::metadata(entry.path().join(DISK_FILE)).ok()?.modified().ok()?;
            plain.then_some((time, id))
        })
        .collect();
    found.sort();
    found
}

fn read_manifest(folder: &Path) -> Option<DebianManifest> {
    let manifest: DebianManifest = cache::read_json(&folder.join(MANIFEST_FILE))?;
    (manifest.layout == DISK_LAYOUT && hash::is_sha256(&manifest.disk.sha256)).then_some(manifest)
}

fn writer(path: &Path) -> Result<BufWriter<File>, ImageError> {
    let file = File::create(path).map_err(ImageError::io("create", path))?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn close(tree: Tree<BufWriter<File>>, path: &Path) -> Result<(), ImageError> {
    let mut out = tree.finish()?;
    io::Write::flush(&mut out).map_err(ImageError::io("write", path))
}

/// Copies the disk without its zeroes and makes it read-only; gives its identity
/// and time of modification.
fn store_disk(raw: &Path, to: &Path) -> io::Result<([u8; 32], (i64, i64))> {
    let file = File::create(to)?;
    let identity = disk::copy(&File::open(raw)?, &file)?;
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)?;
    file.sync_all()?;
    let meta = file.metadata()?;
    Ok((identity, (meta.mtime(), meta.mtime_nsec())))
}

#[cfg(test)]
mod tests;
