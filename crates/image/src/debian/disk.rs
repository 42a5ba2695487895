//! A disk image without the zeroes, and its identity.
//!
//! The identity is the SHA-256 of the length in bytes and then, for each piece of
//! 64 KiB that is not all zeroes, its offset and its bytes; numbers are 64 bits,
//! little-endian. It does not depend on which zeroes are holes of the file.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PIECE: usize = 64 << 10;

/// Copies what is not zero to the same place of `to`, which is empty; gives the
/// image's identity.
pub(super) fn copy(from: &File, to: &File) -> io::Result<[u8; 32]> {
    to.set_len(from.metadata()?.len())?;
    walk(from, |offset, piece| to.write_all_at(piece, offset))
}

/// The image's identity.
pub(super) fn identity(file: &File) -> io::Result<[u8; 32]> {
    walk(file, |_, _| Ok(()))
}

fn walk(file: &File, mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<[u8; 32]> {
    let len = file.metadata()?.len();
    let mut hash = Sha256::new_with_prefix(len.to_le_bytes());
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    while at < len {
        // holes need not be read
        match seek(file, SeekFrom::Data(at)) {
            Ok(data) => at = at.max(data - data % PIECE as u64),
            Err(Errno::NXIO) => break,
            // not every file system tells
            Err(_) => {}
        }
        let piece = &mut buf[..PIECE.min((len - at) as usize)];
        file.read_exact_at(piece, at)?;
        if piece.iter().any(|&b| b != 0) {
            hash.update(at.to_le_bytes());
            hash.update(&*piece);
            visit(at, piece)?;
        }
        at += piece.len() as u64;
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeroes_are_left_out_and_do_not_matter() {
        let written = tempfile::tempfile().unwrap();
        written.set_len((4 << 20) + 5).unwrap();
        written.write_all_at(&vec![0; 1 << 20], 0).unwrap();
        written.write_all_at(b"in the middle", (2 << 20) - 3).unwrap();
        written.write_all_at(b"end", (4 << 20) + 2).unwrap();
        let copied = tempfile::tempfile().unwrap();
        let id = copy(&written, &copied).unwrap();
        assert_eq!(identity(&copied).unwrap(), id);
        assert_eq!(identity(&written).unwrap(), id);
        let read = |file: &File| {
            let mut all = vec![0; file.metadata().unwrap().len() as usize];
            file.read_exact_at(&mut all, 0).unwrap();
            all
        };
        assert!(read(&copied) == read(&written));
        assert!(copied.metadata().unwrap().blocks() * 512 <= 4 * PIECE as u64);
        copied.write_all_at(b"E", (4 << 20) + 2).unwrap();
        assert_ne!(identity(&copied).unwrap(), id);
        written.set_len((4 << 20) + 6).unwrap();
        assert_ne!(identity(&written).unwrap(), id);
    }
}
