//! Keys of P-256, as they are made, kept and shown.

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use hpke::{Deserializable, Kem, Serializable};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{P256, Random};

/// Bytes of a public key: a point, uncompressed (*SEC 1*, §2.3.3).
pub const PUBLIC: usize = 65;
/// Bytes of a private key (*SEC 1*, §2.3.7).
pub const PRIVATE: usize = 32;

/// The half of a key that others have. As text, it is hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "serde_bytes::ByteBuf", into = "serde_bytes::ByteBuf")]
pub struct PublicKey([u8; PUBLIC]);

/// What was given is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey;

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no key of P-256")
    }
}

impl core::error::Error for BadKey {}

impl PublicKey {
    /// The key of these [`PUBLIC`] bytes.
    ///
    /// # Errors
    /// They are no point of the curve.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadKey> {
        <P256 as Kem>::PublicKey::from_bytes(bytes).map_err(|_| BadKey)?;
        bytes.try_into().map(Self).map_err(|_| BadKey)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; PUBLIC] {
        &self.0
    }

    pub(crate) fn point(&self) -> <P256 as Kem>::PublicKey {
        <P256 as Kem>::PublicKey::from_bytes(&self.0).expect("checked when it was made")
    }
}

impl TryFrom<serde_bytes::ByteBuf> for PublicKey {
    type Error = BadKey;

    fn try_from(bytes: serde_bytes::ByteBuf) -> Result<Self, BadKey> {
        Self::from_bytes(&bytes)
    }
}

impl From<PublicKey> for serde_bytes::ByteBuf {
    fn from(key: PublicKey) -> Self {
        key.0.to_vec().into()
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        if text.len() != 2 * PUBLIC || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadKey);
        }
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| BadKey);
        Self::from_bytes(&(0..text.len()).step_by(2).map(byte).collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Both halves of a key. The private one is wiped when this is dropped.
#[derive(Clone)]
pub struct KeyPair {
    pub(crate) private: <P256 as Kem>::PrivateKey,
    pub(crate) public: PublicKey,
}

impl KeyPair {
    /// A new one.
    pub fn generate(random: &mut impl Random) -> Self {
        let (private, _) = P256::gen_keypair(random);
        Self::of(private)
    }

    /// That of these [`PRIVATE`] bytes.
    ///
    /// # Errors
    /// They are no number that is a key.
    pub fn from_private(bytes: &[u8]) -> Result<Self, BadKey> {
        <P256 as Kem>::PrivateKey::from_bytes(bytes).map(Self::of).map_err(|_| BadKey)
    }

    fn of(private: <P256 as Kem>::PrivateKey) -> Self {
        let public = P256::sk_to_pk(&private).to_bytes();
        Self { private, public: PublicKey(core::array::from_fn(|n| public[n])) }
    }

    /// The half for others.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The half that is kept.
    pub fn private(&self) -> Zeroizing<[u8; PRIVATE]> {
        Zeroizing::new(self.private.to_bytes().into())
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use rand_core::OsRng;

    #[test]
    fn keys_are_points_and_numbers() {
        let pair = KeyPair::generate(&mut OsRng);
        let again = KeyPair::from_private(&*pair.private()).unwrap();
        assert_eq!(again.public(), pair.public());
        let text = pair.public().to_string();
        assert_eq!(text.parse().as_ref(), Ok(pair.public()));
        for wrong in [&text[1..], &text.replace('4', "g"), "", &"é".repeat(PUBLIC)] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(BadKey), "{wrong}");
        }
        let mut bytes = *pair.public().bytes();
        assert!(PublicKey::from_bytes(&bytes).is_ok());
        bytes[64] ^= 1;
        assert_eq!(PublicKey::from_bytes(&bytes), Err(BadKey), "beside the curve");
        assert_eq!(PublicKey::from_bytes(&[0]), Err(BadKey), "the point at infinity");
        assert_eq!(PublicKey::from_bytes(&bytes[..64]), Err(BadKey));
        assert!(KeyPair::from_private(&[0; 32]).is_err());
        assert!(KeyPair::from_private(&[255; 32]).is_err(), "beyond the order");
        assert!(KeyPair::from_private(&[1; 31]).is_err());
    }
}
