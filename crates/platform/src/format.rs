//! The file of the roots: magic, version, length, payload, SHA-256 of all of it.
//!
//! The payload of version 1 has the secrets alone; that of version 2 the [`books`] after
//! them. Both are read, the second is written.
//!
//! All numbers are little-endian. The checksum finds damage; who may write the
//! file could correct it as well, which is what the permissions are for.

use crate::books::{self, Books};
use crate::roots::{Roots, SVN_FIRST};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// First bytes of the file.
pub const MAGIC: &[u8; 8] = b"KLUISPLT";
/// The version that is written.
pub const VERSION: u32 = 2;
/// The version without books.
pub const VERSION_1: u32 = 1;
/// Bytes of a payload of version 1, with which that of version 2 begins.
pub const PAYLOAD_1: usize = 120;
/// Most bytes of a payload.
pub const MAX_PAYLOAD: usize = PAYLOAD_1 + books::MAX_SIZE;
/// Magic, version, length.
const HEADER: usize = 16;
/// SHA-256.
const CHECKSUM: usize = 32;
/// Most bytes of the whole file.
pub const MAX_SIZE: usize = HEADER + MAX_PAYLOAD + CHECKSUM;

/// What is wrong with a file.
#[derive(Debug, PartialEq, Eq)]
pub enum FormatError {
    /// It is not what was written.
    Damaged(&'static str),
    /// It is of this version, which is not known.
    Version(u32),
}

/// The roots as bytes.
pub fn encode_payload(roots: &Roots) -> Zeroizing<Vec<u8>> {
    // never moved, so that nothing is left behind
    let mut out = Zeroizing::new(Vec::with_capacity(MAX_PAYLOAD));
    out.extend_from_slice(&roots.platform_id);
    out.extend_from_slice(&roots.created.to_le_bytes());
    out.extend_from_slice(&roots.changed.to_le_bytes());
    out.extend_from_slice(&roots.seal_fuses);
    out.extend_from_slice(&roots.provisioning_fuses);
    out.extend_from_slice(&roots.owner_epoch);
    out.extend_from_slice(&roots.owner_epoch_number.to_le_bytes());
    out.extend_from_slice(&[roots.svn, 0, 0, 0]);
    out.extend_from_slice(&roots.svn_top);
    roots.books.encode(&mut out);
    out
}

/// The roots from bytes of a version; a secret that is all zeros is none.
///
/// # Errors
/// What is wrong with them.
pub fn decode_payload(version: u32, bytes: &[u8]) -> Result<Roots, FormatError> {
    let wrong = FormatError::Damaged;
    let (bytes, books) = bytes.split_at_checked(PAYLOAD_1).ok_or(wrong("wrong length"))?;
    let books = match version {
        VERSION_1 if books.is_empty() => Books::default(),
        VERSION_1 => return Err(wrong("wrong length")),
        VERSION => Books::decode(books).ok_or(wrong("books that are none"))?,
        other => return Err(FormatError::Version(other)),
    };
    let (platform_id, rest) = take(bytes);
    let (created, rest) = take(rest);
    let (changed, rest) = take(rest);
    let (seal_fuses, rest) = take(rest);
    let (provisioning_fuses, rest) = take(rest);
    let (owner_epoch, rest) = take(rest);
    let (owner_epoch_number, rest) = take(rest);
    let ([svn, reserved @ ..], rest): ([u8; 4], _) = take(rest);
    let (svn_top, _) = take(rest);
    let roots = Roots {
        platform_id,
        created: u64::from_le_bytes(created),
        changed: u64::from_le_bytes(changed),
        seal_fuses,
        provisioning_fuses,
        owner_epoch,
        owner_epoch_number: u32::from_le_bytes(owner_epoch_number),
        svn,
        svn_top,
        books,
    };
    if svn < SVN_FIRST || reserved != [0; 3] || roots.owner_epoch_number == 0 {
        return Err(wrong("values out of range"));
    }
    let secrets: [&[u8]; 5] = [
        &roots.platform_id,
        &roots.seal_fuses,
        &roots.provisioning_fuses,
        &roots.owner_epoch,
        &roots.svn_top,
    ];
    if secrets.iter().any(|s| s.iter().all(|&b| b == 0)) {
        return Err(wrong("an empty secret"));
    }
    Ok(roots)
}

/// The first `N` bytes and the rest; the caller has checked the length.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let mut head = [0; N];
    let (front, rest) = bytes.split_at(N);
    head.copy_from_slice(front);
    (head, rest)
}

/// The whole file.
pub fn encode(roots: &Roots) -> Zeroizing<Vec<u8>> {
    let payload = encode_payload(roots);
    let mut out = Zeroizing::new(Vec::with_capacity(MAX_SIZE));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&payload);
    let mut sum: [u8; CHECKSUM] = Sha256::digest(&out).into();
    out.extend_from_slice(&sum);
    sum.zeroize();
    out
}

/// The roots from the whole file.
///
/// # Errors
/// What is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Roots, FormatError> {
    let wrong = FormatError::Damaged;
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(wrong("truncated"))?;
    let (magic, header): ([u8; 8], _) = take(header);
    if &magic != MAGIC {
        return Err(wrong("not the file of a platform"));
    }
    let (version, header) = take(header);
    let version = match u32::from_le_bytes(version) {
        known @ (VERSION_1 | VERSION) => known,
        0 => return Err(wrong("version 0")),
        other => return Err(FormatError::Version(other)),
    };
    let (length, _) = take(header);
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_PAYLOAD || rest.len() > length + CHECKSUM {
        return Err(wrong("wrong length"));
    }
    if rest.len() < length + CHECKSUM {
        return Err(wrong("truncated"));
    }
    let (payload, sum) = rest.split_at(length);
    if Sha256::digest(&bytes[..HEADER + length]).as_slice() != sum {
        return Err(wrong("wrong checksum"));
    }
    decode_payload(version, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        let mut roots = Roots::generate(1_700_000_000).unwrap();
        roots.changed += 5;
        roots.owner_epoch_number = 3;
        roots.svn = 9;
        roots.books.signing_key = "a key".into();
        roots.books.publish("KLUIS-SA-00001", 9, 8).unwrap();
        roots
    }

    #[test]
    fn what_is_written_is_read() {
        let roots = roots();
        let bytes = encode(&roots);
        assert!(decode(&bytes).is_ok_and(|read| read == roots));
    }

    /// As the first version of Kluis wrote it.
    #[test]
    fn version_1_is_read_as_a_platform_whose_books_are_empty() {
        let mut roots = roots();
        let mut bytes = [&MAGIC[..], &[1, 0, 0, 0], &[120, 0, 0, 0]].concat();
        bytes.extend_from_slice(&encode_payload(&roots)[..120]);
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        assert_eq!(bytes.len(), 168);
        roots.books = Books::default();
        assert!(decode(&bytes).is_ok_and(|read| read == roots));
        assert!(decode(&encode(&roots)).is_ok_and(|read| read == roots), "and written as version 2");
        // no books in a file that says it has none
        assert!(decode_payload(1, &encode_payload(&roots)).is_err());
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_found() {
        let bytes = encode(&roots());
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        let mut long = bytes.to_vec();
        long.push(0);
        assert!(decode(&long).is_err());
    }

    #[test]
    fn later_versions_are_told_from_damage() {
        let mut bytes = encode(&roots()).to_vec();
        bytes[8] = 3;
        assert!(matches!(decode(&bytes), Err(FormatError::Version(3))));
    }

    #[test]
    fn empty_secrets_and_impossible_values_are_refused_whatever_the_checksum() {
        type Change = fn(&mut Roots);
        let changes: [Change; 7] = [
            |r| r.platform_id = [0; 16],
            |r| r.seal_fuses = [0; 16],
            |r| r.provisioning_fuses = [0; 16],
            |r| r.owner_epoch = [0; 16],
            |r| r.svn_top = [0; 32],
            |r| r.svn = 0,
            |r| r.owner_epoch_number = 0,
        ];
        for (i, change) in changes.iter().enumerate() {
            let mut bad = roots();
            change(&mut bad);
            assert!(decode(&encode(&bad)).is_err(), "change {i}");
        }
        assert!(decode(&encode(&roots())).is_ok());
    }
}
