//! The key, sealed for this very enclave (MRENCLAVE) on this processor: what the host keeps
//! for the next start. MRENCLAVE covers loader and ciphertext, so that nothing else opens it.

use aes_gcm::{AeadInPlace, Nonce, Tag};
use enclave_abi::encrypted::{KEY_SIZE, SEALED_SIZE, TAG_SIZE};
use enclave_base::random;
use enclave_base::sealing::{Header, MAGIC, NONCE};
use sgx_abi::KeyPolicy;
use zerocopy::{FromBytes, IntoBytes};
use zeroize::Zeroizing;

const HEADER: usize = size_of::<Header>();

const _: () = assert!(HEADER + KEY_SIZE + TAG_SIZE == SEALED_SIZE);

/// Header and id: what is authenticated with the key.
fn additional(header: &Header, id: &[u8; 16]) -> [u8; HEADER + 16] {
    let mut bytes = [0; HEADER + 16];
    bytes[..HEADER].copy_from_slice(header.as_bytes());
    bytes[HEADER..].copy_from_slice(id);
    bytes
}

/// Seals the key of the build with this id.
///
/// # Panics
/// If the processor's generator of random numbers fails.
pub(crate) fn seal(key: &[u8; KEY_SIZE], id: &[u8; 16]) -> [u8; SEALED_SIZE] {
    let mut keyid = [0; 32];
    for word in keyid.chunks_mut(8) {
        word.copy_from_slice(&random::word().expect("RDRAND gives numbers").to_le_bytes());
    }
    let header = Header::new(KeyPolicy::MRENCLAVE, keyid);
    let cipher = header.cipher().expect("the enclave's own versions are not beyond it");
    let mut sealed = [0; SEALED_SIZE];
    let (head, rest) = sealed.split_at_mut(HEADER);
    let (body, tag) = rest.split_at_mut(KEY_SIZE);
    head.copy_from_slice(header.as_bytes());
    body.copy_from_slice(key);
    let made = cipher.encrypt_in_place_detached(&Nonce::from(NONCE), &additional(&header, id), body);
    tag.copy_from_slice(&made.expect("32 bytes are not too long"));
    sealed
}

/// Opens what [`seal`] has made; `None` if it was not this enclave on this processor, or was
/// changed.
pub(crate) fn open(sealed: &[u8; SEALED_SIZE], id: &[u8; 16]) -> Option<Zeroizing<[u8; KEY_SIZE]>> {
    let (header, rest) = Header::read_from_prefix(sealed).ok()?;
    let (body, tag) = rest.split_first_chunk::<KEY_SIZE>()?;
    let own = header.keypolicy == KeyPolicy::MRENCLAVE.bits();
    if header.magic != MAGIC || header.reserved != [0; 4] || !own {
        return None;
    }
    let cipher = header.cipher().ok()?;
    let mut key = Zeroizing::new(*body);
    let opened = cipher.decrypt_in_place_detached(
        &Nonce::from(NONCE),
        &additional(&header, id),
        &mut *key,
        Tag::from_slice(tag),
    );
    opened.ok().map(|()| key)
}
