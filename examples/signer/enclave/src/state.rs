//! What the host keeps for the enclave: a key with its policy and count, sealed in one
//! piece, so that none can be had with another's.

use alloc::vec::Vec;
use enclave::sealing::{self, SealError};
use p256::ecdsa::SigningKey;
use signer_interface::{Policy, Refusal};
use zeroize::Zeroizing;

/// What is sealed, so that nothing else that is sealed can be taken for it.
const WHAT: &[u8] = b"signer: policy, count and key";
/// Bytes of the private key.
const KEY: usize = 32;
/// Numbers before it: both limits, orders, cents.
const NUMBERS: usize = 4;

/// A key and what it has signed so far.
pub struct State {
    pub policy: Policy,
    /// Orders that were signed.
    pub orders: u64,
    /// Cents of all of them.
    pub spent: u64,
    /// Wiped when it is dropped.
    pub key: SigningKey,
}

impl State {
    /// Seals it for this signer's enclaves of this version or a later one.
    pub fn seal(&self) -> Vec<u8> {
        let mut plain = Zeroizing::new(Vec::with_capacity(NUMBERS * 8 + KEY));
        for number in [self.policy.each, self.policy.total, self.orders, self.spent] {
            plain.extend_from_slice(&number.to_le_bytes());
        }
        plain.extend_from_slice(&Zeroizing::new(self.key.to_bytes())[..]);
        sealing::seal(sealing::Policy::Signer, &plain, WHAT).expect("64 bytes are not too many")
    }

    /// What was sealed.
    pub fn unseal(sealed: &[u8]) -> Result<Self, Refusal> {
        let unsealed = sealing::unseal(sealing::Policy::Signer, sealed, WHAT);
        let plain = Zeroizing::new(
            unsealed
                .map_err(|error| match error {
                    SealError::Downgrade => Refusal::Downgrade,
                    _ => Refusal::Key,
                })?
                .data,
        );
        let (numbers, key) = plain.split_at_checked(NUMBERS * 8).ok_or(Refusal::Key)?;
        let number = |n: usize| u64::from_le_bytes(core::array::from_fn(|i| numbers[n * 8 + i]));
        Ok(Self {
            policy: Policy { each: number(0), total: number(1) },
            orders: number(2),
            spent: number(3),
            key: SigningKey::from_slice(key).map_err(|_| Refusal::Key)?,
        })
    }
}
