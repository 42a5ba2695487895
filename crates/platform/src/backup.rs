//! The encrypted copy of a platform's roots.
//!
//! Header: magic, version, cost of the key (memory in KiB, passes, lanes), salt,
//! nonce; then the payload of [`format`](mod@crate::format), under AES-256-GCM with
//! the header as associated data. The key is Argon2id of the passphrase (RFC
//! 9106); each backup has a salt, and so a key, of its own. All numbers are
//! little-endian.

use crate::PlatformError;
use crate::folder;
use crate::format::{self, FormatError};
use crate::roots::Roots;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// First bytes of the file.
pub const MAGIC: &[u8; 8] = b"KLUISBAK";
/// The version that is written; it is that of the payload ([`format::VERSION`]).
pub const VERSION: u32 = format::VERSION;
const SALT: usize = 16;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEADER: usize = 8 + 4 + 12 + SALT + NONCE;
/// Most bytes of the whole file.
pub const MAX_SIZE: usize = HEADER + format::MAX_PAYLOAD + TAG;

/// What protects a backup: 8 to 1024 bytes, wiped when dropped.
#[derive(PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Fewest bytes.
    pub const MIN: usize = 8;
    /// Most bytes.
    pub const MAX: usize = 1024;

    /// Takes these bytes.
    ///
    /// # Errors
    /// They are too few or too many.
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, PlatformError> {
        let len = bytes.len();
        if !(Self::MIN..=Self::MAX).contains(&len) {
            bytes.zeroize();
            return Err(PlatformError::Passphrase(len));
        }
        Ok(Self(bytes))
    }
}

/// What deriving a key costs whoever tries passphrases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    /// KiB of memory.
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// RFC 9106, section 4, the second recommended option.
    const USUAL: Self = Self { memory: 64 << 10, passes: 3, lanes: 4 };
    /// The most that a file may ask for: it comes from anywhere.
    const MOST: Self = Self { memory: 1 << 20, passes: 16, lanes: 16 };

    fn key(self, passphrase: &Passphrase, salt: &[u8; SALT]) -> Result<Zeroizing<[u8; 32]>, PlatformError> {
        let fail = |e: argon2::Error| PlatformError::KeyDerivation(e.to_string());
        let params = Params::new(self.memory, self.passes, self.lanes, Some(32)).map_err(fail)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0; 32]);
        argon.hash_password_into(&passphrase.0, salt, key.as_mut()).map_err(fail)?;
        Ok(key)
    }
}

/// Encrypts the roots.
///
/// # Errors
/// The host gives no random numbers or not enough memory.
pub fn encrypt(roots: &Roots, passphrase: &Passphrase) -> Result<Vec<u8>, PlatformError> {
    encrypt_at(Cost::USUAL, roots, passphrase)
}

fn encrypt_at(cost: Cost, roots: &Roots, passphrase: &Passphrase) -> Result<Vec<u8>, PlatformError> {
    let (mut salt, mut nonce) = ([0; SALT], [0; NONCE]);
    getrandom::fill(&mut salt).map_err(PlatformError::Random)?;
    getrandom::fill(&mut nonce).map_err(PlatformError::Random)?;
    let mut out = Vec::new();
    out.extend_from_slice(MAGIC);
    for number in [VERSION, cost.memory, cost.passes, cost.lanes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&salt);
    out.extend_from_slice(&nonce);
    let key = cost.key(passphrase, &salt)?;
    let cipher = Aes256Gcm::new(key.as_ref().into());
    let payload = format::encode_payload(roots);
    let secret = cipher
        .encrypt(Nonce::from_slice(&nonce), Payload { msg: &payload, aad: &out })
        .map_err(|e| PlatformError::KeyDerivation(e.to_string()))?;
    out.extend_from_slice(&secret);
    Ok(out)
}

/// Decrypts the roots. `path` names the file in errors.
///
/// # Errors
/// It is no backup, or the passphrase is not the one that made it.
pub fn decrypt(bytes: &[u8], passphrase: &Passphrase, path: &Path) -> Result<Roots, PlatformError> {
    let wrong = |reason| PlatformError::NotABackup { path: path.to_owned(), reason };
    if !bytes.starts_with(MAGIC) {
        return Err(wrong("it begins differently"));
    }
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let version = match number(8) {
        Some(known @ (format::VERSION_1 | VERSION)) => known,
        Some(version) if version > VERSION => {
            return Err(PlatformError::Version { path: path.to_owned(), version });
        }
        _ => return Err(wrong("its version is 0, or cut off")),
    };
    if !(HEADER + format::PAYLOAD_1 + TAG..=MAX_SIZE).contains(&bytes.len()) {
        return Err(wrong("it has another length"));
    }
    let (header, secret) = bytes.split_at(HEADER);
    let cost = match (number(12), number(16), number(20)) {
        (Some(memory), Some(passes), Some(lanes)) => Cost { memory, passes, lanes },
        _ => return Err(wrong("it has another length")),
    };
    let most = Cost::MOST;
    // eight blocks for each lane: RFC 9106, section 3.1
    let least = cost.lanes.saturating_mul(8);
    if !(1..=most.lanes).contains(&cost.lanes)
        || !(1..=most.passes).contains(&cost.passes)
        || !(least..=most.memory).contains(&cost.memory)
    {
        return Err(wrong("its key would cost too much or nothing"));
    }
    let mut salt = [0; SALT];
    salt.copy_from_slice(&header[24..24 + SALT]);
    let nonce = Nonce::from_slice(&header[24 + SALT..]);
    let key = cost.key(passphrase, &salt)?;
    let cipher = Aes256Gcm::new(key.as_ref().into());
    let payload = cipher
        .decrypt(nonce, Payload { msg: secret, aad: header })
        .map(Zeroizing::new)
        .map_err(|_| PlatformError::Decrypt(path.to_owned()))?;
    format::decode_payload(version, &payload).map_err(|e| match e {
        FormatError::Damaged(reason) => wrong(reason),
        FormatError::Version(version) => PlatformError::Version { path: path.to_owned(), version },
    })
}

/// Writes a new file that only the user may read, whole or not at all.
///
/// # Errors
/// A file of that name exists, or it cannot be written.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), PlatformError> {
    let fail = || PlatformError::io("write", path);
    if path.symlink_metadata().is_ok() {
        return Err(PlatformError::BackupExists(path.to_owned()));
    }
    let mut file =
        tempfile::Builder::new().prefix(".kluis-backup-").tempfile_in(folder::parent(path)).map_err(fail())?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(fail())?;
    match file.persist_noclobber(path) {
        Ok(_) => folder::sync_parent(path),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(PlatformError::BackupExists(path.to_owned()))
        }
        Err(e) => Err(fail()(e.error)),
    }
}

/// Reads a file that is no longer than a backup.
///
/// # Errors
/// It is longer, no regular file, or cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PlatformError> {
    let wrong = |reason| PlatformError::NotABackup { path: path.to_owned(), reason };
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file: File =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => wrong("it does not exist"),
            std::io::ErrorKind::PermissionDenied => wrong("you may not read it"),
            _ => PlatformError::io("open", path)(e),
        })?;
    if !file.metadata().map_err(PlatformError::io("look at", path))?.is_file() {
        return Err(wrong("it is no regular file"));
    }
    let mut bytes = Vec::with_capacity(MAX_SIZE + 1);
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes).map_err(PlatformError::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const CHEAP: Cost = Cost { memory: 64, passes: 1, lanes: 1 };

    fn words(text: &str) -> Passphrase {
        Passphrase::new(text.into()).unwrap()
    }

    fn decrypted(bytes: &[u8], passphrase: &str) -> Result<Roots, PlatformError> {
        decrypt(bytes, &words(passphrase), Path::new("x"))
    }

    #[test]
    fn only_the_passphrase_brings_the_roots_back() {
        let roots = Roots::generate(1).unwrap();
        let file = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        assert!(decrypted(&file, "correct horse").is_ok_and(|read| read == roots));
        assert!(matches!(decrypted(&file, "correct Horse"), Err(PlatformError::Decrypt(_))));
        let again = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        assert_ne!(file[24..], again[24..], "salt and nonce are new each time");
    }

    #[test]
    fn nothing_secret_can_be_read_in_it() {
        let roots = Roots::generate(1).unwrap();
        let file = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        let finds = |part: &[u8]| file.windows(part.len()).any(|w| w == part);
        assert!(finds(MAGIC));
        for part in [&roots.seal_fuses[..8], &roots.provisioning_fuses[..8], &roots.owner_epoch[..8]] {
            assert!(!finds(part));
        }
        assert!(!finds(&roots.svn_top[..8]) && !finds(&roots.svn_top[24..]));
    }

    #[test]
    fn altered_and_cut_files_are_refused() {
        let roots = Roots::generate(1).unwrap();
        let file = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        for len in 0..file.len() {
            assert!(decrypted(&file[..len], "correct horse").is_err(), "{len} bytes");
        }
        for byte in (0..file.len()).filter(|byte| !(12..24).contains(byte)) {
            let mut bad = file.clone();
            bad[byte] ^= 4;
            assert!(decrypted(&bad, "correct horse").is_err(), "byte {byte}");
        }
        // other costs give another key
        let mut bad = file.clone();
        bad[12] ^= 1;
        assert!(matches!(decrypted(&bad, "correct horse"), Err(PlatformError::Decrypt(_))));
    }

    #[test]
    fn file_cannot_ask_for_any_amount_of_memory_or_time() {
        let roots = Roots::generate(1).unwrap();
        let file = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        for (memory, passes, lanes) in [
            (u32::MAX, 1, 1),
            (64, u32::MAX, 1),
            (64, 1, u32::MAX),
            (0, 1, 1),
            (64, 0, 1),
            (64, 1, 0),
            (64, 1, 9),
        ] {
            let mut bad = file.clone();
            for (i, number) in [memory, passes, lanes].into_iter().enumerate() {
                bad[12 + 4 * i..16 + 4 * i].copy_from_slice(&u32::to_le_bytes(number));
            }
            assert!(matches!(decrypted(&bad, "correct horse"), Err(PlatformError::NotABackup { .. })));
        }
    }

    #[test]
    fn later_versions_are_told() {
        let roots = Roots::generate(1).unwrap();
        let mut file = encrypt_at(CHEAP, &roots, &words("correct horse")).unwrap();
        file[8] = 7;
        let e = decrypted(&file, "correct horse").err().unwrap();
        assert!(matches!(e, PlatformError::Version { version: 7, .. }), "{e}");
    }

    #[test]
    fn passphrases_have_bounds() {
        for len in [0, 7, 1025] {
            assert!(
                matches!(Passphrase::new(vec![b'x'; len]), Err(PlatformError::Passphrase(n)) if n == len)
            );
        }
        assert!(Passphrase::new(vec![b'x'; 8]).is_ok() && Passphrase::new(vec![b'x'; 1024]).is_ok());
    }

    #[test]
    fn usual_cost_is_within_what_is_read() {
        let start = Instant::now();
        let roots = Roots::generate(1).unwrap();
        let file = encrypt(&roots, &words("correct horse")).unwrap();
        assert!(decrypted(&file, "correct horse").is_ok_and(|read| read == roots));
        println!("encrypting and decrypting: {:?}", start.elapsed());
    }
}
