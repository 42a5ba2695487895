//! Tests that run inside: `kluis enclave test`.
#![cfg(enclave_test)]

use alloc::string::ToString;

use clinic_interface::{Clinic, Refusal};
use clinic_records::{DataKey, HEADER};
use enclave::enclave_test;
use enclave::sync::Mutex;

use crate::{Desk, Office};

fn office(key: Option<&DataKey>) -> Office {
    Office(Mutex::new(Some(Desk { key: key.cloned(), ..Desk::default() })))
}

fn key(byte: u8) -> DataKey {
    DataKey::new(&[byte; 32]).unwrap()
}

#[enclave_test]
fn records_are_counted_once_in_their_order_and_as_a_whole() {
    let key = key(1);
    let office = office(Some(&key));
    let chunk =
        |number, last, line: &str| key.encrypt_chunk(number, last, line.repeat(20).as_bytes()).unwrap();
    let first = chunk(0, false, "p,North,50,140,80\n");
    let second = chunk(1, true, "p,South,70,120,80\n");
    assert_eq!(office.records(1, true, &second), Err(Refusal::Expected(0)));
    for _ in 0..2 {
        office.records(0, false, &first).unwrap();
        assert_eq!(office.results(), Err(Refusal::Incomplete));
        assert_eq!(office.records(1, false, &second), Err(Refusal::Forged), "cut");
        office.records(1, true, &second).unwrap();
        assert_eq!(office.records(2, true, &second), Err(Refusal::Expected(0)));
        let table = key.decrypt_table(&office.results().unwrap()).unwrap();
        assert_eq!(
            table,
            alloc::format!("{HEADER}\nNorth,40-64,20,140.0,20\nSouth,65-,20,120.0,0\n").as_bytes()
        );
    }
    let bad = chunk(0, true, "p,North,50\n");
    let why = clinic_records::BadRecord::Fields.to_string();
    assert_eq!(office.records(0, true, &bad), Err(Refusal::Record { line: 1, why }));
    assert_eq!(office.results(), Err(Refusal::Incomplete));
}

#[enclave_test]
fn a_sealed_key_is_taken_again_and_a_changed_one_is_not() {
    let (first, second) = (office(Some(&key(2))), office(None));
    assert_eq!(second.seal(), Err(Refusal::NoKey));
    assert_eq!(second.records(0, true, b""), Err(Refusal::NoKey));
    assert_eq!(second.results(), Err(Refusal::NoKey));
    let sealed = first.seal().unwrap();
    assert!(!sealed.windows(8).any(|bytes| bytes == [2; 8]));
    second.unseal(&sealed).unwrap();
    second.records(0, true, &key(2).encrypt_chunk(0, true, b"").unwrap()).unwrap();
    let mut changed = sealed;
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(second.unseal(&changed), Err(Refusal::Sealed));
    assert_eq!(second.unseal(b""), Err(Refusal::Sealed));
}

#[enclave_test]
fn nothing_of_tls_comes_before_its_time() {
    let office = office(None);
    assert_eq!(office.certify(&[0; 5000]), Err(Refusal::Order));
    assert_eq!(office.accept(), Err(Refusal::Order));
    assert_eq!(office.exchange(b""), Err(Refusal::Order));
    assert_eq!(office.report(&[0; 511]), Err(Refusal::Target));
    assert_eq!(office.report(&[0; 512]).unwrap().len(), 432);
    assert!(matches!(office.certify(&[0; 5000]), Err(Refusal::Failed(_))), "another's quote");
}
