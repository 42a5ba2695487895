//! Enclaves whose program is ciphertext in their files.
//!
//! ```text
//! 0            payload      the program, each piece with content encrypted in its place
//!              (a page)     nothing: a guard
//! loader       loader       a program of its own, in clear: crate `enclave-loader`
//!              (a page)     nothing: a guard
//! heap, threads …           as in every enclave ([`crate::layout`])
//! ```
//!
//! Every thread enters by the loader. Until the enclave is unlocked the loader answers
//! [`crate::call::function::UNLOCK`] and, after it, [`crate::call::function::ACCEPT`], and
//! refuses everything else; from then on it passes every entry on, with registers as they
//! are, to the payload's own entry point.
//!
//! **Pieces.** A piece is the part of one segment that has content, in whole pages. Its pages
//! are added with the segment's rights and W, so that they can be decrypted where they are;
//! zeros behind it stay zeros. On processors with SGX2 pieces that are not to be written are
//! then restricted to the segment's rights by EMODPR, and the loader accepts that (EACCEPT).
//!
//! **Cipher.** Pieces are AES-256-GCM, piece N (from 0) with nonce N + 1, under a key that is
//! derived from the file's key and [`Payload::id`]. The id is a code over all plaintext
//! under the file's key: one key in the file serves any number of builds, and no two
//! different plaintexts are ever encrypted under the same key and nonce. Authenticated with
//! piece N are N and the whole of [`Payload`] without its tags; nonce 0 authenticates the
//! tags, with nothing to encrypt, and tells a wrong key from the right one.

use sgx_abi::{PAGE_SIZE, SecinfoFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const PAGE: u64 = PAGE_SIZE as u64;

/// Name of the section of the loader's program with the [`Payload`].
pub const PAYLOAD_SECTION: &str = ".enclave.payload";
/// Most pieces.
pub const MAX_PIECES: usize = 16;
/// Bytes of a key, and of the file's.
pub const KEY_SIZE: usize = 32;
/// Bytes of a tag.
pub const TAG_SIZE: usize = 16;
/// Bytes of a sealed key: header, key, tag.
pub const SEALED_SIZE: usize = 64 + KEY_SIZE + TAG_SIZE;
/// Least stack of each thread, in bytes: the loader's ciphers run on it.
pub const MIN_STACK: u64 = 4 * PAGE;

/// A run of pages that is ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Piece {
    /// Offset of the first page.
    pub offset: u64,
    /// Bytes, whole pages.
    pub size: u64,
    /// Rights that its pages are to have: bits of SECINFO.FLAGS.
    pub rights: u64,
    /// Zero.
    pub reserved: u64,
    /// Of the ciphertext.
    pub tag: [u8; TAG_SIZE],
}

impl Piece {
    /// Offset behind the last page.
    pub const fn end(&self) -> u64 {
        self.offset + self.size
    }

    /// Rights that its pages are to have.
    pub const fn rights(&self) -> SecinfoFlags {
        SecinfoFlags::from_bits_retain(self.rights)
    }

    /// Whether a right has to be taken from its pages once they are decrypted.
    pub const fn is_restricted(&self) -> bool {
        !self.rights().contains(SecinfoFlags::W)
    }
}

/// What the loader knows of the payload: it lies in the loader's part of the image, in
/// clear, at a multiple of [`PAYLOAD_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Payload {
    /// [`Payload::MAGIC`], also before the tool has filled in the rest.
    pub magic: [u8; 8],
    /// [`Payload::VERSION`], likewise.
    pub version: u64,
    /// Of this build.
    pub id: [u8; 16],
    /// Offset of the loader's first page.
    pub loader: u64,
    /// Offset of the loader's relocations (`Elf64_Rela`).
    pub rela: u64,
    /// Number of them.
    pub rela_count: u64,
    /// Offset of the payload's entry point.
    pub entry: u64,
    /// Number of pieces.
    pub count: u64,
    /// Code over all of this without itself.
    pub check: [u8; TAG_SIZE],
    /// By rising offset; zeros behind the last.
    pub pieces: [Piece; MAX_PIECES],
    /// Zero.
    pub reserved: [u64; 21],
}

/// Bytes of [`Payload`]; it lies at a multiple of that.
pub const PAYLOAD_SIZE: usize = size_of::<Payload>();

const _: () = assert!(PAYLOAD_SIZE == 1024 && PAGE_SIZE.is_multiple_of(PAYLOAD_SIZE));

impl Payload {
    /// First bytes of every one.
    pub const MAGIC: [u8; 8] = *b"KLUISLCK";
    /// Version of this contract.
    pub const VERSION: u64 = 1;

    /// What the loader's ELF file holds before the tool fills it in.
    pub const BLANK: Payload = Payload {
        magic: Self::MAGIC,
        version: Self::VERSION,
        id: [0; 16],
        loader: 0,
        rela: 0,
        rela_count: 0,
        entry: 0,
        count: 0,
        check: [0; TAG_SIZE],
        pieces: [Piece { offset: 0, size: 0, rights: 0, reserved: 0, tag: [0; TAG_SIZE] }; MAX_PIECES],
        reserved: [0; 21],
    };

    /// The one in this page, if there is one that makes sense.
    pub fn find(page: &[u8; PAGE_SIZE]) -> Option<Payload> {
        page.chunks_exact(PAYLOAD_SIZE)
            .filter(|bytes| bytes.starts_with(&Self::MAGIC))
            .find_map(|bytes| Self::read_from_bytes(bytes).ok().filter(Self::makes_sense))
    }

    /// Whether pieces are whole pages, in order, before the loader, and with rights that
    /// there are; the payload's entry is in one of them.
    pub fn makes_sense(&self) -> bool {
        let Some(pieces) = usize::try_from(self.count).ok().and_then(|count| self.pieces.get(..count)) else {
            return false;
        };
        let mut end = 0;
        for piece in pieces {
            let fits = piece.offset >= end
                && piece.size > 0
                && (piece.offset | piece.size).is_multiple_of(PAGE)
                && piece.offset.checked_add(piece.size).is_some_and(|end| end <= self.loader)
                && matches!(piece.rights, 1 | 3 | 5)
                && piece.reserved == 0;
            if !fits {
                return false;
            }
            end = piece.end();
        }
        self.version == Self::VERSION
            && self.loader.is_multiple_of(PAGE)
            && pieces.iter().any(|piece| (piece.offset..piece.end()).contains(&self.entry))
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces[..(self.count as usize).min(MAX_PIECES)]
    }

    /// What is authenticated with each piece: all of this without the tags.
    pub fn without_tags(&self) -> Payload {
        let mut this = Self { check: [0; TAG_SIZE], ..*self };
        this.pieces.iter_mut().for_each(|piece| piece.tag = [0; TAG_SIZE]);
        this
    }

    /// What [`Payload::check`] authenticates.
    pub fn without_check(&self) -> Payload {
        Self { check: [0; TAG_SIZE], ..*self }
    }
}

/// Message of [`crate::call::function::UNLOCK`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Unlock {
    /// One of [`unlock`].
    pub kind: u64,
    /// 1 if the host will restrict the pieces (SGX2), else 0. An enclave that runs only
    /// where there is SGX2 (MISCSELECT.EXINFO) does not ask.
    pub restricts: u64,
    /// The key, or the sealed one; zeros behind it.
    pub key: [u8; SEALED_SIZE],
}

/// Kinds of keys in [`Unlock`].
pub mod unlock {
    /// The file's.
    pub const KEY: u64 = 0;
    /// What an earlier [`super::Unlocked::sealed`] was.
    pub const SEALED: u64 = 1;
}

/// Result of [`crate::call::function::UNLOCK`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Unlocked {
    /// 1 if the enclave waits for [`crate::call::function::ACCEPT`], after EMODPR of each
    /// piece that [`Piece::is_restricted`]; 0 if it is open.
    pub restrict: u64,
    /// The key, sealed for this enclave on this processor.
    pub sealed: [u8; SEALED_SIZE],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload() -> Payload {
        let mut payload = Payload { loader: 0x5000, entry: 0x1010, count: 2, ..Payload::BLANK };
        payload.pieces[0] = Piece { offset: 0, size: 0x1000, rights: 1, ..Piece::default() };
        payload.pieces[1] = Piece { offset: 0x1000, size: 0x2000, rights: 5, ..Piece::default() };
        payload
    }

    fn found(change: impl Fn(&mut Payload)) -> bool {
        let mut payload = payload();
        change(&mut payload);
        let mut page = [0; PAGE_SIZE];
        page[2048..3072].copy_from_slice(payload.as_bytes());
        Payload::find(&page).is_some_and(|found| {
            assert_eq!(found, payload);
            true
        })
    }

    #[test]
    fn only_what_makes_sense_is_found() {
        assert!(found(|_| ()));
        let wrong: [fn(&mut Payload); 13] = [
            |p| p.magic[0] ^= 1,
            |p| p.version = 2,
            |p| p.count = 0,
            |p| p.count = MAX_PIECES as u64 + 1,
            |p| p.count = u64::MAX,
            |p| p.loader = 0x2000,
            |p| p.loader = 0x5001,
            |p| p.entry = 0x3000,
            |p| p.pieces[0].size = 0,
            |p| p.pieces[0].size = 0x1001,
            |p| p.pieces[1].offset = 0,
            |p| p.pieces[1].size = u64::MAX - 0xfff,
            |p| p.pieces[1].rights = 7,
        ];
        for (n, change) in wrong.into_iter().enumerate() {
            assert!(!found(change), "{n}");
        }
        assert_eq!(Payload::find(&[0; PAGE_SIZE]), None);
    }

    #[test]
    fn what_is_authenticated_leaves_out_tags_alone() {
        let mut payload = payload();
        payload.check = [1; 16];
        payload.pieces[1].tag = [2; 16];
        payload.id = [3; 16];
        assert_eq!(payload.without_check().pieces[1].tag, [2; 16]);
        assert_eq!(payload.without_check().check, [0; 16]);
        let bare = payload.without_tags();
        assert_eq!((bare.check, bare.pieces[1].tag, bare.id), ([0; 16], [0; 16], [3; 16]));
        assert_eq!(bare.pieces[1].size, payload.pieces[1].size);
    }
}
