//! What can go wrong, with the remedy.

use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why there is no guest image.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No home and no cache folder in the environment.
    #[error("no folder for the cache: set HOME or XDG_CACHE_HOME")]
    NoCacheFolder,
    /// apt's programs are not installed.
    #[error(
        "cannot run {program}: the default image is made from Debian's packages through apt; \
         on a system without apt give your own with --kernel and --initrd"
    )]
    NoApt {
        /// The program that is missing.
        program: &'static str,
    },
    /// apt knows no such package.
    #[error(
        "apt knows no package {package}: the default image needs a Debian (bookworm or later) \
         source in /etc/apt, or give your own kernel with --kernel and --initrd"
    )]
    NoPackage {
        /// Name of the package.
        package: String,
    },
    /// The package sources cannot be reached.
    #[error(
        "cannot reach the package sources; check the network and apt's proxy settings, then try again ({detail})"
    )]
    Network {
        /// What apt said.
        detail: String,
    },
    /// apt failed for another reason.
    #[error("{what} failed: {detail}; does `apt-get update` work on this machine?")]
    Apt {
        /// The apt command.
        what: String,
        /// What apt said.
        detail: String,
    },
    /// The disk is full.
    #[error("no space left for {}: the image needs about 120 MiB; free some, or point XDG_CACHE_HOME at another disk", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The machine in which the Debian image is set up did not get to the end.
    #[error("cannot set up the Debian image: {detail}")]
    SetUp {
        /// What it said last, or why it ended.
        detail: String,
    },
    /// A downloaded file is not what the package index promises.
    #[error(
        "{file} is not what the package index promises (SHA-256 {actual}, expected {expected}); it was deleted: try again, and if it happens again suspect the mirror or a proxy"
    )]
    Checksum {
        /// Name of the file.
        file: String,
        /// Promised hash, hexadecimal.
        expected: String,
        /// Hash found, hexadecimal.
        actual: String,
    },
    /// A file is in a format this version does not read.
    #[error(
        "{what}: {why}; this version of Kluis cannot read the package, use another Debian release or --kernel and --initrd"
    )]
    Format {
        /// The file or member.
        what: String,
        /// What is unexpected about it.
        why: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl ImageError {
    /// Wraps a file operation's error; a full disk becomes its own kind.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
                _ => Self::Io { action, path, source },
            }
        }
    }

    /// A file that cannot be read. What it says of itself, control characters
    /// included, may be part of the texts.
    pub(crate) fn format(what: impl Into<String>, why: impl Into<String>) -> Self {
        let plain = |text: String| text.replace(|c: char| c.is_control(), " ");
        Self::Format { what: plain(what.into()), why: plain(why.into()) }
    }
}
