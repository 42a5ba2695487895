//! An encrypted enclave before it is unlocked, and while it is.

use std::sync::Arc;

use enclave_abi::call::{Command, Outcome, function};
use enclave_abi::encrypted::{KEY_SIZE, Payload, SEALED_SIZE, Unlock, Unlocked, unlock};
use enclave_host::Files;
use enclave_host::driver::{Driver, has_sgx2};
use zerocopy::{FromBytes, IntoBytes};

use super::{Random, Target, number};
use crate::raw::Entry;
use crate::step;

fn message(kind: u64, restricts: bool, key: &[u8]) -> Unlock {
    let mut told = Unlock { kind, restricts: restricts.into(), key: [0; SEALED_SIZE] };
    told.key[..key.len()].copy_from_slice(key);
    told
}

/// Without the key nothing is answered but that, with it the enclave opens once; on SGX2 not
/// before its pages are restricted, by `payload`, the description in its file. With `lies` the
/// host says that there is no SGX2, to an enclave that knows better (EXINFO).
pub fn locked(
    files: &Files,
    payload: &Payload,
    key: &[u8; KEY_SIZE],
    lies: bool,
    random: &mut Random,
    rounds: u32,
) -> Result<(), String> {
    let driver = Arc::new(Driver::load(files).map_err(|e| e.to_string())?);
    let entry = Entry::new(driver.base() + files.tcs_offsets()[0]);
    let mut target =
        Target { base: driver.base(), _enclave: Box::new(driver.clone()), entry, memory: vec![0; 1 << 13] };
    let says = |target: &mut Target, function: u32, message: &[u8]| {
        let (outcome, message) = target.call(function, message);
        (outcome, message.len(), target.entry.leaks().is_empty())
    };
    let locked = (Some(Outcome::Locked), 0, true);
    let mut held = true;
    for n in 0..rounds + 64 {
        let function = if n < 32 { n } else { random.next() as u32 };
        let len = random.below(200) as usize;
        let data = random.bytes(len);
        held &= function == function::UNLOCK || says(&mut target, function, &data) == locked;
    }
    held &= [function::CONFIGURE, function::TESTS, function::ACCEPT]
        .into_iter()
        .all(|function| says(&mut target, function, &[]) == locked);
    step("every function but one is refused as locked", held)?;
    refuses_what_is_no_call(&mut target, random, rounds)?;
    refuses_keys(&mut target, key, random)?;

    let (outcome, unlocked) =
        target.call(function::UNLOCK, message(unlock::KEY, has_sgx2() && !lies, key).as_bytes());
    let unlocked = Unlocked::read_from_bytes(&unlocked).map_err(|_| format!("{outcome:?}"))?;
    let kept = unlocked.sealed.windows(8).any(|part| key.windows(8).any(|k| k == part));
    step("the key unlocks it, and comes back sealed", outcome == Some(Outcome::Done) && !kept)?;
    step("it says whether pages are to be restricted", (unlocked.restrict == 1) == has_sgx2())?;
    if has_sgx2() {
        let not = says(&mut target, function::ACCEPT, &[]);
        step(
            "pages that are not restricted are not accepted",
            not == (Some(Outcome::NotRestricted), 0, true),
        )?;
        step("and nothing runs", says(&mut target, number::ECHO, &[0]) == locked)?;
        let restricted = payload.pieces().iter().filter(|piece| piece.is_restricted());
        let restricted: Vec<_> = restricted.collect();
        let (last, others) = restricted.split_last().ok_or("no piece")?;
        let restrict = |piece: &enclave_abi::encrypted::Piece| {
            driver.restrict(piece.offset, piece.size, piece.rights()).map_err(|e| e.to_string())
        };
        others.iter().try_for_each(|piece| restrict(piece))?;
        let not = says(&mut target, function::ACCEPT, &[]);
        step("nor if one piece is not", not == (Some(Outcome::NotRestricted), 0, true))?;
        others.iter().chain([last]).try_for_each(|piece| restrict(piece))?;
        step(
            "restricted they are",
            says(&mut target, function::ACCEPT, &[]) == (Some(Outcome::Done), 0, true),
        )?;
    }
    let again = says(&mut target, function::UNLOCK, message(unlock::KEY, false, key).as_bytes());
    step("it is unlocked once", again == (Some(Outcome::AlreadyUnlocked), 0, true))?;
    step("and is what it was", target.intact())
}

/// Commands and places of messages as [`super::out_of_order`] and [`super::hostile_pointers`].
fn refuses_what_is_no_call(target: &mut Target, random: &mut Random, rounds: u32) -> Result<(), String> {
    let (exchange, capacity, base) = (target.exchange(), target.capacity(), target.base);
    let mut wrong = vec![
        (Command::Return as u64, exchange, capacity),
        (Command::Exception as u64, exchange, capacity),
        (u64::MAX, exchange, capacity),
        (0, base, 4096),
        (0, base - 64, 8),
        (0, exchange + 4, capacity - 8),
        (0, exchange, u64::MAX - 7),
        (0, !7, 64),
    ];
    wrong.extend((0..rounds).map(|_| (0, base + (random.below(1 << 24) & !7), random.below(1 << 20) & !7)));
    let refused = wrong.into_iter().all(|(command, exchange, capacity)| {
        target.put(enclave_abi::call::Exchange { function: function::UNLOCK, ..Default::default() }, &[]);
        let before = target.memory.clone();
        target.entry.enter(command, exchange, capacity);
        target.memory == before && target.entry.leaks().is_empty()
    });
    step("other commands, and messages in the enclave: refused, nothing written", refused)
}

/// Keys that are not the enclave's, and messages that are none.
fn refuses_keys(target: &mut Target, key: &[u8; KEY_SIZE], random: &mut Random) -> Result<(), String> {
    let good = message(unlock::KEY, false, key);
    let mut refused = true;
    let mut says = |told: &[u8], outcome: Outcome| {
        refused &= target.call(function::UNLOCK, told) == (Some(outcome), Vec::new())
    };
    for byte in 0..KEY_SIZE {
        let mut wrong = *key;
        wrong[byte] ^= 1 << (byte % 8);
        says(message(unlock::KEY, false, &wrong).as_bytes(), Outcome::WrongKey);
    }
    for _ in 0..32 {
        says(message(unlock::SEALED, false, &random.bytes(SEALED_SIZE)).as_bytes(), Outcome::WrongKey);
    }
    says(message(2, false, key).as_bytes(), Outcome::BadArguments);
    says(&[good.as_bytes(), &[0; 8]].concat(), Outcome::BadArguments);
    says(&good.as_bytes()[..40], Outcome::BadArguments);
    says(&[], Outcome::BadArguments);
    step("wrong keys, sealed ones of nobody's, messages that are none: told, and still locked", refused)
}
