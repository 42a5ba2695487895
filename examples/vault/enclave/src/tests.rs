//! Tests that run inside: `kluis enclave test`.
#![cfg(enclave_test)]

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};

use enclave::enclave_test;
use enclave::random::Rng;
use enclave_channel::{KeyPair, PublicKey};
use vault_interface::{Closed, Content, Envelope, Grant, Refusal, Request, Vault};

use crate::state::State;
use crate::{CHALLENGES, Safe};

fn key() -> KeyPair {
    KeyPair::generate(&mut Rng)
}

fn put(name: &str, grants: Vec<Grant>) -> Request {
    Request::Put { name: name.into(), secret: format!("secret of {name}").into_bytes(), grants }
}

fn get(name: &str) -> Request {
    Request::Get { name: name.into() }
}

fn grant(reader: &KeyPair, reads: Option<u32>, until: Option<u64>) -> Grant {
    Grant { reader: reader.public().clone(), reads, until }
}

fn secret(name: &str) -> Result<Content, Refusal> {
    Ok(Content::Secret(format!("secret of {name}").into_bytes()))
}

#[enclave_test]
fn the_rules() {
    let (owner, ada, bob) = (key(), key(), key());
    let mut state = State::new(&key(), owner.public().clone());
    let mut ask = |from: &KeyPair, request, now| {
        let before = state.changes;
        let answer = state.answer(from.public(), request, now);
        (answer, state.changes - before)
    };
    let (twice, timed) = (grant(&ada, Some(2), None), grant(&bob, None, Some(100)));
    assert_eq!(ask(&ada, put("x", vec![]), 0), (Err(Refusal::NotOwner), 0));
    assert_eq!(ask(&owner, put("x", vec![twice, timed]), 50), (Ok(Content::Done), 1));
    // who
    assert_eq!(ask(&owner, get("x"), 50), (Err(Refusal::NoSecret), 0), "the owner is no reader");
    assert_eq!(ask(&key(), get("x"), 50), (Err(Refusal::NoSecret), 0));
    assert_eq!(ask(&ada, get("y"), 50), (Err(Refusal::NoSecret), 0));
    // how often
    assert_eq!(ask(&ada, get("x"), 50), (secret("x"), 1));
    let left = vec![grant(&ada, Some(1), None), grant(&bob, None, Some(100))];
    assert_eq!(ask(&owner, Request::List, 50), (Ok(Content::List(vec![("x".to_string(), left)])), 0));
    assert_eq!(ask(&ada, get("x"), 50), (secret("x"), 1));
    assert_eq!(ask(&ada, get("x"), 50), (Err(Refusal::Exhausted), 0));
    // until when, by a clock that goes on only
    assert_eq!(ask(&bob, get("x"), 100), (secret("x"), 0));
    assert_eq!(ask(&bob, get("x"), 101), (Err(Refusal::Expired), 0));
    assert_eq!(ask(&bob, get("x"), 50), (Err(Refusal::Expired), 0));
    // other rules, and none
    assert_eq!(ask(&owner, put("x", vec![grant(&bob, None, None)]), 0), (Ok(Content::Done), 1));
    assert_eq!(ask(&bob, get("x"), 0), (secret("x"), 0));
    assert_eq!(ask(&ada, get("x"), 0), (Err(Refusal::NoSecret), 0));
    assert_eq!(ask(&bob, Request::Remove { name: "x".into() }, 0), (Err(Refusal::NotOwner), 0));
    assert_eq!(ask(&owner, Request::Remove { name: "x".into() }, 0), (Ok(Content::Done), 1));
    assert_eq!(ask(&bob, get("x"), 0), (Err(Refusal::NoSecret), 0));
    // bounds
    let long = |length| Request::Put { name: "long".into(), secret: vec![1; length], grants: vec![] };
    assert_eq!(ask(&owner, long(2048), 0).0, Ok(Content::Done));
    assert_eq!(ask(&owner, long(2049), 0).0, Err(Refusal::Large));
    assert_eq!(ask(&owner, put("", vec![]), 0).0, Err(Refusal::Large));
    assert_eq!(ask(&owner, put(&"x".repeat(101), vec![]), 0).0, Err(Refusal::Large));
    assert_eq!(ask(&owner, put("x", vec![grant(&ada, None, None); 17]), 0).0, Err(Refusal::Large));
    for n in 1..200 {
        assert_eq!(ask(&owner, put(&n.to_string(), vec![]), 0).0, Ok(Content::Done));
    }
    assert_eq!(ask(&owner, put("200", vec![]), 0).0, Err(Refusal::Full));
    assert_eq!(ask(&owner, put("199", vec![]), 0).0, Ok(Content::Done));
}

/// Asks a vault that is open.
fn ask(safe: &Safe, vault: &PublicKey, from: &KeyPair, request: Request) -> (Result<Content, Refusal>, u64) {
    let challenge = safe.challenge();
    let envelope = Envelope { own: from, other: vault, challenge: &challenge };
    let sealed = envelope.ask(&request, &mut Rng);
    let answer = safe.answer(from.public().clone(), challenge, sealed.clone()).unwrap();
    let response = envelope.told(&answer.response).unwrap();
    assert_eq!(safe.answer(from.public().clone(), challenge, sealed), Err(Closed::Challenge), "again");
    (response.content, response.changes)
}

#[enclave_test]
fn only_for_the_one_who_asks() {
    let (owner, ada) = (key(), key());
    let safe = Safe::new();
    let none = safe.answer(ada.public().clone(), [0; 32], sealed(&ada, owner.public(), &[0; 32]));
    assert_eq!(none, Err(Closed::None));
    let vault = safe.open(&safe.create(owner.public().clone()).unwrap()).unwrap();
    assert_eq!(ask(&safe, &vault, &owner, put("x", vec![grant(&ada, None, None)])), (Ok(Content::Done), 1));
    assert_eq!(ask(&safe, &vault, &ada, get("x")), (secret("x"), 1));

    // a challenge that was not given, another's, and another's request
    let forged = |from: &KeyPair, challenge, request| {
        safe.answer(from.public().clone(), challenge, request).unwrap_err()
    };
    assert_eq!(forged(&ada, [0; 32], sealed(&ada, &vault, &[0; 32])), Closed::Challenge);
    let (one, other) = (safe.challenge(), safe.challenge());
    assert_eq!(forged(&ada, one, sealed(&ada, &vault, &other)), Closed::Request);
    assert_eq!(forged(&owner, other, sealed(&ada, &vault, &other)), Closed::Request);
    let one = safe.challenge();
    assert_eq!(forged(&ada, one, sealed(&ada, owner.public(), &one)), Closed::Request, "for another vault");
    // the oldest challenges make room
    let first = safe.challenge();
    (0..CHALLENGES).for_each(|_| drop(safe.challenge()));
    assert_eq!(forged(&ada, first, sealed(&ada, &vault, &first)), Closed::Challenge);
}

fn sealed(from: &KeyPair, to: &PublicKey, challenge: &[u8; 32]) -> enclave_channel::Sealed {
    Envelope { own: from, other: to, challenge }.ask(&get("x"), &mut Rng)
}

#[enclave_test]
fn state_outlasts_the_enclave_and_tells_its_age() {
    let (owner, ada) = (key(), key());
    let safe = Safe::new();
    let made = safe.create(owner.public().clone()).unwrap();
    let vault = safe.open(&made).unwrap();
    let request = put("x", vec![grant(&ada, Some(2), None)]);
    let challenge = safe.challenge();
    let envelope = Envelope { own: &owner, other: &vault, challenge: &challenge };
    let answer = safe.answer(owner.public().clone(), challenge, envelope.ask(&request, &mut Rng)).unwrap();
    let state = answer.state.unwrap();
    assert!(!state.windows(9).any(|window| window == b"secret of"));

    let other = Safe::new();
    assert_eq!(other.open(&state), Ok(vault.clone()));
    assert_eq!(ask(&other, &vault, &ada, get("x")), (secret("x"), 2));
    assert_eq!(ask(&other, &vault, &ada, get("x")), (secret("x"), 3));
    assert_eq!(ask(&other, &vault, &ada, get("x")), (Err(Refusal::Exhausted), 3));
    // set back, it reads again; the number of changes tells
    other.open(&state).unwrap();
    assert_eq!(ask(&other, &vault, &ada, get("x")), (secret("x"), 2));

    let mut changed = state.clone();
    changed[100] ^= 1;
    assert_eq!(other.open(&changed), Err(Closed::State));
    assert_eq!(other.open(b""), Err(Closed::State));
    let names: Vec<String> = match ask(&other, &vault, &owner, Request::List).0 {
        Ok(Content::List(list)) => list.into_iter().map(|(name, _)| name).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names, ["x"], "and what is open stays");
}
