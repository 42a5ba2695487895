//! The cache of packages and images, and making an image.
//!
//! ```text
//! kluis/
//!   lock             held while anything here is made
//!   apt/             apt's own lists and caches
//!   partial/HASH/    a package being fetched
//!   debs/HASH.deb    packages, checked
//!   packages.json    the packages that are current
//!   images/ID/       vmlinuz, initrd.cpio, manifest.json
//!   debian/          the other image (`debian`)
//! ```
//!
//! Whatever has its final name is whole: it was written elsewhere and renamed.
//! An interrupted run leaves at most what the next one continues or removes.

use crate::INIT;
use crate::apt::{Apt, Lists};
use crate::error::ImageError;
use crate::hash;
use crate::kernel;
use crate::manifest::{FileRecord, LAYOUT, Manifest, PackageRecord};
use crate::progress::Progress;
use crate::rootfs;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const KERNEL_FILE: &str = "vmlinuz";
const INITRD_FILE: &str = "initrd.cpio";
const MANIFEST_FILE: &str = "manifest.json";
/// Images kept, the current one included: another checkout's init makes
/// another image.
const KEEP_IMAGES: usize = 4;
/// The largest description read, in bytes.
const MAX_JSON: u64 = 1 << 20;

/// How to build or find an image.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Folder for the cache; by default `kluis` in `XDG_CACHE_HOME`, or in
    /// `~/.cache`.
    pub cache_dir: Option<PathBuf>,
    /// Show nothing; otherwise progress goes to standard error.
    pub quiet: bool,
}

/// The images there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Name {
    /// A kernel and a small userland in memory.
    #[default]
    Default,
    /// A whole Debian on a disk.
    Debian,
}

/// A guest image on disk, checked to be whole.
#[derive(Clone, Debug)]
pub struct Image {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initramfs, an uncompressed cpio archive.
    pub initrd: PathBuf,
    /// What it was made from.
    pub manifest: Manifest,
}

/// Builds the image from the packages that are current now. Packages that are
/// in the cache are not fetched again; neither is an image remade that would
/// come out the same.
///
/// # Errors
/// [`ImageError`] names cause and remedy; the cache is then as it was.
pub fn build(options: &Options) -> Result<Image, ImageError> {
    let cache = Cache::open(options)?;
    let _lock = cache.lock(&cache.root)?;
    cache.build()
}

/// The image from the cache, without network, if a whole one with this
/// program's init is there; else makes one, from cached packages if they are
/// whole.
///
/// # Errors
/// As [`build`].
pub fn ensure(options: &Options) -> Result<Image, ImageError> {
    let cache = Cache::open(options)?;
    if let Some(image) = cache.current() {
        return Ok(image);
    }
    let _lock = cache.lock(&cache.root)?;
    // somebody else may have made it meanwhile
    if let Some(image) = cache.current() {
        return Ok(image);
    }
    match cache.packages() {
        Some(packages) if packages.iter().all(|p| cache.has(p)) => cache.assemble(&packages),
        _ => cache.build(),
    }
}

pub(crate) struct Cache {
    pub(crate) root: PathBuf,
    pub(crate) progress: Progress,
    pub(crate) init_sha256: String,
}

impl Cache {
    pub(crate) fn open(options: &Options) -> Result<Self, ImageError> {
        let root = match &options.cache_dir {
            Some(dir) => dir.clone(),
            None => default_folder()?,
        };
        fs::create_dir_all(&root).map_err(ImageError::io("create the folder", &root))?;
        // apt runs in another folder: the path must not depend on ours
        let root = fs::canonicalize(&root).map_err(ImageError::io("find", &root))?;
        Ok(Self { root, progress: Progress::new(options.quiet), init_sha256: hash::of_bytes(INIT) })
    }

    /// Waits until nobody else is building in this folder; the file's lock ends
    /// with the process, however that ends.
    pub(crate) fn lock(&self, folder: &Path) -> Result<File, ImageError> {
        fs::create_dir_all(folder).map_err(ImageError::io("create", folder))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(ImageError::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                self.progress.line("Waiting for another build of the image");
                file.lock().map_err(ImageError::io("lock", &path))?;
            }
            Err(TryLockError::Error(e)) => return Err(ImageError::io("lock", &path)(e)),
        }
        Ok(file)
    }

    fn packages(&self) -> Option<[PackageRecord; 2]> {
        let packages: [PackageRecord; 2] = read_json(&self.root.join("packages.json"))?;
        packages.iter().all(|p| hash::is_sha256(&p.sha256)).then_some(packages)
    }

    /// The image of the current packages and this init, if it is whole.
    fn current(&self) -> Option<Image> {
        self.load(&self.id(&self.packages()?))
    }

    /// Names the image that these packages make.
    fn id(&self, packages: &[PackageRecord; 2]) -> String {
        let mut text = format!("layout {LAYOUT}\ninit {}\n", self.init_sha256);
        for package in packages {
            text += &package.sha256;
            text.push('\n');
        }
        hash::of_bytes(text.as_bytes())[..16].to_owned()
    }

    /// Reads an image and checks every byte of it.
    fn load(&self, id: &str) -> Option<Image> {
        let dir = self.root.join("images").join(id);
        let manifest: Manifest = read_json(&dir.join(MANIFEST_FILE))?;
        let whole = |record: &FileRecord, name: &str| {
            let path = dir.join(name);
            let right = record.name == name
                && fs::metadata(&path).is_ok_and(|m| m.len() == record.size)
                && hash::of_file(&path).is_ok_and(|h| h == record.sha256);
            right.then_some(path)
        };
        if manifest.layout != LAYOUT || manifest.init_sha256 != self.init_sha256 {
            return None;
        }
        Some(Image {
            kernel: whole(&manifest.kernel, KERNEL_FILE)?,
            initrd: whole(&manifest.initrd, INITRD_FILE)?,
            manifest,
        })
    }

    fn build(&self) -> Result<Image, ImageError> {
        let dir = self.root.join("apt");
        let mut apt = Apt::new(&dir, self.progress)?;
        let mut packages = apt.resolve()?;
        if let Err(e) = self.fetch_all(&apt, &packages) {
            // a list can promise what its mirror has replaced already
            if apt.lists() == Lists::Own || !matches!(e, ImageError::Apt { .. }) {
                return Err(e);
            }
            apt.use_own_lists()?;
            packages = apt.resolve()?;
            self.fetch_all(&apt, &packages)?;
        }
        self.assemble(&packages)
    }

    fn fetch_all(&self, apt: &Apt<'_>, packages: &[PackageRecord]) -> Result<(), ImageError> {
        packages.iter().try_for_each(|p| self.fetch(apt, p))
    }

    pub(crate) fn deb(&self, package: &PackageRecord) -> PathBuf {
        self.root.join("debs").join(format!("{}.deb", package.sha256))
    }

    /// Whether a package is in the cache and is what the index promised.
    fn has(&self, package: &PackageRecord) -> bool {
        hash::of_file(&self.deb(package)).is_ok_and(|h| h == package.sha256)
    }

    pub(crate) fn fetch(&self, apt: &Apt<'_>, package: &PackageRecord) -> Result<(), ImageError> {
        if self.has(package) {
            return Ok(());
        }
        let folder = self.root.join("partial").join(&package.sha256);
        let path = apt.download(package, &folder)?;
        let actual = hash::of_file(&path).map_err(ImageError::io("read", &path))?;
        if actual != package.sha256 {
            remove(&folder)?;
            return Err(ImageError::Checksum {
                file: format!("{} {}", package.name, package.version),
                expected: package.sha256.clone(),
                actual,
            });
        }
        let target = self.deb(package);
        let debs = self.root.join("debs");
        fs::create_dir_all(&debs).map_err(ImageError::io("create", &debs))?;
        fs::rename(&path, &target).map_err(ImageError::io("write", &target))?;
        remove(&folder)
    }

    /// Makes the image of packages that are in the cache, and makes it current.
    fn assemble(&self, packages: &[PackageRecord; 2]) -> Result<Image, ImageError> {
        let id = self.id(packages);
        let image = match self.load(&id) {
            Some(image) => image,
            None => self.make(&id, packages)?,
        };
        let text = to_json(packages)?;
        write_atomically(&self.root, "packages.json", &text)?;
        self.prune(&id, packages);
        self.progress.line(&format!(
            "Guest image ready: Linux {}, {}",
            image.manifest.kernel_release,
            image.initrd.parent().unwrap_or(&self.root).display()
        ));
        Ok(image)
    }

    fn make(&self, id: &str, packages: &[PackageRecord; 2]) -> Result<Image, ImageError> {
        let _step = self.progress.step("Unpacking and packing the guest image");
        let images = self.root.join("images");
        let new = images.join("new");
        // left by an interrupted run; we hold the lock
        remove(&new)?;
        fs::create_dir_all(&new).map_err(ImageError::io("create", &new))?;
        let made = self.write_image(&new, packages);
        let placed = made.and_then(|()| {
            let target = images.join(id);
            remove(&target)?;
            fs::rename(&new, &target).map_err(ImageError::io("write", &target))?;
            sync_folder(&images)
        });
        if let Err(e) = placed {
            let _ = fs::remove_dir_all(&new);
            return Err(e);
        }
        self.load(id).ok_or_else(|| {
            let path = images.join(id);
            ImageError::io("read back", &path)(std::io::Error::other("its contents changed"))
        })
    }

    fn write_image(&self, dir: &Path, packages: &[PackageRecord; 2]) -> Result<(), ImageError> {
        let [kernel_package, busybox_package] = packages;
        let kernel = kernel::read(&self.deb(kernel_package))?;
        let busybox = rootfs::read_busybox(&self.deb(busybox_package))?;
        let initrd = rootfs::pack(&kernel, Some(busybox), INIT)?;
        let store = |name: &str, data: &[u8]| -> Result<FileRecord, ImageError> {
            write_synced(&dir.join(name), data)?;
            Ok(FileRecord { name: name.to_owned(), sha256: hash::of_bytes(data), size: data.len() as u64 })
        };
        let manifest = Manifest {
            layout: LAYOUT,
            modules: kernel
                .modules
                .iter()
                .map(|m| format!("/lib/modules/{}/{}", kernel.release, m.path))
                .collect(),
            packages: packages.to_vec(),
            init_sha256: self.init_sha256.clone(),
            kernel: store(KERNEL_FILE, &kernel.vmlinuz)?,
            initrd: store(INITRD_FILE, &initrd)?,
            kernel_release: kernel.release,
        };
        write_synced(&dir.join(MANIFEST_FILE), &to_json(&manifest)?)?;
        sync_folder(dir)
    }

    /// Removes packages that no current image is made from, and old images.
    /// Failing at that harms nobody.
    fn prune(&self, id: &str, packages: &[PackageRecord]) {
        let entries = |dir: &str| fs::read_dir(self.root.join(dir)).into_iter().flatten().flatten();
        for entry in entries("debs") {
            if !packages.iter().any(|p| self.deb(p) == entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        for entry in entries("partial") {
            let _ = fs::remove_dir_all(entry.path());
        }
        let mut others: Vec<(SystemTime, PathBuf)> = entries("images")
            .filter(|e| e.file_name() != id)
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(KEEP_IMAGES);
        for (_, path) in others.iter().take(surplus) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

/// Removes all images of this kind, and what was kept to make them. Machines that
/// run are not disturbed; overlays on them cannot be used any more.
///
/// # Errors
/// The cache cannot be used.
pub fn remove_all(options: &Options, name: Name) -> Result<(), ImageError> {
    let cache = Cache::open(options)?;
    match name {
        Name::Default => {
            let _lock = cache.lock(&cache.root)?;
            let list = cache.root.join("packages.json");
            match fs::remove_file(&list) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ImageError::io("remove", &list)(e));
                }
                _ => {}
            }
            ["images", "debs"].iter().try_for_each(|folder| remove(&cache.root.join(folder)))
        }
        Name::Debian => {
            let folder = cache.root.join("debian");
            let _lock = cache.lock(&folder)?;
            remove(&folder)
        }
    }
}

/// `kluis` in the user's cache folder (*XDG Base Directory Specification*:
/// relative paths are ignored).
///
/// # Errors
/// Neither XDG_CACHE_HOME nor HOME names one.
pub fn default_folder() -> Result<PathBuf, ImageError> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or(ImageError::NoCacheFolder)?;
    Ok(base.join("kluis"))
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    if fs::metadata(path).ok()?.len() > MAX_JSON {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub(crate) fn to_json<T: serde::Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ImageError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| ImageError::format("the image's description", e.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

pub(crate) fn write_synced(path: &Path, data: &[u8]) -> Result<(), ImageError> {
    File::create(path)
        .and_then(|mut file| {
            file.write_all(data)?;
            file.sync_all()
        })
        .map_err(ImageError::io("write", path))
}

pub(crate) fn write_atomically(dir: &Path, name: &str, data: &[u8]) -> Result<(), ImageError> {
    let new = dir.join(format!("{name}.new"));
    let target = dir.join(name);
    write_synced(&new, data)?;
    fs::rename(&new, &target).map_err(ImageError::io("write", &target))?;
    sync_folder(dir)
}

pub(crate) fn sync_folder(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(ImageError::io("write", dir))
}

pub(crate) fn remove(dir: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ImageError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}
