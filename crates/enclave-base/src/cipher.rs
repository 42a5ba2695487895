//! The cipher of encrypted enclaves ([`enclave_abi::encrypted`] says what is encrypted how).

use aes::Aes256;
use aes_gcm::{AeadInPlace, Aes256Gcm, KeyInit, Nonce};
use cmac::{Cmac, Mac};
use enclave_abi::encrypted::{KEY_SIZE, Payload, Piece, TAG_SIZE};
use zerocopy::IntoBytes;
use zeroize::Zeroizing;

/// What keys are derived for (*NIST SP 800-108, §4.1: Label*).
const LABEL: &[u8] = b"Kluis encrypted enclave";

/// Why something is not what was encrypted: the key, the ciphertext, its place or its tags
/// are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unauthentic;

/// The cipher of one build.
pub struct Cipher(Aes256Gcm);

impl Cipher {
    /// Derives the key of the build with this id from the file's: a KDF in counter mode with
    /// CMAC (*NIST SP 800-108, §4.1*), two blocks of 128 bits.
    pub fn new(key: &[u8; KEY_SIZE], id: &[u8; 16]) -> Self {
        Self(Aes256Gcm::new((&*derive(key, id)).into()))
    }

    /// Encrypts piece `n` where it lies; its tag.
    ///
    /// # Panics
    /// If it exceeds the 64 GiB of one message.
    pub fn encrypt(&self, payload: &Payload, n: usize, piece: &mut [u8]) -> [u8; TAG_SIZE] {
        let additional = additional(payload, n);
        let sealed = self.0.encrypt_in_place_detached(&nonce(n + 1), &additional, piece);
        sealed.expect("no enclave is so large").into()
    }

    /// Decrypts piece `n` where it lies.
    ///
    /// # Errors
    /// It is another; it is then left as it is.
    pub fn decrypt(&self, payload: &Payload, n: usize, piece: &mut [u8]) -> Result<(), Unauthentic> {
        let Some(Piece { tag, .. }) = payload.pieces().get(n) else { return Err(Unauthentic) };
        let additional = additional(payload, n);
        let opened = self.0.decrypt_in_place_detached(&nonce(n + 1), &additional, piece, tag.into());
        opened.map_err(|_| Unauthentic)
    }

    /// The code over all that is known of the payload, its tags included.
    pub fn check(&self, payload: &Payload) -> [u8; TAG_SIZE] {
        let payload = payload.without_check();
        let sealed = self.0.encrypt_in_place_detached(&nonce(0), payload.as_bytes(), &mut []);
        sealed.expect("it is empty").into()
    }

    /// Whether [`Payload::check`] is that code: if not, the key is another, or what is known
    /// of the payload was changed.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, payload: &Payload) -> Result<(), Unauthentic> {
        let bare = payload.without_check();
        let opened =
            self.0.decrypt_in_place_detached(&nonce(0), bare.as_bytes(), &mut [], (&payload.check).into());
        opened.map_err(|_| Unauthentic)
    }
}

/// The id of a build: a code under the file's key over the digest of all its plaintext.
/// Without the key it says nothing of the plaintext.
pub fn id(key: &[u8; KEY_SIZE], digest: &[u8; 32]) -> [u8; 16] {
    // counters of the derivation begin with 1
    prf(key, 0, &[LABEL, &[0], digest])
}

fn derive(key: &[u8; KEY_SIZE], id: &[u8; 16]) -> Zeroizing<[u8; KEY_SIZE]> {
    let mut derived = Zeroizing::new([0; KEY_SIZE]);
    for (counter, block) in (1u32..).zip(derived.chunks_mut(16)) {
        block.copy_from_slice(&prf(key, counter, &[LABEL, &[0], id, &256u32.to_be_bytes()]));
    }
    derived
}

fn prf(key: &[u8; KEY_SIZE], counter: u32, parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = <Cmac<Aes256> as Mac>::new(key.into());
    mac.update(&counter.to_be_bytes());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

fn nonce(n: usize) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&(n as u64).to_be_bytes());
    nonce.into()
}

/// What is authenticated with piece `n`.
fn additional(payload: &Payload, n: usize) -> [u8; size_of::<Payload>() + 8] {
    let mut bytes = [0; size_of::<Payload>() + 8];
    bytes[..size_of::<Payload>()].copy_from_slice(payload.without_tags().as_bytes());
    bytes[size_of::<Payload>()..].copy_from_slice(&(n as u64).to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_SIZE] = [7; KEY_SIZE];

    /// Two pieces of 4096 bytes, encrypted.
    fn encrypted(key: &[u8; KEY_SIZE], digest: [u8; 32]) -> (Payload, [[u8; 4096]; 2]) {
        let mut payload =
            Payload { id: id(key, &digest), loader: 0x4000, count: 2, entry: 0x1000, ..Payload::BLANK };
        let mut pieces = [[0x11; 4096], [0x22; 4096]];
        for (n, rights) in [1, 5].into_iter().enumerate() {
            payload.pieces[n] = Piece { offset: n as u64 * 4096, size: 4096, rights, ..Piece::default() };
        }
        let cipher = Cipher::new(key, &payload.id);
        let bare = payload;
        for (n, piece) in pieces.iter_mut().enumerate() {
            payload.pieces[n].tag = cipher.encrypt(&bare, n, piece);
        }
        payload.check = cipher.check(&payload);
        (payload, pieces)
    }

    /// What comes of it under `key`.
    fn decrypted(
        key: &[u8; KEY_SIZE],
        payload: &Payload,
        mut pieces: [[u8; 4096]; 2],
    ) -> Result<[[u8; 4096]; 2], &'static str> {
        let cipher = Cipher::new(key, &payload.id);
        cipher.verify(payload).map_err(|_| "check")?;
        for (n, piece) in pieces.iter_mut().enumerate() {
            let before = *piece;
            if cipher.decrypt(payload, n, piece).is_err() {
                assert_eq!(*piece, before, "left as it is");
                return Err("piece");
            }
        }
        Ok(pieces)
    }

    #[test]
    fn what_was_encrypted_is_decrypted() {
        let (payload, pieces) = encrypted(&KEY, [1; 32]);
        assert!(pieces.iter().flatten().filter(|&&byte| byte == 0x11 || byte == 0x22).count() < 200);
        assert_eq!(decrypted(&KEY, &payload, pieces), Ok([[0x11; 4096], [0x22; 4096]]));
        // the same again, and under another id nothing of it
        assert_eq!(encrypted(&KEY, [1; 32]), (payload, pieces));
        let (other, others) = encrypted(&KEY, [2; 32]);
        assert!(other.id != payload.id && others[0] != pieces[0] && other.check != payload.check);
    }

    #[test]
    fn every_change_is_found() {
        let (payload, pieces) = encrypted(&KEY, [1; 32]);
        let mut wrong = KEY;
        wrong[31] ^= 1;
        assert_eq!(decrypted(&wrong, &payload, pieces), Err("check"));
        for byte in 0..size_of::<Payload>() {
            let mut changed = payload;
            changed.as_mut_bytes()[byte] ^= 1;
            assert_eq!(decrypted(&KEY, &changed, pieces), Err("check"), "byte {byte}");
        }
        for (n, byte) in [(0, 0), (0, 4095), (1, 17)] {
            let mut changed = pieces;
            changed[n][byte] ^= 1;
            assert_eq!(decrypted(&KEY, &payload, changed), Err("piece"));
        }
        let [one, other] = pieces;
        assert_eq!(decrypted(&KEY, &payload, [other, one]), Err("piece"));
    }

    #[test]
    fn pieces_of_two_builds_do_not_mix() {
        let (payload, [one, _]) = encrypted(&KEY, [1; 32]);
        let (other_payload, [_, other]) = encrypted(&KEY, [2; 32]);
        assert_eq!(decrypted(&KEY, &payload, [one, other]), Err("piece"));
        // nor with the tags of both, whoever computes no check
        let mut mixed = payload;
        mixed.pieces[1] = other_payload.pieces[1];
        assert_eq!(decrypted(&KEY, &mixed, [one, other]), Err("check"));
        let cipher = Cipher::new(&KEY, &mixed.id);
        assert_eq!(cipher.decrypt(&mixed, 1, &mut other.clone()), Err(Unauthentic));
        // one piece less
        let mut cut = payload;
        (cut.count, cut.pieces[1]) = (1, Piece::default());
        assert_eq!(cipher.verify(&cut), Err(Unauthentic));
        assert_eq!(cipher.decrypt(&cut, 0, &mut one.clone()), Err(Unauthentic));
    }

    /// By OpenSSL: `openssl kdf -keylen 32 -kdfopt mac:CMAC -kdfopt cipher:AES-256-CBC -kdfopt
    /// hexkey:0707… -kdfopt salt:'Kluis encrypted enclave' -kdfopt hexinfo:0101… KBKDF`.
    #[test]
    fn the_derivation_is_that_of_sp_800_108() {
        let expected: [u128; 2] =
            [0x7ead_0029_8abb_8c40_b652_aa29_b1b0_6cfb, 0x25f8_c91a_6c21_9611_7120_8876_47aa_67b0];
        assert_eq!(*derive(&KEY, &[1; 16]), *expected.map(u128::to_be_bytes).as_flattened());
    }
}
