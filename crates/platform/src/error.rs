//! What can go wrong, as one line with cause and remedy.

use std::io;
use std::path::{Path, PathBuf};

/// Why a platform cannot be used, made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// Nobody made one yet.
    #[error("there is no platform in {}: `kluis platform init` makes one, `kluis platform restore FILE` brings one back", .0.display())]
    Missing(PathBuf),
    /// One is there already.
    #[error("there is a platform in {} already: what is sealed on it would be lost; name another folder with --platform, or use restore --replace", .0.display())]
    Exists(PathBuf),
    /// Machines use it.
    #[error("the platform in {} is in use: stop the machines that run on it first", .0.display())]
    InUse(PathBuf),
    /// Others could read or change it.
    #[error("{} is open to others (mode {mode:04o}): its secrets may be known already; if you trust them, `chmod {wanted:o}` it", .path.display())]
    TooOpen {
        /// Folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they must be.
        wanted: u32,
    },
    /// It belongs to somebody else.
    #[error("{} belongs to user {owner}, not to you ({you}): use a platform of your own with --platform", .path.display())]
    Foreign {
        /// Folder or file.
        path: PathBuf,
        /// Its owner's user id.
        owner: u32,
        /// The user id of this process.
        you: u32,
    },
    /// Not a folder, or not a regular file.
    #[error("{} is no {wanted}: move it away, or name another folder with --platform", .path.display())]
    Kind {
        /// What was found there.
        path: PathBuf,
        /// What should be.
        wanted: &'static str,
    },
    /// The file is not what was written.
    #[error("{} is damaged ({reason}): bring the platform back with `kluis platform restore --replace FILE`", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A later version of Kluis wrote it.
    #[error("{} is of format {version}, which this Kluis does not know: use the version that wrote it, or a later one", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The security version is at its end.
    #[error("the security version is {0} already, the greatest there is: nothing was changed")]
    SvnAtTop(u8),
    /// No name of an advisory.
    #[error(
        "{0:?} is no name of an advisory: give up to 64 letters, digits and hyphens, such as KLUIS-SA-00001"
    )]
    AdvisoryName(String),
    /// An advisory is published once.
    #[error("{0} is published already: nothing was changed; give another name")]
    AdvisoryExists(String),
    /// More advisories than are kept.
    #[error("there are {0} advisories already, the most there can be: nothing was changed")]
    TooManyAdvisories(usize),
    /// Revoked twice.
    #[error(
        "the PCK certificate of security version {0} is revoked already: `kluis platform update --svn-up` leads to the next"
    )]
    AlreadyRevoked(u8),
    /// A key that is none.
    #[error("a signing key of {0} bytes cannot be kept: nothing was changed")]
    SigningKey(usize),
    /// Somebody changed it between two steps.
    #[error("the platform in {} was changed by another program: try again", .0.display())]
    Raced(PathBuf),
    /// A backup is never written over.
    #[error("{} exists: a backup is not written over; give another name", .0.display())]
    BackupExists(PathBuf),
    /// The file is no backup, or a damaged one.
    #[error("{} is no backup of a platform ({reason}): give a file that `kluis platform backup` wrote", .path.display())]
    NotABackup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// It does not decrypt.
    #[error("{} cannot be decrypted: the passphrase is another one, or the file was altered", .0.display())]
    Decrypt(PathBuf),
    /// Too short or long a passphrase.
    #[error("a passphrase of {0} bytes cannot protect a backup: give 8 to 1024 bytes")]
    Passphrase(usize),
    /// The host cannot do what the backup's key needs.
    #[error("cannot derive the backup's key: {0}; it takes up to 1 GiB of memory")]
    KeyDerivation(String),
    /// The host's file system.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// How the host answered.
        source: io::Error,
    },
    /// The host's random numbers.
    #[error("the host gives no random numbers: {0}; getrandom(2) must be allowed")]
    Random(getrandom::Error),
}

impl PlatformError {
    /// Whether the host failed, and not what was asked or given.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Random(_) | Self::KeyDerivation(_) | Self::Raced(_))
    }

    /// For `map_err`: an answer of the host's file system.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
