//! Run inside, by `kluis enclave test`.

use enclave::enclave_test;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{DerSignature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use signer_interface::{Payment, Policy, Refusal, Signer};

use crate::KEYS;

const POLICY: Policy = Policy { each: 500, total: 1200 };

fn pay(cents: u64, payee: &str) -> Payment {
    Payment { payee: payee.into(), cents }
}

#[enclave_test]
fn signs_within_its_policy() {
    let key = KEYS.create(POLICY);
    let public = VerifyingKey::from_public_key_der(&key.public).unwrap();
    let verifies = |order: &str, signature: &[u8]| {
        public.verify(order.as_bytes(), &DerSignature::try_from(signature).unwrap()).is_ok()
    };
    let first = KEYS.sign(&key.sealed, pay(500, "Ada")).unwrap();
    assert_eq!(first.order, "order 1: pay 500 cents to Ada, 500 in all\n");
    assert!(verifies(&first.order, &first.signature));
    assert!(!verifies("order 1: pay 501 cents to Ada, 501 in all\n", &first.signature));
    assert_eq!(KEYS.sign(&first.sealed, pay(501, "Ada")), Err(Refusal::Each(500)));
    let second = KEYS.sign(&first.sealed, pay(400, "Bob-2 Ltd")).unwrap();
    assert_eq!(second.order, "order 2: pay 400 cents to Bob-2 Ltd, 900 in all\n");
    assert!(verifies(&second.order, &second.signature));
    assert_eq!(KEYS.sign(&second.sealed, pay(301, "Ada")), Err(Refusal::Total(300)));
    KEYS.sign(&second.sealed, pay(300, "Ada")).unwrap();
}

#[enclave_test]
fn an_older_state_shows_in_the_order() {
    // the enclave cannot see it; who gets the orders does: there is a second order 1
    let key = KEYS.create(POLICY);
    KEYS.sign(&key.sealed, pay(1, "Ada")).unwrap();
    let again = KEYS.sign(&key.sealed, pay(2, "Eve")).unwrap();
    assert!(again.order.starts_with("order 1: "));
}

#[enclave_test]
fn a_changed_key_is_none() {
    let key = KEYS.create(POLICY);
    for at in 0..key.sealed.len() {
        let mut sealed = key.sealed.clone();
        sealed[at] ^= 0x80;
        let refused = KEYS.sign(&sealed, pay(1, "Ada")).unwrap_err();
        assert!(matches!(refused, Refusal::Key | Refusal::Downgrade), "{at}");
        KEYS.sign(&key.sealed[..at], pay(1, "Ada")).unwrap_err();
    }
    let other = enclave::sealing::seal(enclave::sealing::Policy::Signer, &[7; 64], b"other").unwrap();
    assert_eq!(KEYS.sign(&other, pay(1, "Ada")), Err(Refusal::Key));
}

#[enclave_test]
fn payees_are_names() {
    let key = KEYS.create(POLICY);
    for payee in ["", "Ada\norder 2: pay 1 cents to Eve", "Ada, 0 in all", "a/b", &"x".repeat(65)] {
        assert_eq!(KEYS.sign(&key.sealed, pay(1, payee)), Err(Refusal::Payee), "{payee}");
    }
}
