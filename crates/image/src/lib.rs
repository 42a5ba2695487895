//! Builds Kluis's guests from Debian's packages. The default one is a kernel as
//! Debian ships it, and an initramfs with busybox, the kernel modules the
//! machine's devices need, and Kluis's own init and agent; the other is a whole
//! Debian on a disk ([`debian`]).
//!
//! Packages come through the machine's own apt configuration (its mirrors,
//! proxies and trust), by apt's own tools run as an ordinary user; they are
//! unpacked and packed here, without dpkg and without root. Results are kept in
//! a cache and reused as long as they are whole and current.
//!
//! ```no_run
//! let image = image::ensure(&image::Options::default())?;
//! println!("{} {}", image.kernel.display(), image.initrd.display());
//! # Ok::<(), image::ImageError>(())
//! ```

#![forbid(unsafe_code)]

mod applets;
mod apt;
mod cache;
mod cpio;
mod deb;
pub mod debian;
mod elf;
mod error;
mod hash;
mod kernel;
mod manifest;
mod progress;
mod rootfs;

pub use cache::{Image, Name, Options, build, default_folder, ensure, remove_all};
pub use error::ImageError;
pub use manifest::{FileRecord, Manifest, PackageRecord};

/// The guest's init and agent, as built from `guest/init`.
static INIT: &[u8] = include_bytes!(env!("KLUIS_INIT"));

/// An initramfs to be put behind an image's, with files that a machine is handed at its
/// start: their paths, modes and contents. `None` if one is of 4 GiB or more.
#[must_use]
pub fn handed(files: &[(String, u32, Vec<u8>)]) -> Option<Vec<u8>> {
    let mut tree = cpio::Tree::default();
    for (path, mode, data) in files {
        tree.file(path, *mode, data.clone());
    }
    tree.pack()
}

/// Makes an initramfs of a package that holds kernel, modules and busybox, as
/// [`build`] does of two: for the fuzz targets, which have no files. Returns the
/// length of the initramfs.
#[doc(hidden)]
pub fn fuzz_package(bytes: &[u8]) -> Result<usize, ImageError> {
    let package = || std::io::Cursor::new(bytes);
    let kernel = kernel::read_from(package(), "package")?;
    let busybox = rootfs::read_busybox_from(package(), "package")?;
    rootfs::pack(&kernel, Some(busybox), b"init").map(|initrd| initrd.len())
}
