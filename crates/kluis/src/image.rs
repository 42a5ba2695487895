//! `kluis image`: building images, and looking at them.

use crate::cli::{ImageCommand, ImageName};
use crate::exit::{self, Error};
use crate::units;
use image::Manifest;
use serde::Serialize;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest description read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// An image in the cache.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// The kernel, a bzImage.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initrd: PathBuf,
    /// What it was made from.
    pub(crate) manifest: Manifest,
}

/// A build in the list of images.
#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    folder: PathBuf,
    kernel_release: String,
    packages: usize,
    /// Bytes that its folder takes on the host's disk.
    bytes: u64,
}

/// Does what was asked; `platform` is where a machine that sets an image up is on.
///
/// # Errors
/// The image cannot be built or removed, or there is none to show.
pub(crate) fn main(command: ImageCommand, platform: &Path, json: bool) -> Result<u8, Error> {
    let options = image::Options { cache_dir: None, quiet: json };
    match command {
        ImageCommand::Build { name: ImageName::Default } => {
            let image = image::build(&options)?;
            tell(&Found { kernel: image.kernel, initrd: image.initrd, manifest: image.manifest }, json)?;
        }
        ImageCommand::Build { name: ImageName::Debian } => {
            let image = crate::debian::build(platform, json)?;
            tell(&FoundDebian { folder: image.folder, manifest: image.manifest }, json)?;
        }
        ImageCommand::Show { name: ImageName::Default } => {
            tell(&peek(&cache()?).ok_or_else(|| none("default"))?, json)?;
        }
        ImageCommand::Show { name: ImageName::Debian } => {
            let newest = image::debian::list(&cache()?).pop();
            let (folder, manifest) = newest.ok_or_else(|| none("debian"))?;
            tell(&FoundDebian { folder, manifest }, json)?;
        }
        ImageCommand::List => {
            let all = list(&cache()?);
            if json {
                crate::print_json(&all)?;
            } else {
                crate::print(&table(&all))?;
            }
        }
        ImageCommand::Remove { name } => image::remove_all(&options, name.into())?,
    }
    Ok(exit::OK)
}

fn cache() -> Result<PathBuf, Error> {
    folder().ok_or_else(|| Error::failed(image::ImageError::NoCacheFolder))
}

fn none(name: &str) -> Error {
    let folder = folder().unwrap_or_default();
    Error::failed(format!(
        "there is no {name} image in {} yet: make one with `kluis image build {name}`",
        folder.display()
    ))
}

fn tell(found: &(impl Describe + Serialize), json: bool) -> Result<(), Error> {
    if json { crate::print_json(found) } else { crate::print(&found.text()) }
}

trait Describe {
    /// For people.
    fn text(&self) -> String;
}

/// A build of the Debian image.
#[derive(Debug, Serialize)]
struct FoundDebian {
    folder: PathBuf,
    manifest: image::debian::DebianManifest,
}

impl Describe for FoundDebian {
    fn text(&self) -> String {
        let m = &self.manifest;
        let mut out = format!("Linux {}\n", m.kernel_release);
        out +=
            &format!("folder   {} ({} on disk)\n", self.folder.display(), units::bytes(space(&self.folder)));
        out += &format!("disk     {} sha256:{}\n", units::bytes(m.disk.size), m.disk.sha256);
        for package in std::iter::once(&m.kernel_package).chain(&m.packages) {
            out += &package_line(package);
        }
        out
    }
}

impl Describe for Found {
    fn text(&self) -> String {
        let m = &self.manifest;
        let mut out = format!("Linux {}\n", m.kernel_release);
        out += &format!("kernel   {} ({})\n", self.kernel.display(), units::bytes(m.kernel.size));
        out += &format!("initrd   {} ({})\n", self.initrd.display(), units::bytes(m.initrd.size));
        for package in &m.packages {
            out += &package_line(package);
        }
        for module in &m.modules {
            out += &format!("module   {module}\n");
        }
        out
    }
}

fn package_line(package: &image::PackageRecord) -> String {
    format!("package  {} {} sha256:{}\n", package.name, package.version, package.sha256)
}

/// All builds in the cache, unchecked and without writing anything.
fn list(cache: &Path) -> Vec<Listed> {
    let small = fs::read_dir(cache.join("images")).into_iter().flatten().flatten().filter_map(|entry| {
        let m = read(&entry.path())?.manifest;
        Some(("default", entry.path(), m.kernel_release, m.packages.len()))
    });
    let debian = image::debian::list(cache)
        .into_iter()
        .map(|(folder, m)| ("debian", folder, m.kernel_release, m.packages.len()));
    small
        .chain(debian)
        .map(|(name, folder, kernel_release, packages)| {
            let bytes = space(&folder);
            Listed { name, folder, kernel_release, packages, bytes }
        })
        .collect()
}

/// Bytes that the files in a folder take, holes not counted.
fn space(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|entry| Some(entry.metadata().ok()?.blocks())).fold(0, u64::saturating_add) * 512
}

fn table(all: &[Listed]) -> String {
    if all.is_empty() {
        return "no image is built yet: `kluis run` makes what it needs\n".to_owned();
    }
    let mut out = String::new();
    for one in all {
        out += &format!(
            "{:<8} {:>10}  {:>4} packages  Linux {}  {}\n",
            one.name,
            units::bytes(one.bytes),
            one.packages,
            one.kernel_release,
            one.folder.display()
        );
    }
    out
}

/// Kluis's cache folder (*XDG Base Directory Specification*: relative paths
/// are ignored); `None` if the environment names none.
pub(crate) fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("kluis"))
}

/// The newest image in the cache whose files are there, unchecked and without
/// writing anything. Whether it is the one that `kluis run` takes depends on
/// the packages and this program's own init; most often it is.
pub(crate) fn peek(cache: &Path) -> Option<Found> {
    let folders = fs::read_dir(cache.join("images")).ok()?.flatten();
    let mut found: Vec<(SystemTime, Found)> = folders
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, read(&entry.path())?)))
        .collect();
    found.sort_by_key(|(time, _)| *time);
    found.pop().map(|(_, found)| found)
}

fn read(dir: &Path) -> Option<Found> {
    let path = dir.join("manifest.json");
    if fs::metadata(&path).ok()?.len() > MAX_MANIFEST {
        return None;
    }
    let manifest: Manifest = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let whole = |record: &image::FileRecord| {
        // a name only: what is described must lie beside the description
        let path = dir.join(Path::new(&record.name).file_name()?);
        (fs::metadata(&path).ok()?.len() == record.size).then_some(path)
    };
    Some(Found { kernel: whole(&manifest.kernel)?, initrd: whole(&manifest.initrd)?, manifest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{FileRecord, PackageRecord};

    fn put(cache: &Path, id: &str, release: &str) {
        let dir = cache.join("images").join(id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("vmlinuz"), b"kernel").unwrap();
        fs::write(dir.join("initrd.cpio"), b"initrd!").unwrap();
        let file = |name: &str, size| FileRecord { name: name.into(), sha256: "0".repeat(64), size };
        let manifest = Manifest {
            layout: 1,
            kernel_release: release.into(),
            packages: vec![PackageRecord {
                name: "linux".into(),
                version: "6".into(),
                sha256: "ab".into(),
                size: 1,
            }],
            init_sha256: "cd".into(),
            modules: vec!["/lib/modules/x.ko".into()],
            kernel: file("vmlinuz", 6),
            initrd: file("initrd.cpio", 7),
        };
        fs::write(dir.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    }

    #[test]
    fn newest_whole_image_is_found_and_nothing_written() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(peek(tmp.path()).is_none());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
        put(tmp.path(), "a", "6.1");
        let found = peek(tmp.path()).unwrap();
        assert_eq!(found.kernel, tmp.path().join("images/a/vmlinuz"));
        let text = found.text();
        for part in ["Linux 6.1\n", "package  linux 6 sha256:ab\n", "(7 bytes)", "x.ko"] {
            assert!(text.contains(part), "{text}");
        }
        fs::write(tmp.path().join("images/a/vmlinuz"), b"cut").unwrap();
        assert!(peek(tmp.path()).is_none());
    }

    #[test]
    fn builds_are_listed_with_the_space_they_take() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(table(&list(tmp.path())).starts_with("no image"));
        put(tmp.path(), "a", "6.1");
        let all = list(tmp.path());
        assert_eq!((all.len(), all[0].name, all[0].packages), (1, "default", 1));
        assert!(all[0].bytes > 0 && all[0].bytes < 1 << 20);
        assert!(table(&all).contains("1 packages  Linux 6.1"));
    }

    #[test]
    fn foreign_files_in_the_cache_are_passed_over() {
        let tmp = tempfile::tempdir().unwrap();
        put(tmp.path(), "a", "6.1");
        let dir = tmp.path().join("images/b");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("manifest.json"), b"{\"layout\":").unwrap();
        fs::write(tmp.path().join("images/c"), b"").unwrap();
        assert_eq!(peek(tmp.path()).unwrap().manifest.kernel_release, "6.1");
    }
}
