//! The attestation key, and what it is kept in.

use aes::Aes128;
use alloc::vec::Vec;
use architectural_interface::Refusal;
use cmac::{Cmac, Mac};
use enclave::key::egetkey;
use enclave::random::Rng;
use enclave::sealing::{self, Policy, SealError};
use p256::ecdsa::SigningKey;
use sgx_abi::{AttributeFlags, Attributes, KeyName, KeyPolicy, Keyrequest};
use zeroize::Zeroizing;

/// What is sealed.
const WHAT: &[u8] = b"kluis attestation key";
/// What the platform's id is made of a seal key with.
const LABEL_ID: &[u8; 16] = b"kluis qe id\0\0\0\0\0";

/// A new attestation key, sealed for this very enclave: another version makes another key.
pub fn create() -> Vec<u8> {
    let scalar = Zeroizing::new(SigningKey::random(&mut Rng).to_bytes());
    sealing::seal(Policy::Enclave, &scalar, WHAT).expect("32 bytes are not too many")
}

/// The key that was sealed, if that was at today's security versions: a key of before may
/// have become known by the weakness that the update has mended.
pub fn unseal(sealed: &[u8]) -> Result<SigningKey, Refusal> {
    let unsealed = sealing::unseal(Policy::Enclave, sealed, WHAT).map_err(|error| match error {
        SealError::Downgrade => Refusal::Later,
        _ => Refusal::Key,
    })?;
    let scalar = Zeroizing::new(unsealed.data);
    if !unsealed.current {
        return Err(Refusal::Outdated);
    }
    SigningKey::from_slice(&scalar).map_err(|_| Refusal::Key)
}

/// x and y of its public half.
pub fn public(key: &SigningKey) -> [u8; 64] {
    let point = key.verifying_key().to_encoded_point(false);
    core::array::from_fn(|n| point.as_bytes()[1 + n])
}

/// The platform to its quoting enclaves (QE_ID): of a seal key of the signer's that no
/// update changes, as it asks for the versions before all others.
pub fn platform_id() -> [u8; 16] {
    let request = Keyrequest {
        keyname: KeyName::Seal as u16,
        keypolicy: KeyPolicy::MRSIGNER,
        attributemask: Attributes { flags: AttributeFlags::INIT | AttributeFlags::DEBUG, xfrm: 0 },
        ..Keyrequest::default()
    };
    let key = egetkey(&request).expect("the versions before all others are nobody's future");
    <Cmac<Aes128> as Mac>::new(key.bytes().into()).chain_update(LABEL_ID).finalize().into_bytes().into()
}
