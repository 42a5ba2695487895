//! The enclave: it makes keys, seals each together with its policy and its count, and
//! signs nothing beyond them. It keeps nothing between two calls.
#![no_std]
#![no_main]

extern crate alloc;

mod state;

use alloc::format;
use enclave::random::Rng;
use p256::PublicKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use signer_interface::{NewKey, Payment, Policy, Refusal, Signed, Signer};
use state::State;

struct Keys;

static KEYS: Keys = Keys;
enclave::serve!(Signer, KEYS);

impl Signer for Keys {
    fn create(&self, policy: Policy) -> NewKey {
        let key = SigningKey::random(&mut Rng);
        let public =
            PublicKey::from(key.verifying_key()).to_public_key_der().expect("a key on the curve has a form");
        let state = State { policy, orders: 0, spent: 0, key };
        NewKey { sealed: state.seal(), public: public.into_vec() }
    }

    fn sign(&self, sealed: &[u8], payment: Payment) -> Result<Signed, Refusal> {
        let state = State::unseal(sealed)?;
        let Policy { each, total } = state.policy;
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b' ' || b == b'-';
        if !(1..=64).contains(&payment.payee.len()) || !payment.payee.bytes().all(letter) {
            return Err(Refusal::Payee);
        }
        if payment.cents > each {
            return Err(Refusal::Each(each));
        }
        let left = total.saturating_sub(state.spent);
        if payment.cents > left {
            return Err(Refusal::Total(left));
        }
        let next = State { orders: state.orders + 1, spent: state.spent + payment.cents, ..state };
        // made here of checked parts: a line in which nothing is mistaken for something else
        let Payment { payee, cents } = payment;
        let order = format!("order {}: pay {cents} cents to {payee}, {} in all\n", next.orders, next.spent);
        let signature: DerSignature = next.key.sign(order.as_bytes());
        Ok(Signed { signature: signature.as_bytes().to_vec(), sealed: next.seal(), order })
    }
}

#[cfg(enclave_test)]
mod tests;
