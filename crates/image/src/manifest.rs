//! What an image was made from and what it is, as kept beside it.

use serde::{Deserialize, Serialize};

/// Changed whenever the same packages and init would make another image.
pub(crate) const LAYOUT: u32 = 2;

/// A package an image was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the `.deb` file, hexadecimal, as the package index has it.
    pub sha256: String,
    /// Length of the `.deb` file in bytes.
    pub size: u64,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name in the image's folder.
    pub name: String,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub size: u64,
}

/// The description of an image: `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the image's layout.
    pub layout: u32,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The packages it was made from.
    pub packages: Vec<PackageRecord>,
    /// SHA-256 of the init within, hexadecimal.
    pub init_sha256: String,
    /// Modules loaded at boot, in order, as paths in the guest.
    pub modules: Vec<String>,
    /// The kernel.
    pub kernel: FileRecord,
    /// The initramfs.
    pub initrd: FileRecord,
}
