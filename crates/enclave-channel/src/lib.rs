//! Encryption between an enclave and those who trust it, past the host between them: HPKE in
//! its authenticated mode (*RFC 9180*, §5.1.3; DHKEM(P-256), HKDF-SHA256, AES-256-GCM).
//!
//! Only who holds the sender's key can have made a message, only who holds the receiver's
//! can read it, and each [`Sender`] has a key of its own, made for it. Its messages are
//! numbered: none can be left out before another, repeated or moved unnoticed, and the last
//! says that it is the last.
//!
//! ```
//! use enclave_channel::{KeyPair, Receiver, Sender};
//! # use rand_core::OsRng;
//!
//! # (|| {
//! let (party, enclave) = (KeyPair::generate(&mut OsRng), KeyPair::generate(&mut OsRng));
//! let (head, mut sender) = Sender::new(&party, enclave.public(), b"records of May", &mut OsRng);
//! let messages = [sender.seal(b"one", false), sender.seal(b"two", true)];
//!
//! let mut receiver = Receiver::new(&enclave, party.public(), &head, b"records of May")?;
//! assert_eq!(receiver.open(&messages[0], false)?, b"one");
//! assert_eq!(receiver.open(&messages[1], true)?, b"two");
//! # Some(())
//! # })().unwrap();
//! ```
//!
//! **What it does not do.** A receiver cannot tell a whole series of messages from its
//! repetition: what must be fresh goes into the purpose, e.g. a number that the receiver has
//! just made. Who has got hold of a receiver's key reads what was sent to it before, and can
//! send to it in anybody's name. And a public key says nothing of who holds the other half:
//! that it is an enclave, and which, is for [`Evidence`] to say, of the key's [`Binding`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod evidence;
mod key;

use alloc::vec::Vec;
use core::fmt;

use hpke::aead::{AeadCtxR, AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::DhP256HkdfSha256;
use hpke::rand_core::{CryptoRng, RngCore};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use serde::{Deserialize, Serialize};

pub use evidence::{Another, Binding, Evidence, Told};
pub use key::{BadKey, KeyPair, PRIVATE, PUBLIC, PublicKey};

type P256 = DhP256HkdfSha256;

/// Where random numbers come from: in an enclave `enclave::random::Rng`, elsewhere
/// `rand_core::OsRng` (0.6).
pub trait Random: CryptoRng + RngCore {}

impl<T: CryptoRng + RngCore> Random for T {}

/// Encrypts messages, in their order.
pub struct Sender(AeadCtxS<AesGcm256, HkdfSha256, P256>);

impl Sender {
    /// Begins to send for a purpose, which the receiver must have in mind as well. What the
    /// receiver needs first, the encapsulated key, is the other result.
    pub fn new(from: &KeyPair, to: &PublicKey, purpose: &[u8], random: &mut impl Random) -> (Vec<u8>, Self) {
        let mode = OpModeS::Auth((from.private.clone(), from.public.point()));
        let (head, context) = setup_sender::<_, _, P256, _>(&mode, &to.point(), purpose, random)
            .expect("the product of a point of the curve and a number below its order is a point");
        (head.to_bytes().to_vec(), Self(context))
    }

    /// The next message; `last` tells the receiver that there are no more.
    ///
    /// # Panics
    /// After 2^64 messages, or for one of 64 GiB.
    pub fn seal(&mut self, message: &[u8], last: bool) -> Vec<u8> {
        self.0.seal(message, &[last.into()]).expect("a message that is numbered, and short enough")
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

/// Decrypts messages, in the order in which they were encrypted.
pub struct Receiver(AeadCtxR<AesGcm256, HkdfSha256, P256>);

impl Receiver {
    /// Begins with the encapsulated key; `None` if it is none. Who has made it is known when
    /// the first message opens.
    pub fn new(to: &KeyPair, from: &PublicKey, head: &[u8], purpose: &[u8]) -> Option<Self> {
        let head = <P256 as Kem>::EncappedKey::from_bytes(head).ok()?;
        let mode = OpModeR::Auth(from.point());
        setup_receiver(&mode, &to.private, &head, purpose).ok().map(Self)
    }

    /// The next message; `None` if this is not it, and then nothing has happened.
    pub fn open(&mut self, message: &[u8], last: bool) -> Option<Vec<u8>> {
        self.0.open(message, &[last.into()]).ok()
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

/// A single message, with all that is needed to open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    #[serde(with = "serde_bytes")]
    head: Vec<u8>,
    #[serde(with = "serde_bytes")]
    message: Vec<u8>,
}

impl Sealed {
    /// Seals one.
    pub fn new(
        from: &KeyPair,
        to: &PublicKey,
        purpose: &[u8],
        message: &[u8],
        random: &mut impl Random,
    ) -> Self {
        let (head, mut sender) = Sender::new(from, to, purpose, random);
        Self { head, message: sender.seal(message, true) }
    }

    /// Opens it; `None` if it is not from there, for this receiver and this purpose.
    pub fn open(&self, to: &KeyPair, from: &PublicKey, purpose: &[u8]) -> Option<Vec<u8>> {
        Receiver::new(to, from, &self.head, purpose)?.open(&self.message, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use rand_core::OsRng;

    #[test]
    fn messages_open_in_their_order_for_whom_they_are_and_from_whom_they_are() {
        let [party, enclave, other] = core::array::from_fn(|_| KeyPair::generate(&mut OsRng));
        let (head, mut sender) = Sender::new(&party, enclave.public(), b"purpose", &mut OsRng);
        let messages =
            [(&b"one"[..], false), (b"two", false), (b"", true)].map(|(m, last)| sender.seal(m, last));
        let receiver =
            |to: &KeyPair, from: &KeyPair, purpose| Receiver::new(to, from.public(), &head, purpose).unwrap();

        let mut good = receiver(&enclave, &party, b"purpose");
        assert_eq!(good.open(&messages[1], false), None, "one left out");
        assert_eq!(good.open(&messages[0], true), None, "made the last");
        assert_eq!(good.open(&messages[0][1..], false), None, "cut");
        assert_eq!(good.open(&[], false), None);
        assert_eq!(good.open(&messages[0], false), Some(b"one".to_vec()), "after all that");
        assert_eq!(good.open(&messages[0], false), None, "repeated");
        assert_eq!(good.open(&messages[1], false), Some(b"two".to_vec()));
        assert_eq!(good.open(&messages[2], false), None, "not told that it is the last");
        assert_eq!(good.open(&messages[2], true), Some(vec![]));

        for mut bad in [
            receiver(&other, &party, b"purpose"),
            receiver(&enclave, &other, b"purpose"),
            receiver(&enclave, &party, b"another"),
        ] {
            assert_eq!(bad.open(&messages[0], false), None);
        }
        assert!(Receiver::new(&enclave, party.public(), &head[1..], b"purpose").is_none());
        assert!(Receiver::new(&enclave, party.public(), &[4; PUBLIC], b"purpose").is_none());

        // the same twice is not the same to see
        let seal = || Sealed::new(&party, enclave.public(), b"purpose", b"message", &mut OsRng);
        assert_ne!(seal(), seal());
        assert_eq!(seal().open(&enclave, party.public(), b"purpose"), Some(b"message".to_vec()));
        assert_eq!(seal().open(&enclave, other.public(), b"purpose"), None);
    }

    #[test]
    fn keys_and_sealed_messages_travel() {
        let pair = KeyPair::generate(&mut OsRng);
        let encoded = postcard::to_allocvec(pair.public()).unwrap();
        assert_eq!(encoded.len(), 1 + PUBLIC);
        assert_eq!(postcard::from_bytes(&encoded).as_ref(), Ok(pair.public()));
        let mut wrong = encoded.clone();
        wrong[PUBLIC] ^= 1;
        assert!(postcard::from_bytes::<PublicKey>(&wrong).is_err());
        assert!(postcard::from_bytes::<PublicKey>(&[1, 4]).is_err());
        let sealed = Sealed::new(&pair, pair.public(), b"", b"to myself", &mut OsRng);
        let encoded = postcard::to_allocvec(&sealed).unwrap();
        assert_eq!(postcard::from_bytes(&encoded), Ok(sealed));
    }
}
