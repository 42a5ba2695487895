//! Encryption under a key that the clinic has made for one file of records, and gives to
//! nobody but the enclave: AES-256-GCM.
//!
//! | | nonce (12 bytes) | |
//! |---|---|---|
//! | chunk of lines | 0, zeros, its number (4, big-endian) | 1 in the byte before, if it is the last |
//! | table | 1, random | |
//!
//! So a chunk opens in its own place alone, the last one as the last, and a table is never
//! taken for a chunk. Since numbers start at 0, a key is for one file.

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use alloc::vec::Vec;
use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;
/// Most bytes of lines in a chunk.
pub const MAX_LINES: usize = 32 << 10;

/// What is not what it should be: changed, in another place, or under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthentic;

impl fmt::Display for Unauthentic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it was changed, is in another place, or under another key")
    }
}

impl core::error::Error for Unauthentic {}

/// The key. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DataKey([u8; KEY_SIZE]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// The key of these bytes; `None` if they are not 32.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes: for whoever gives it away.
    pub fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    /// Encrypts whole lines as chunk `number`.
    ///
    /// # Errors
    /// There are more than anybody encrypts.
    pub fn encrypt_chunk(&self, number: u32, last: bool, lines: &[u8]) -> Result<Vec<u8>, Unauthentic> {
        self.cipher().encrypt(&chunk(number, last), lines).map_err(|_| Unauthentic)
    }

    /// Decrypts chunk `number`.
    ///
    /// # Errors
    /// It is another one, or changed.
    pub fn decrypt_chunk(&self, number: u32, last: bool, bytes: &[u8]) -> Result<Vec<u8>, Unauthentic> {
        self.cipher().decrypt(&chunk(number, last), bytes).map_err(|_| Unauthentic)
    }

    /// Encrypts a table, with random bytes that are new for each.
    ///
    /// # Errors
    /// It is larger than anybody encrypts.
    pub fn encrypt_table(&self, random: [u8; 11], table: &[u8]) -> Result<Vec<u8>, Unauthentic> {
        let encrypted = self.cipher().encrypt(&self::table(random), table).map_err(|_| Unauthentic)?;
        Ok([&random[..], &encrypted].concat())
    }

    /// Decrypts a table.
    ///
    /// # Errors
    /// It is none, or changed.
    pub fn decrypt_table(&self, bytes: &[u8]) -> Result<Vec<u8>, Unauthentic> {
        let (random, encrypted) = bytes.split_first_chunk().ok_or(Unauthentic)?;
        self.cipher().decrypt(&table(*random), encrypted).map_err(|_| Unauthentic)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&self.0).into())
    }
}

type GcmNonce = Nonce<aes_gcm::aead::consts::U12>;

fn chunk(number: u32, last: bool) -> GcmNonce {
    let mut nonce = GcmNonce::default();
    nonce[7] = last.into();
    nonce[8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn table(random: [u8; 11]) -> GcmNonce {
    let mut nonce = GcmNonce::default();
    nonce[0] = 1;
    nonce[1..].copy_from_slice(&random);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_opens_in_its_place_alone() {
        let key = DataKey::new(&[7; KEY_SIZE]).unwrap();
        let made = key.encrypt_chunk(3, false, b"lines").unwrap();
        assert_eq!(key.decrypt_chunk(3, false, &made).as_deref(), Ok(&b"lines"[..]));
        assert_eq!(key.decrypt_chunk(4, false, &made), Err(Unauthentic));
        assert_eq!(key.decrypt_chunk(3, true, &made), Err(Unauthentic));
        assert_eq!(DataKey::new(&[8; KEY_SIZE]).unwrap().decrypt_chunk(3, false, &made), Err(Unauthentic));
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert_eq!(key.decrypt_chunk(3, false, &changed), Err(Unauthentic), "{at}");
        }
        assert_eq!(DataKey::new(&[7; 31]), None);
    }

    #[test]
    fn a_table_is_no_chunk_and_no_other_table() {
        let key = DataKey::new(&[7; KEY_SIZE]).unwrap();
        let [one, two] = [[0; 11], [1; 11]].map(|random| key.encrypt_table(random, b"table").unwrap());
        assert_ne!(one[11..], two[11..]);
        assert_eq!(key.decrypt_table(&one).as_deref(), Ok(&b"table"[..]));
        assert_eq!(key.decrypt_table(&[&one[..11], &two[11..]].concat()), Err(Unauthentic));
        assert_eq!(key.decrypt_chunk(0, false, &one[11..]), Err(Unauthentic));
        assert_eq!(key.decrypt_table(b"short"), Err(Unauthentic));
    }
}
