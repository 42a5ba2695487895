//! Builds Kluis's default guest from Debian's packages: a kernel as Debian
//! ships it, and an initramfs with busybox, the kernel modules the machine's
//! devices need, and Kluis's own init and agent.
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
mod elf;
mod error;
mod hash;
mod kernel;
mod manifest;
mod progress;
mod rootfs;

pub use cache::{Image, Options, build, ensure};
pub use error::ImageError;
pub use manifest::{FileRecord, Manifest, PackageRecord};

/// The guest's init and agent, as built from `guest/init`.
static INIT: &[u8] = include_bytes!(env!("KLUIS_INIT"));
