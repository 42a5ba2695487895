//! ECDHE over P-256 (*RFC 8446 §7.4.2*).

use alloc::boxed::Box;

use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::{EncodedPoint, PublicKey, SecretKey, ecdh};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

use super::random;

/// The group.
#[derive(Debug)]
pub(super) struct Secp256r1;

impl SupportedKxGroup for Secp256r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = random::secret_key()?;
        let public = secret.public_key().to_encoded_point(false);
        Ok(Box::new(Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

/// An exchange; its secret is wiped when it is dropped.
struct Exchange {
    secret: SecretKey,
    public: EncodedPoint,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // uncompressed alone, and a point of the curve: §4.2.8.2
        let point = (peer.first() == Some(&4)).then(|| PublicKey::from_sec1_bytes(peer).ok()).flatten();
        let point = point.ok_or(PeerMisbehaved::InvalidKeyShare)?;
        let shared = ecdh::diffie_hellman(self.secret.to_nonzero_scalar(), point.as_affine());
        Ok(SharedSecret::from(&shared.raw_secret_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_what_is_no_point_is_refused() {
        let start = || Secp256r1.start().unwrap();
        let (ours, theirs) = (start(), start());
        let (our_public, their_public) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        assert_ne!(our_public, their_public);
        let agreed = ours.complete(&their_public).unwrap();
        assert_eq!(agreed.secret_bytes(), theirs.complete(&our_public).unwrap().secret_bytes());
        assert_eq!(agreed.secret_bytes().len(), 32);

        let mut beside = their_public.clone();
        beside[64] ^= 1;
        let compressed = [&[2 + (their_public[64] & 1)], &their_public[1..33]].concat();
        for wrong in [&beside[..], &compressed, &their_public[..64], &[0], &[]] {
            assert!(start().complete(wrong).is_err(), "{wrong:?}");
        }
    }
}
