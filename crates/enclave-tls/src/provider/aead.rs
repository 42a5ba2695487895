//! AES-128-GCM for records (*RFC 8446 §5.2*).

use alloc::boxed::Box;

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{KeyInit, Tag};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion};

/// Bytes of a key, and of the code behind each record.
const KEY: usize = 16;
const TAG: usize = 16;

/// The algorithm.
pub(super) struct Aes128Gcm;

impl Tls13AeadAlgorithm for Aes128Gcm {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Cipher::new(&key, iv))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Cipher::new(&key, iv))
    }

    fn key_len(&self) -> usize {
        KEY
    }

    fn extract_keys(&self, _: AeadKey, _: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        // for TLS in a kernel: keys do not leave an enclave
        Err(UnsupportedOperationError)
    }
}

/// One direction of a connection.
struct Cipher {
    cipher: aes_gcm::Aes128Gcm,
    iv: Iv,
}

impl Cipher {
    fn new(key: &AeadKey, iv: Iv) -> Self {
        let cipher = KeyInit::new_from_slice(key.as_ref()).expect("as long as `key_len` says");
        Self { cipher, iv }
    }
}

impl MessageEncrypter for Cipher {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        seq: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let nonce = Nonce::new(&self.iv, seq).0;
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &make_tls13_aad(length), payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        length + 1 + TAG
    }
}

impl MessageDecrypter for Cipher {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let aad = make_tls13_aad(payload.len());
        let content = payload.len().checked_sub(TAG).ok_or(Error::DecryptError)?;
        let nonce = Nonce::new(&self.iv, seq).0;
        let (text, tag) = payload.split_at_mut(content);
        let tag = Tag::clone_from_slice(tag);
        self.cipher
            .decrypt_in_place_detached(&nonce.into(), &aad, text, &tag)
            .map_err(|_| Error::DecryptError)?;
        payload.truncate(content);
        message.into_tls13_unpadded_message()
    }
}
