//! `kluis image`: building the default guest, and looking at it.

use crate::cli::ImageCommand;
use crate::exit::{self, Error};
use crate::units;
use image::Manifest;
use serde::Serialize;
use std::fs;
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

/// Does what was asked.
///
/// # Errors
/// The image cannot be built, or there is none to show.
pub(crate) fn main(command: ImageCommand, json: bool) -> Result<u8, Error> {
    let found = match command {
        ImageCommand::Build => {
            let image = image::build(&image::Options { cache_dir: None, quiet: json })?;
            Found { kernel: image.kernel, initrd: image.initrd, manifest: image.manifest }
        }
        ImageCommand::Show => {
            let cache = folder().ok_or_else(|| Error::failed(image::ImageError::NoCacheFolder))?;
            peek(&cache).ok_or_else(|| {
                Error::failed(format!(
                    "there is no guest image in {} yet: make one with `kluis image build`",
                    cache.display()
                ))
            })?
        }
    };
    if json {
        crate::print_json(&found)?;
    } else {
        crate::print(&text(&found))?;
    }
    Ok(exit::OK)
}

fn text(found: &Found) -> String {
    let m = &found.manifest;
    let mut out = format!("Linux {}\n", m.kernel_release);
    out += &format!("kernel   {} ({})\n", found.kernel.display(), units::bytes(m.kernel.size));
    out += &format!("initrd   {} ({})\n", found.initrd.display(), units::bytes(m.initrd.size));
    for package in &m.packages {
        out += &format!("package  {} {} sha256:{}\n", package.name, package.version, package.sha256);
    }
    for module in &m.modules {
        out += &format!("module   {module}\n");
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
        let text = text(&found);
        for part in ["Linux 6.1\n", "package  linux 6 sha256:ab\n", "(7 bytes)", "x.ko"] {
            assert!(text.contains(part), "{text}");
        }
        fs::write(tmp.path().join("images/a/vmlinuz"), b"cut").unwrap();
        assert!(peek(tmp.path()).is_none());
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
